/*
 * credentials.c - credentials: ids, groups, capabilities, securebits, no_new_privs, dumpable.
 *
 * usage: credentials DIRECTORY ids|groups|capabilities|securebits|no_new_privs|dumpable|threads|locked|user
 */
#define _GNU_SOURCE
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define SIZE 2048

static const char *const lines[] = { "Uid:",	"Gid:",	   "Groups:", "CapInh:",     "CapPrm:",
				     "CapEff:", "CapBnd:", "CapAmb:", "NoNewPrivs:", "Seccomp:" };
static atomic_int prepared, stop;
static char thread_before[SIZE];

/* Describes all credentials of the calling thread as one text. */
static void describe(char *text)
{
	char line[1024], path[64];
	size_t used = 0;

	snprintf(path, sizeof(path), "/proc/self/task/%d/status", gettid());
	FILE *status = fopen(path, "re");
	live_check(status, "%s: %m", path);
	while (fgets(line, sizeof(line), status))
		for (size_t i = 0; i < sizeof(lines) / sizeof(lines[0]); i++)
			if (strncmp(line, lines[i], strlen(lines[i])) == 0)
				used += snprintf(text + used, SIZE - used, "%s", line);
	fclose(status);
	snprintf(text + used, SIZE - used, "securebits %x dumpable %d keepcaps %d\n",
		 prctl(PR_GET_SECUREBITS), prctl(PR_GET_DUMPABLE), prctl(PR_GET_KEEPCAPS));
}

static void compare(const char *before)
{
	char now[SIZE];

	describe(now);
	live_check(strcmp(before, now) == 0, "was:\n%sis:\n%s", before, now);
}

static void set_capabilities(unsigned effective, unsigned permitted, unsigned inheritable)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { effective, permitted, inheritable } };

	live_check(syscall(SYS_capset, &header, data) == 0, "capset: %m");
}

#define BIT(capability) (1U << (capability))

static void set_up_capabilities(void)
{
	unsigned permitted = BIT(CAP_CHOWN) | BIT(CAP_KILL) | BIT(CAP_SETPCAP) | BIT(CAP_NET_RAW) |
			     BIT(CAP_DAC_OVERRIDE);

	prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT);
	prctl(PR_CAPBSET_DROP, CAP_SYS_TIME);
	set_capabilities(permitted & ~BIT(CAP_CHOWN), permitted, BIT(CAP_KILL) | BIT(CAP_NET_RAW));
	live_check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0, "PR_CAP_AMBIENT: %m");
}

static void set_up_ids(void)
{
	gid_t groups[] = { 1001, 1, 70000 };

	live_check(chown(live_directory, 1000, 2000) == 0 && chmod(live_directory, 0777) == 0, "chown: %m");
	live_check(setgroups(3, groups) == 0, "setgroups: %m");
	live_check(setresgid(2000, 2001, 2002) == 0, "setresgid: %m");
	live_check(setresuid(1000, 1001, 1002) == 0, "setresuid: %m");
	prctl(PR_SET_DUMPABLE, 1);
}

static void set_up_groups(void)
{
	gid_t groups[] = { 0, 5, 1001, 70000 };

	live_check(setgroups(4, groups) == 0, "setgroups: %m");
}

static void set_up_securebits(void)
{
	live_check(prctl(PR_SET_SECUREBITS,
			 SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED) == 0,
		   "PR_SET_SECUREBITS: %m");
}

static void set_up_no_new_privs(void)
{
	live_check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "PR_SET_NO_NEW_PRIVS: %m");
}

static void set_up_dumpable(void)
{
	live_check(prctl(PR_SET_DUMPABLE, 0) == 0, "PR_SET_DUMPABLE: %m");
}

/* The raw system call: libc's would change all threads. */
static void *other_thread(void *nothing)
{
	gid_t groups[] = { 7, 8 };

	live_check(prctl(PR_CAPBSET_DROP, CAP_SYS_BOOT) == 0, "PR_CAPBSET_DROP: %m");
	live_check(prctl(PR_SET_SECUREBITS, SECBIT_NOROOT | SECBIT_NO_SETUID_FIXUP) == 0,
		   "PR_SET_SECUREBITS: %m");
	live_check(syscall(SYS_setgroups, 2, groups) == 0 && syscall(SYS_setresgid, 5, 6, 7) == 0 &&
			   syscall(SYS_setresuid, 1000, 1001, 1002) == 0,
		   "setresuid: %m");
	prctl(PR_SET_DUMPABLE, 1);
	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	set_capabilities(BIT(CAP_KILL), BIT(CAP_KILL) | BIT(CAP_CHOWN), 0);
	describe(thread_before);
	prepared = 1;
	while (!stop)
		live_sleep(0.002);
	compare(thread_before);
	return NULL;
}

static void set_up_nothing(void)
{
}

/*
 * Credentials that can only be set in the right order: inheritable capabilities beyond the bounding set, ambient ones
 * that cannot be raised any more, locked securebits.
 */
static void set_up_locked(void)
{
	unsigned permitted = BIT(CAP_CHOWN) | BIT(CAP_KILL) | BIT(CAP_SETPCAP);

	set_capabilities(permitted, permitted, BIT(CAP_KILL) | BIT(CAP_NET_RAW));
	live_check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_KILL, 0, 0) == 0, "PR_CAP_AMBIENT: %m");
	live_check(prctl(PR_CAPBSET_DROP, CAP_NET_RAW) == 0 && prctl(PR_CAPBSET_DROP, CAP_KILL) == 0,
		   "PR_CAPBSET_DROP: %m");
	live_check(prctl(PR_SET_SECUREBITS, SECURE_ALL_BITS | SECURE_ALL_LOCKS) == 0,
		   "PR_SET_SECUREBITS: %m");
	set_capabilities(0, BIT(CAP_KILL), BIT(CAP_KILL) | BIT(CAP_NET_RAW));
}

/* An ordinary user with an ambient capability, another user id for files, and SECBIT_KEEP_CAPS. */
static void set_up_user(void)
{
	live_check(chmod(live_directory, 0777) == 0, "chmod: %m");
	live_check(prctl(PR_SET_SECUREBITS, SECBIT_KEEP_CAPS | SECBIT_NO_SETUID_FIXUP) == 0,
		   "PR_SET_SECUREBITS: %m");
	live_check(setgroups(0, NULL) == 0, "setgroups: %m");
	live_check(setresgid(1001, 1001, 1001) == 0 && setresuid(1000, 1000, 1000) == 0, "setresuid: %m");
	setfsgid(3001);
	setfsuid(3000);
	set_capabilities(BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETPCAP),
			 BIT(CAP_NET_BIND_SERVICE) | BIT(CAP_SETPCAP), BIT(CAP_NET_BIND_SERVICE));
	live_check(prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, CAP_NET_BIND_SERVICE, 0, 0) == 0,
		   "PR_CAP_AMBIENT: %m");
	prctl(PR_SET_DUMPABLE, 1);
}

static const struct {
	const char *name;
	void (*set_up)(void);
} kinds[] = {
	{ "ids", set_up_ids },
	{ "groups", set_up_groups },
	{ "capabilities", set_up_capabilities },
	{ "securebits", set_up_securebits },
	{ "no_new_privs", set_up_no_new_privs },
	{ "dumpable", set_up_dumpable },
	{ "threads", set_up_nothing },
	{ "locked", set_up_locked },
	{ "user", set_up_user },
};

int main(int argc, char **argv)
{
	char before[SIZE];
	pthread_t thread;

	live_begin(argc, argv);
	live_choose(kinds, argv[2])->set_up();
	bool has_thread = strcmp(argv[2], "threads") == 0;
	if (has_thread) {
		pthread_create(&thread, NULL, other_thread, NULL);
		while (!prepared)
			live_sleep(0.001);
	}
	describe(before);
	live_ready();
	live_wait_stop();
	compare(before);
	stop = 1;
	if (has_thread)
		pthread_join(thread, NULL);
	return live_finish();
}
