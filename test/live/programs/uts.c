/*
 * uts.c - processes in uts namespaces of their own: each keeps its host name and domain name, and no other one has
 * them.
 *
 * usage: uts DIRECTORY tree|child|two|nested|shared
 *
 *	tree    the root and its child are in one that is not criu's
 *	child   only the child is in another one
 *	two     two children are in one each
 *	nested  the child is in one, and its own child in another
 *	shared  two children are in the same one
 */
#define _GNU_SOURCE
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "live.h"

struct names {
	char host[65], domain[65];
};

static void look(struct names *names)
{
	struct utsname now;

	live_check(uname(&now) == 0, "uname: %m");
	strcpy(names->host, now.nodename);
	strcpy(names->domain, now.domainname);
}

static void check(const struct names *names, const char *who)
{
	struct names now;

	look(&now);
	live_check(!strcmp(now.host, names->host) && !strcmp(now.domain, names->domain),
		   "%s: %s.%s, not %s.%s", who, now.host, now.domain, names->host, names->domain);
}

static void rename_host(const char *host)
{
	char domain[65];

	snprintf(domain, sizeof(domain), "domain-of-%s", host);
	live_check(sethostname(host, strlen(host)) == 0 && setdomainname(domain, strlen(domain)) == 0,
		   "sethostname: %m");
}

static void begin_own(const char *host)
{
	live_check(unshare(CLONE_NEWUTS) == 0, "unshare: %m");
	rename_host(host);
}

static void live_in(const char *who)
{
	struct names names;

	look(&names);
	while (!live_stopping()) {
		check(&names, who);
		live_sleep(0.02);
	}
}

static void stay(void)
{
	live_in("a child");
}

static void one(void)
{
	begin_own("one");
	live_in("one");
}

static void other(void)
{
	begin_own("other");
	live_in("other");
}

static void outer(void)
{
	pid_t child;

	begin_own("outer");
	child = live_fork(other);
	live_in("outer");
	live_join(child);
}

static const struct shape {
	const char *name;
	bool root_has_own, shares;
	void (*children[2])(void);
} shapes[] = {
	{ "tree", true, false, { stay, NULL } },   { "child", false, false, { one, NULL } },
	{ "two", false, false, { one, other } },   { "nested", false, false, { outer, NULL } },
	{ "shared", false, true, { stay, stay } },
};

int main(int argc, char **argv)
{
	const struct shape *shape;
	struct names names;
	pid_t children[2] = { 0 };

	live_begin(argc, argv);
	shape = live_choose(shapes, argv[2]);
	if (shape->root_has_own)
		begin_own("tree");
	look(&names);
	for (int i = 0; i < 2 && shape->children[i]; i++) {
		if (shape->shares && !i)
			begin_own("shared");
		children[i] = live_fork(shape->children[i]);
	}
	if (shape->shares)
		look(&names);
	live_sleep(0.1);
	live_ready();
	while (!live_stopping()) {
		check(&names, "the root");
		live_sleep(0.02);
	}
	check(&names, "the root");
	for (int i = 0; i < 2 && children[i]; i++)
		live_join(children[i]);
	return live_finish();
}
