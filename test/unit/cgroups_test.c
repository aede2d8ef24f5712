/*
 * cgroups_test.c - parses what /proc tells about cgroups, and applies --cgroup-root.
 */
#include "unit.h"
#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/cgroups.h"
#include "kernel/cpus.h"
#include "task/cgroup_roots.h"

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

static void assert_place(const struct cgroup_places *places, size_t index, const char *hierarchy,
			 const char *path)
{
	assert_true(index < places->count);
	assert_string_equal(places->items[index].hierarchy, hierarchy);
	assert_string_equal(places->items[index].path, path);
}

static void places_are_sorted(void **state unused)
{
	struct cgroup_places places;

	assert_int_equal(
		cgroups_parse("9:name=systemd:/user.slice/a b:c\n4:memory:/x\n3:cpu,cpuacct:/\n0::/unified\n",
			      &places),
		0);
	assert_int_equal(places.count, 4);
	assert_place(&places, 0, "", "/unified");
	assert_place(&places, 1, "cpu,cpuacct", "/");
	assert_place(&places, 2, "memory", "/x");
	assert_place(&places, 3, "name=systemd", "/user.slice/a b:c");
	cgroup_places_free(&places);
	assert_int_equal(cgroups_parse("", &places), 0);
	assert_int_equal(places.count, 0);
	cgroup_places_free(&places);
}

static void places_are_refused(void **state unused)
{
	static const char *const texts[] = { "x", "0:", "0::", "0::relative\n", "4:memory\n", "\n\n" };

	for (size_t i = 0; i < array_size(texts); i++) {
		struct cgroup_places places;

		assert_int_equal(cgroups_parse(texts[i], &places), -EINVAL);
		assert_null(places.text);
		failure_clear();
	}
	assert_int_equal(cgroups_parse("0::/a\nx\n", &(struct cgroup_places){ 0 }), -EINVAL);
	assert_string_equal(failure_text(), "cannot understand /proc/PID/cgroup: x");
	failure_clear();
}

static void names_are_compared(void **state unused)
{
	assert_true(cgroup_is_related("cpu,cpuacct", "cpuacct,cpu"));
	assert_true(cgroup_is_related("cpu", "cpu,cpuacct"));
	assert_true(cgroup_is_related("cpu,cpuacct", "cpuacct"));
	assert_true(cgroup_is_related("name=systemd", "name=systemd"));
	assert_true(cgroup_is_related("", ""));
	assert_false(cgroup_is_related("cpu,cpuacct", "cpuset"));
	assert_false(cgroup_is_related("cpuset", "cpu"));
	assert_false(cgroup_is_related("memory", ""));
	assert_false(cgroup_is_related("", "memory"));
}

static void paths_lead_down(void **state unused)
{
	static const char *const sound[] = { "/", "/a", "/a/b", "/a..b", "/..a", "/a../b", "/..." };
	static const char *const unsound[] = { "", "a", "/..", "/../a", "/a/..", "/a/../b" };

	for (size_t i = 0; i < array_size(sound); i++)
		assert_true(cgroup_path_is_sound(sound[i]));
	for (size_t i = 0; i < array_size(unsound); i++)
		assert_false(cgroup_path_is_sound(unsound[i]));
}

#define MOUNTS                                                                                 \
	"22 27 0:21 / /proc rw,relatime - proc proc rw\n"                                      \
	"35 31 0:32 /docker/1 /sys/fs/cgroup/memory rw shared:9 - cgroup cgroup rw,memory\n"   \
	"36 31 0:32 / /sys/fs/cgroup/a\\040b rw shared:9 master:2 - cgroup cgroup rw,memory\n" \
	"37 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpuacct,cpu\n"          \
	"40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd\n"       \
	"nonsense\n\n1 2 3 4 - cgroup\n - cgroup2 x\n"                                         \
	"41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n"               \
	"42 31 0:38 / /mnt rw,relatime - cgroup2 cgroup2 rw"

static void assert_mounts(const char *hierarchy, const char *first, unsigned minor, const char *second)
{
	const char *at = MOUNTS, *points[] = { first, second };
	struct cgroup_mount mount;

	for (size_t i = 0; i < 2 && points[i]; i++) {
		assert_true(cgroup_next_mount(&at, hierarchy, &mount));
		assert_string_equal(mount.point, points[i]);
		assert_int_equal(mount.device, makedev(0, minor));
		free(mount.point);
	}
	assert_false(cgroup_next_mount(&at, hierarchy, &mount));
}

static void mounts_are_found(void **state unused)
{
	assert_mounts("", "/sys/fs/cgroup/unified", 38, "/mnt");
	assert_mounts("memory", "/sys/fs/cgroup/a b", 32,
		      NULL); /* the other mount shows only a part of the hierarchy */
	assert_mounts("cpu,cpuacct", "/sys/fs/cgroup/cpu,cpuacct", 33, NULL);
	assert_mounts("name=systemd", "/sys/fs/cgroup/systemd", 37, NULL);
	assert_mounts("pids", NULL, 0, NULL);
}

static void assert_root(const struct texts *roots, const char *hierarchy, const char *expected)
{
	autofree char *root = cgroup_given_root(roots, hierarchy);

	if (expected)
		assert_string_equal(root, expected);
	else
		assert_null(root);
}

static void roots_are_found(void **state unused)
{
	const char *items[] = {
		"memory:/m", "/all/", "/later", "cpu,cpuacct:/c//", ":/two", "name=systemd:/"
	};
	struct texts roots = { items, array_size(items) }, none = { 0 };

	assert_int_equal(cgroup_roots_check(&roots), 0);
	assert_root(&roots, "memory", "/m");
	assert_root(&roots, "pids", "/later");
	assert_root(&roots, "cpuacct", "/c");
	assert_root(&roots, "", "/two");
	assert_root(&roots, "name=systemd", "/");
	assert_root(&none, "memory", NULL);
}

static void roots_are_refused(void **state unused)
{
	const char *items[] = { "", "memory", "memory:x", "/a/../b", "memory:/..", ":" };

	for (size_t i = 0; i < array_size(items); i++) {
		assert_int_equal(cgroup_roots_check(&(struct texts){ &items[i], 1 }), -EINVAL);
		failure_clear();
	}
}

static void assert_below(const char *path, const char *new_root, const char *expected, const char *top,
			 const char *other)
{
	char *tops[] = { (char *)top, (char *)other };
	autofree char *found = NULL;

	cgroup_tops_sort(tops, array_size(tops));
	found = cgroup_below(new_root, path, tops, array_size(tops));
	assert_string_equal(found, expected);
}

static void paths_move(void **state unused)
{
	assert_below("/app", "/new", "/new", "/app", "/app/db");
	assert_below("/app/db", "/new", "/new/db", "/app", "/app/db");
	assert_below("/app/db/1", "/new", "/new/db/1", "/app", "/app/db");
	assert_below("/app/web", "/new", "/new", "/app/web", "/app/db");
	assert_below("/app-2/web", "/new", "/new", "/app", "/app-2/web");
	assert_below("/app/web", "/", "/web", "/app", "/app-2");
	assert_below("/app", "/", "/", "/app", "/app-2");
	assert_below("/", "/new", "/new", "/", "/a");
	assert_below("/a/b", "/new", "/new/a/b", "/", "/a");
	assert_below("/elsewhere/x", "/new", "/new", "/app", "/app/db");
}

static void assert_cpus(const char *list, size_t length, uint8_t first, uint8_t last)
{
	struct cpus cpus;

	assert_true(cpus_parse(list, &cpus));
	assert_int_equal(cpus_length(&cpus), length);
	if (length) {
		assert_int_equal(cpus.bits[0], first);
		assert_int_equal(cpus.bits[length - 1], last);
	}
}

static void cpus_are_read(void **state unused)
{
	static const char *const wrong[] = { "a", "0-", "-1", "0,,1", "1;2", "8192", "0-8192", "0 1" };
	struct cpus cpus;

	assert_cpus("", 0, 0, 0);
	assert_cpus("\n", 0, 0, 0);
	assert_cpus("0\n", 1, 0x01, 0x01);
	assert_cpus("0-3,8\n", 2, 0x0f, 0x01);
	assert_cpus("1,3-4,8191", 1024, 0x1a, 0x80);
	for (size_t i = 0; i < array_size(wrong); i++)
		assert_false(cpus_parse(wrong[i], &cpus));
}

int main(void)
{
#define clean(test) cmocka_unit_test_setup(test, start_clean)
	const struct CMUnitTest tests[] = {
		clean(places_are_sorted), clean(places_are_refused), clean(names_are_compared),
		clean(paths_lead_down),	  clean(mounts_are_found),   clean(roots_are_found),
		clean(roots_are_refused), clean(paths_move),	     clean(cpus_are_read),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
