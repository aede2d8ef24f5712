/*
 * probe_test.c - the table of probes, and that a probe leaves nothing behind.
 */
#include "unit.h"
#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "compiler.h"
#include "kernel/probe.h"

/* The names that `criu check --feature` of 4.2.1 knows. */
static const char *const known[] = {
	"mnt_id",
	"mem_dirty_track",
	"aio_remap",
	"timerfd",
	"tun",
	"tun_ns",
	"userns",
	"fdinfo_lock",
	"seccomp_suspend",
	"seccomp_filters",
	"loginuid",
	"cgroupns",
	"autofs",
	"tcp_half_closed",
	"compat_cr",
	"uffd",
	"uffd-noncoop",
	"can_map_vdso",
	"sk_ns",
	"sk_unix_file",
	"net_diag_raw",
	"nsid",
	"link_nsid",
	"kcmp_epoll",
	"timens",
	"external_net_ns",
	"clone3_set_tid",
	"newifindex",
	"nftables",
	"has_ipt_legacy",
	"pidfd_store",
	"ns_pid",
	"apparmor_stacking",
	"network_lock_nftables",
	"sockopt_buf_lock",
	"memfd_hugetlb",
	"move_mount_set_group",
	"openat2",
	"get_rseq_conf",
	"ipv6_freebind",
	"pagemap_scan",
	"timer_cr_ids",
	"overlayfs_maps",
	"breakpoints",
	"pagemap_scan_guard_pages",
};

static void names(void **state unused)
{
	for (size_t i = 0; i < array_size(known); i++)
		if (!probe_find(known[i]))
			fail_msg("no probe '%s'", known[i]);
	for (size_t i = 0; i < probe_count; i++) {
		assert_ptr_equal(probe_find(probes[i].name), &probes[i]); /* each name is unique */
		assert_true(strlen(probes[i].yes) > 10 && strlen(probes[i].no) > 10);
	}
	assert_null(probe_find("bogus"));
}

/* One tracker always works: comparing memory needs no more than reading it, which a dump requires anyway. */
static void tracking(void **state unused)
{
	static const char *const trackers[] = { "written", "soft-dirty", "process_vm" };
	bool any = false;

	for (size_t i = 0; i < array_size(trackers); i++)
		any = probe_run(probe_find(trackers[i])) || any;
	assert_int_equal(probe_run(probe_find("mem_dirty_track")), any);
}

static size_t open_descriptors(void)
{
	DIR *directory = opendir("/proc/self/fd");
	size_t count = 0;

	while (readdir(directory))
		count++;
	closedir(directory);
	return count;
}

/* With any privileges, every probe has an answer, and leaves no process and no descriptor. */
static void nothing_is_left(void **state unused)
{
	size_t before = open_descriptors();

	for (size_t i = 0; i < probe_count; i++)
		probe_run(&probes[i]);
	assert_int_equal(open_descriptors(), before);
	assert_true(waitpid(-1, NULL, WNOHANG) < 0 && errno == ECHILD);
}

static bool says_yes(int argument)
{
	return argument == 7;
}

static bool dies(int unused_argument unused)
{
	signal(SIGSEGV, SIG_DFL); /* otherwise cmocka would continue with the next test in the child */
	raise(SIGSEGV);
	return true;
}

static bool is_late(int unused_argument unused)
{
	raise(SIGALRM); /* as after five seconds */
	return true;
}

static void answers(void **state unused)
{
	assert_true(probe_run(&(struct probe){ .test = says_yes, .argument = 7 }));
	assert_false(probe_run(&(struct probe){ .test = says_yes, .argument = 8 }));
	assert_false(probe_run(&(struct probe){ .test = dies }));
	assert_false(probe_run(&(struct probe){ .test = is_late }));
}

static bool changes_memory(int unused_argument unused)
{
	extern char **environ;

	environ = NULL;
	return true;
}

static void it_is_another_process(void **state unused)
{
	extern char **environ;

	assert_true(probe_run(&(struct probe){ .test = changes_memory }));
	assert_non_null(environ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(names),
		cmocka_unit_test(tracking),
		cmocka_unit_test(nothing_is_left),
		cmocka_unit_test(answers),
		cmocka_unit_test(it_is_another_process),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
