/*
 * probe.h - what this kernel allows with the privileges of criu, found out by trying it.
 *
 * A probe runs in a child of its own, which is gone when probe_run() returns, with everything that it opened, mapped,
 * mounted or unshared. So a probe does not depend on kernel versions or user ids, and leaves no trace.
 */
#ifndef CRIU_KERNEL_PROBE_H
#define CRIU_KERNEL_PROBE_H

#include <stdbool.h>
#include <stddef.h>

enum probe_class {
	PROBE_REQUIRED,	    /* dump or restore need it */
	PROBE_USEFUL,	    /* makes something faster, or possible for many processes */
	PROBE_EXTRA,	    /* some processes need it */
	PROBE_EXPERIMENTAL, /* nothing relies on it yet */
};

struct probe {
	const char *name; /* as in `criu check --feature NAME` */
	bool (*test)(int argument);
	int argument;
	enum probe_class class;
	const char *yes, *no; /* the consequence, for the user */
};

extern const struct probe probes[];
extern const size_t probe_count;

const struct probe *probe_find(const char *name); /* NULL: there is none */
bool probe_run(const struct probe *probe);

#endif
