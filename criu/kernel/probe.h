/*
 * probe.h - what this kernel lets us do with the privileges we have, found out by doing it.
 *
 * A probe runs in a child of its own, which is gone when probe_run() returns, and with it all that it opened, mapped,
 * mounted or unshared. So none depends on kernel versions or on who we are, and none leaves a trace.
 */
#ifndef CRIU_KERNEL_PROBE_H
#define CRIU_KERNEL_PROBE_H

#include <stdbool.h>
#include <stddef.h>

enum probe_class {
	PROBE_REQUIRED,	    /* without it there is no dump or no restore */
	PROBE_USEFUL,	    /* makes something faster, or possible for many processes */
	PROBE_EXTRA,	    /* some processes need it */
	PROBE_EXPERIMENTAL, /* nothing relies on it yet */
};

struct probe {
	const char *name; /* as in `criu check --feature NAME` */
	bool (*test)(int argument);
	int argument;
	enum probe_class class;
	const char *yes, *no; /* what follows from it, for a person */
};

extern const struct probe probes[];
extern const size_t probe_count;

const struct probe *probe_find(const char *name); /* NULL: there is none */
bool probe_run(const struct probe *probe);

#endif
