/*
 * proc_test.c - parses texts of /proc, real ones and hostile ones: a process can give itself and its files any name,
 * and a kernel may leave lines out.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysmacros.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "kernel/proc.h"

static int start_clean(void **state unused)
{
	failure_clear();
	log_level = 0;
	return 0;
}

/* ---- stat ---- */

#define BEHIND_NAME                                                                                                 \
	" S 20 30 40 34816 50 4194560 1 2 3 4 5 6 7 8 20 0 1 0 123456 7 8 18446744073709551615 4194304 4198400 "    \
	"140737488347136 0 0 0 0 0 0 0 0 0 17 1 0 0 0 0 0 6295568 6295584 6299648 140737488347800 140737488347810 " \
	"140737488347820 140737488347830 256\n"

static void assert_behind_name(const struct proc_stat *stat)
{
	assert_int_equal(stat->state, 'S');
	assert_int_equal(stat->parent, 20);
	assert_int_equal(stat->group, 30);
	assert_int_equal(stat->session, 40);
	assert_int_equal(stat->flags, 4194560);
	assert_int_equal(stat->start_time, 123456);
	assert_int_equal(stat->start_code, 4194304);
	assert_int_equal(stat->end_code, 4198400);
	assert_int_equal(stat->start_stack, 140737488347136);
	assert_int_equal(stat->start_data, 6295568);
	assert_int_equal(stat->end_data, 6295584);
	assert_int_equal(stat->start_brk, 6299648);
	assert_int_equal(stat->arg_start, 140737488347800);
	assert_int_equal(stat->env_end, 140737488347830);
	assert_int_equal(stat->exit_code, 256);
}

static void stat_names(void **state unused)
{
	static const char *const names[] = {
		"bash", "", ")", "((", "a) R 1 2 3", "new\nline", "x) Z 0\n5 (y", "\xff\xfe\x01"
	};

	for (size_t i = 0; i < array_size(names); i++) {
		autofree char *text = format_text("4711 (%s)" BEHIND_NAME, names[i]);
		struct proc_stat stat;

		assert_int_equal(proc_parse_stat(text, &stat), 0);
		assert_int_equal(stat.pid, 4711);
		assert_string_equal(stat.comm, names[i]);
		assert_behind_name(&stat);
	}
}

static void stat_hostile(void **state unused)
{
	char longest[64 + 1];
	autofree char *text = NULL;
	static const char *const texts[] = {
		"",
		"4711",
		"4711 (a",
		"4711 a)",
		")(",
		"4711 (a)",
		"4711 (a)S 1",
		"4711 (a) S",
		"4711 (a) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 x 21 22"
	};
	struct proc_stat stat;

	for (size_t i = 0; i < array_size(texts); i++) {
		assert_int_equal(proc_parse_stat(texts[i], &stat), -EINVAL);
		failure_clear();
	}
	memset(longest, 'a', 64);
	longest[64] = '\0';
	text = format_text("1 (%s)" BEHIND_NAME, longest);
	assert_int_equal(proc_parse_stat(text, &stat), -EINVAL);
}

/* Numbers that no kernel writes: they must not break the parser. */
static void stat_huge(void **state unused)
{
	struct proc_stat stat;

	assert_int_equal(
		proc_parse_stat(
			"99999999999999999999 (a) S -1 99999999999999999999999 3 4 5 6 7 8 9 10 11 12 13 14 15 16 "
			"17 18 19 20 21 22 23 24 25 26",
			&stat),
		0);
	assert_int_equal(stat.parent, -1);
}

/* ---- status ---- */

static const char status_text[] =
	"Name:\tUid: 5\\n\nUmask:\t0027\nState:\tT (stopped)\nTgid:\t4711\nPid:\t4712\nPPid:\t1\n"
	"TracerPid:\t99\nUid:\t1000\t1001\t1002\t1003\nGid:\t0\t1\t2\t4294967294\nFDSize:\t64\n"
	"Groups:\t4 24 4294967294 \nThreads:\t3\nSigQ:\t1/2\nSigPnd:\t0000000000000001\n"
	"ShdPnd:\t8000000000000000\nSigBlk:\tffffffffffffffff\nSigIgn:\t0000000000001000\n"
	"SigCgt:\t0000000180004002\nCapInh:\t0000000000000020\nCapPrm:\t000001ffffffffff\n"
	"CapEff:\t0000000000000400\nCapBnd:\t000001fffeffffff\nCapAmb:\t0000000000000020\n"
	"NoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t1\n";

static void status_real(void **state unused)
{
	struct proc_status status;

	assert_int_equal(proc_parse_status(status_text, &status), 0);
	assert_int_equal(status.uid[0], 1000);
	assert_int_equal(status.uid[3], 1003);
	assert_int_equal(status.gid[3], 4294967294);
	assert_int_equal(status.group_count, 3);
	assert_int_equal(status.groups[0], 4);
	assert_int_equal(status.groups[2], 4294967294);
	assert_int_equal(status.umask, 027);
	assert_int_equal(status.state, 'T');
	assert_int_equal(status.group_leader, 4711);
	assert_int_equal(status.threads, 3);
	assert_true(status.permitted == 0x1ffffffffffULL);
	assert_true(status.bounding == 0x1fffeffffffULL);
	assert_int_equal(status.inheritable, 0x20);
	assert_int_equal(status.effective, 0x400);
	assert_int_equal(status.ambient, 0x20);
	assert_int_equal(status.no_new_privileges, 1);
	assert_int_equal(status.seccomp, 2);
	proc_status_free(&status);
	assert_int_equal(status.group_count, 0);
}

static void status_with_little(void **state unused)
{
	struct proc_status status;

	assert_int_equal(proc_parse_status("", &status), -EINVAL);
	assert_int_equal(proc_parse_status("Uid:\t1\t2\t3\nGid:\t1\t2\t3\t4\n", &status), -EINVAL);
	assert_int_equal(proc_parse_status("Uid:\t1\t2\t3\t4\n", &status), -EINVAL);
	assert_int_equal(proc_parse_status("Uid:\t1\t2\t3\t4\nGid:\t1\t2\t3\t4\nGroups:\t", &status), 0);
	assert_int_equal(status.group_count, 0);
	assert_int_equal(status.state, '?');
	assert_int_equal(status.permitted, 0);
	proc_status_free(&status);
}

/* ---- ids in pid namespaces ---- */

static void levels_of_ids(void **state unused)
{
	struct pid_levels levels;
	const char text[] =
		"Name:\tNSpid: 5\nNStgid:\t8\nNSpid:\t4722\t9\t1\nNSpgid:\t4711\t0\t0\nNSsid:\t12";

	assert_int_equal(proc_parse_levels(text, "NSpid", &levels), 0);
	assert_int_equal(levels.count, 3);
	assert_true(levels.ids[0] == 4722 && levels.ids[1] == 9 && levels.ids[2] == 1);
	assert_int_equal(proc_parse_levels(text, "NSpgid", &levels), 0);
	assert_true(levels.count == 3 && levels.ids[0] == 4711 && levels.ids[2] == 0);
	assert_int_equal(proc_parse_levels(text, "NSsid", &levels), 0);
	assert_true(levels.count == 1 && levels.ids[0] == 12);
}

static void levels_hostile(void **state unused)
{
	static const char *const texts[] = { "",
					     "Name:\ta\n",
					     "NSpid:\n",
					     "NSpid:",
					     "NSpid:\t-1\n",
					     "NSpid:\t1\tx\n",
					     "NSpid:\t1\t-2\n",
					     "NSpid:\t2147483648\n" };
	char many[4 * 34 + 8] = "NSpid:";
	struct pid_levels levels;

	for (size_t i = 0; i < array_size(texts); i++) {
		failure_clear();
		assert_int_equal(proc_parse_levels(texts[i], "NSpid", &levels), -EINVAL);
	}
	for (int i = 0; i < 33; i++)
		strcat(many, "\t7");
	assert_int_equal(proc_parse_levels(many, "NSpid", &levels), 0);
	assert_int_equal(levels.count, 33);
	strcat(many, "\t7");
	assert_int_equal(proc_parse_levels(many, "NSpid", &levels), -EINVAL);
}

/* ---- lines ---- */

static void lines_with_names(void **state unused)
{
	uint64_t number = 7;

	assert_true(proc_text_number(status_text, "ShdPnd", 16, &number));
	assert_true(number == 1ULL << 63);
	assert_true(proc_text_number("Uid:\t5\n", "Uid", 10, &number)); /* the first line, too */
	assert_int_equal(number, 5);
	assert_false(
		proc_text_number("NSpid:\t8\n", "pid", 10, &number)); /* the name must match completely */
	assert_false(proc_text_number("", "Uid", 10, &number));
	assert_int_equal(number, 5);
}

static void lines_of_maps(void **state unused)
{
	struct map_line map;

	assert_true(map_line_parse(
		"7f0000001000-7f0000003000 r-xp 00002000 fe:01 4711      /lib/a b.so (deleted)", &map));
	assert_true(map.start == 0x7f0000001000 && map.end == 0x7f0000003000 && map.offset == 0x2000);
	assert_true(map.inode == 4711 && map.device == makedev(0xfe, 1));
	assert_string_equal(map.access, "r-xp");
	assert_string_equal(map.name, "/lib/a b.so (deleted)");
	assert_true(
		map_line_parse("ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]", &map));
	assert_true(map.end == 0xffffffffff601000);
	assert_true(map_line_parse("1000-2000 rw-s 00000000 00:00 0 ", &map));
	assert_string_equal(map.name, "");
	assert_false(map_line_parse("2000-2000 rw-p 00000000 00:00 0 ", &map));
	assert_false(map_line_parse("1000-2000 rw-p 00000000 00:00", &map));
	assert_false(map_line_parse("Rss:     4 kB", &map));
}

/* ---- limits ---- */

static const char limits_text[] =
	"Limit                     Soft Limit           Hard Limit           Units     \n"
	"Max cpu time              unlimited            unlimited            seconds   \n"
	"Max file size             1                    unlimited            bytes     \n"
	"Max data size             2                    3                    bytes     \n"
	"Max stack size            8388608              unlimited            bytes     \n"
	"Max core file size        0                    0                    bytes     \n"
	"Max resident set          unlimited            unlimited            bytes     \n"
	"Max processes             100                  200                  processes \n"
	"Max open files            1024                 1048576              files     \n"
	"Max locked memory         8388608              8388608              bytes     \n"
	"Max address space         18446744073709551614 unlimited            bytes     \n"
	"Max file locks            unlimited            unlimited            locks     \n"
	"Max pending signals       31                   32                   signals   \n"
	"Max msgqueue size         819200               819200               bytes     \n"
	"Max nice priority         0                    40                   \n"
	"Max realtime priority     0                    99                   \n"
	"Max realtime timeout      unlimited            unlimited            us        \n";

static void limits_real(void **state unused)
{
	struct rlimit limits[RLIM_NLIMITS];

	assert_int_equal(proc_parse_limits(limits_text, limits), 0);
	assert_true(limits[RLIMIT_CPU].rlim_cur == RLIM_INFINITY &&
		    limits[RLIMIT_CPU].rlim_max == RLIM_INFINITY);
	assert_true(limits[RLIMIT_FSIZE].rlim_cur == 1 && limits[RLIMIT_FSIZE].rlim_max == RLIM_INFINITY);
	assert_true(limits[RLIMIT_NPROC].rlim_cur == 100 && limits[RLIMIT_NPROC].rlim_max == 200);
	assert_true(limits[RLIMIT_AS].rlim_cur == RLIM_INFINITY - 1);
	assert_true(limits[RLIMIT_SIGPENDING].rlim_cur == 31 && limits[RLIMIT_SIGPENDING].rlim_max == 32);
	assert_true(limits[RLIMIT_NICE].rlim_max == 40 && limits[RLIMIT_RTPRIO].rlim_max == 99);
	assert_true(limits[RLIMIT_RTTIME].rlim_max == RLIM_INFINITY);
}

/* Each line in turn is missing, or has no numbers. */
static void limits_without_a_line(void **state unused)
{
	struct rlimit limits[RLIM_NLIMITS];

	for (const char *line = strchr(limits_text, '\n') + 1; *line; line = strchr(line, '\n') + 1) {
		autofree char *text = copy_text(limits_text);
		char *there = text + (line - limits_text), *next = strchr(there, '\n') + 1;

		memset(there + 26, '?', next - there - 27);
		assert_int_equal(proc_parse_limits(text, limits), -EINVAL);
		failure_clear();
		memmove(there, next, strlen(next) + 1);
		assert_int_equal(proc_parse_limits(text, limits), -EINVAL);
		failure_clear();
	}
}

/* ---- smaps ---- */

static void smaps_real(void **state unused)
{
	char text[] =
		"00400000-00452000 r-xp 00001000 08:02 173521      /a b (deleted)\nSize:  328 kB\nKernelPageSize:        4 kB\nRss:    316 kB\n"
		"VmFlags: rd ex mr mw me dw \n"
		"7ffc0000-7ffe1000 rw-s 00000000 00:01 18446744073709551615 \nKernelPageSize:     2048 kB\nRss: 0 kB\n"
		"Private_Hugetlb:    4096 kB\nProtectionKey:        11\nVmFlags: rd wr gd lo dd ht sl zz\n"
		"ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0   [vsyscall]\nVmFlags: ex\n";
	struct vmas vmas = { 0 };

	assert_int_equal(proc_parse_smaps(text, &vmas), 0);
	assert_int_equal(vmas.count, 3);
	assert_int_equal(vmas.items[0].start, 0x400000);
	assert_int_equal(vmas.items[0].key, 0);
	assert_int_equal(vmas.items[1].key, 11);
	assert_false(vmas.items[0].is_sealed);
	assert_true(vmas.items[1].is_sealed);
	assert_int_equal(vmas.items[0].offset, 0x1000);
	assert_int_equal(vmas.items[0].inode, 173521);
	assert_int_equal(vmas.items[0].protection, PROT_READ | PROT_EXEC);
	assert_int_equal(vmas.items[0].flags, MAP_PRIVATE);
	assert_int_equal(vmas.items[0].resident, 316 << 10);
	assert_true(vmas.items[0].may_write);
	assert_true(vmas.items[0].device == makedev(8, 2));
	assert_string_equal(vmas.items[0].path, "/a b (deleted)");
	assert_int_equal(vmas.items[1].flags,
			 MAP_SHARED | MAP_GROWSDOWN | MAP_LOCKED | MAP_HUGETLB | 21 << VMA_HUGE_SHIFT);
	assert_true(vma_page_size(&vmas.items[1]) == 2 << 20 && vma_page_size(&vmas.items[0]) == PAGE_SIZE);
	assert_int_equal(vmas.items[1].resident, 4096 << 10);
	assert_true(vmas.items[1].advice == 1ULL << MADV_DONTDUMP);
	assert_false(vmas.items[1].may_write);
	assert_string_equal(vmas.items[1].path, "");
	assert_true(vmas.items[2].start == 0xffffffffff600000);
	assert_string_equal(vmas.items[2].path, "[vsyscall]");
	vmas_free(&vmas);
	assert_int_equal(vmas.count, 0);
}

static void smaps_hostile(void **state unused)
{
	static const char *const wrong[] = { "00400000-00400000 r-xp 0 08:02 1 /a\n",
					     "00500000-00400000 r-xp 0 08:02 1 /a\n",
					     "0-\n",
					     "400000-500000\n",
					     "deadbeef\n",
					     "00400000-00500000 rwxp 0 08 1 /a\n" };
	static const char *const harmless[] = { "",	"\n",	     "VmFlags: rd wr\nRss: 4 kB\n",
						"Rss:", "VmFlags: ", "\n\n\n" };

	for (size_t i = 0; i < array_size(wrong); i++) {
		autofree char *text = copy_text(wrong[i]);
		struct vmas vmas = { 0 };

		assert_int_equal(proc_parse_smaps(text, &vmas), -EINVAL);
		failure_clear();
		vmas_free(&vmas);
	}
	for (size_t i = 0; i < array_size(harmless); i++) {
		autofree char *text = copy_text(harmless[i]);
		struct vmas vmas = { 0 };

		assert_int_equal(proc_parse_smaps(text, &vmas), 0);
		assert_int_equal(vmas.count, 0);
	}
}

/* The last line is torn: without its end, in the middle of its flags, or without its number. */
static void smaps_torn(void **state unused)
{
	static const char *const ends[] = { "VmFlags: rd lo", "VmFlags: rd lo ", "VmFlags: rd lo d",
					    "VmFlags: rd lo\nRss:" };

	for (size_t i = 0; i < array_size(ends); i++) {
		autofree char *text = format_text("1000-2000 rw-p 0 0:0 0\n%s", ends[i]);
		struct vmas vmas = { 0 };

		assert_int_equal(proc_parse_smaps(text, &vmas), 0);
		assert_int_equal(vmas.count, 1);
		assert_int_equal(vmas.items[0].flags, MAP_PRIVATE | MAP_LOCKED);
		assert_int_equal(vmas.items[0].resident, 0);
		vmas_free(&vmas);
	}
}

/* Lines in another order than the kernel's, names that begin like others, lines of another mapping. */
static void smaps_lines(void **state unused)
{
	char text[] =
		"1000-2000 rw-p 0 0:0 0\nVmFlags: lo\nSwap:   4 kB\nSwapPss:   0 kB\nShared_Dirty:   4 kB\nRss:  8 kB\n"
		"2000-3000 rw-p 0 0:0 0\nSwapPss: 4 kB\nRssX: 4 kB\nRs: 4 kB\nSharedX: 4 kB\nShmemPmdMapped: 2048 kB\n"
		"3000-4000 rw-p 0 0:0 0\nRss 4 kB\n:\nAnonHugePages: 0 kB\nShared_Hugetlb: 2048 kB\n";
	struct vmas vmas = { 0 };

	assert_int_equal(proc_parse_smaps(text, &vmas), 0);
	assert_int_equal(vmas.count, 3);
	assert_true(vmas.items[0].has_swapped && vmas.items[0].has_relatives);
	assert_true(vmas.items[0].flags & MAP_LOCKED && vmas.items[0].resident == 8 << 10);
	assert_false(vmas.items[1].has_swapped || vmas.items[1].has_relatives || vmas.items[1].resident);
	assert_true(vmas.items[1].has_huge_pages && vmas.items[2].has_relatives);
	assert_false(vmas.items[2].has_huge_pages || vmas.items[2].resident);
	vmas_free(&vmas);
}

/* maps agrees with smaps; and texts that differ in one point. */
static void smaps_beside_maps(void **state unused)
{
	static const char same[] = "1000-2000 rw-p 00003000 08:02 7 /a b\n3000-4000 r--s 00000000 00:00 0 \n";
	static const char *const others[] = {
		"",
		"1000-2000 rw-p 00003000 08:02 7 /a b\n",
		"1000-2000 rw-p 00003000 08:02 7 /a b\n3000-4000 r--s 0 00:00 0 \n5000-6000 r--s 0 00:00 0 \n",
		"0000-2000 rw-p 00003000 08:02 7 /a b\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-3000 rw-p 00003000 08:02 7 /a b\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-2000 r--p 00003000 08:02 7 /a b\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-2000 rw-p 00004000 08:02 7 /a b\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-2000 rw-p 00003000 08:03 7 /a b\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-2000 rw-p 00003000 08:02 8 /a b\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-2000 rw-p 00003000 08:02 7 /a b (deleted)\n3000-4000 r--s 00000000 00:00 0 \n",
		"1000-2000 rw-p 00003000 08:02 7 /a b\n3000-4000 r--p 00000000 00:00 0 \n",
	};
	char text[] = "1000-2000 rw-p 00003000 08:02 7 /a b\nRss: 4 kB\nVmFlags: rd wr lo dc\n"
		      "3000-4000 r--s 00000000 00:00 0 \nRss: 4 kB\nVmFlags: rd sh nr\n";
	struct vmas smaps = { 0 }, none = { 0 };

	assert_int_equal(proc_parse_smaps(text, &smaps), 0);
	assert_true(vmas_are_same_in_maps(&none, &none));
	for (size_t i = 0; i <= array_size(others); i++) {
		autofree char *maps_text = copy_text(i < array_size(others) ? others[i] : same);
		struct vmas maps = { 0 };

		assert_int_equal(proc_parse_smaps(maps_text, &maps), 0);
		assert_int_equal(vmas_are_same_in_maps(&smaps, &maps), i == array_size(others));
		vmas_free(&maps);
	}
	vmas_free(&smaps);
}

/* A file that was opened earlier shows the present state. */
static void maps_opened_before(void **state unused)
{
	autoclose int self = proc_open(getpid()), maps = openat(self, "maps", O_RDONLY | O_CLOEXEC);
	struct vmas before = { 0 }, after = { 0 };
	void *page = mmap(NULL, PAGE_SIZE, PROT_NONE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	bool is_there = false;

	assert_true(self >= 0 && maps >= 0 && page != MAP_FAILED);
	assert_int_equal(proc_read_open_maps(maps, &after), 0);
	for (size_t i = 0; i < after.count; i++)
		is_there |= after.items[i].start == (uintptr_t)page;
	assert_true(is_there);
	munmap(page, PAGE_SIZE);
	assert_int_equal(proc_read_maps(self, &before), 0);
	assert_false(vmas_are_same_in_maps(&before, &after));
	vmas_free(&before);
	vmas_free(&after);
}

/* ---- ourselves ---- */

static void ourselves(void **state unused)
{
	autoclose int self = proc_open(getpid());
	struct rlimit limits[RLIM_NLIMITS], now;
	struct proc_status status;
	struct proc_stat stat;
	struct vmas vmas = { 0 };

	assert_true(self >= 0);
	assert_int_equal(proc_read_stat(self, &stat), 0);
	assert_int_equal(stat.pid, getpid());
	assert_int_equal(stat.parent, getppid());
	assert_int_equal(stat.session, getsid(0));
	assert_int_equal(proc_read_status(self, &status), 0);
	assert_int_equal(status.uid[1], geteuid());
	proc_status_free(&status);
	assert_int_equal(proc_read_limits(self, limits), 0);
	for (int i = 0; i < RLIM_NLIMITS; i++) {
		getrlimit(i, &now);
		assert_true(now.rlim_cur == limits[i].rlim_cur && now.rlim_max == limits[i].rlim_max);
	}
	assert_int_equal(proc_read_smaps(self, &vmas), 0);
	assert_true(vmas.count > 3);
	vmas_free(&vmas);
	assert_true(proc_open(-1) < 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(stat_names, start_clean),
		cmocka_unit_test_setup(stat_hostile, start_clean),
		cmocka_unit_test_setup(stat_huge, start_clean),
		cmocka_unit_test_setup(status_real, start_clean),
		cmocka_unit_test_setup(levels_of_ids, start_clean),
		cmocka_unit_test_setup(levels_hostile, start_clean),
		cmocka_unit_test_setup(lines_with_names, start_clean),
		cmocka_unit_test_setup(lines_of_maps, start_clean),
		cmocka_unit_test_setup(status_with_little, start_clean),
		cmocka_unit_test_setup(limits_real, start_clean),
		cmocka_unit_test_setup(limits_without_a_line, start_clean),
		cmocka_unit_test_setup(smaps_real, start_clean),
		cmocka_unit_test_setup(smaps_hostile, start_clean),
		cmocka_unit_test_setup(smaps_torn, start_clean),
		cmocka_unit_test_setup(smaps_lines, start_clean),
		cmocka_unit_test_setup(smaps_beside_maps, start_clean),
		cmocka_unit_test_setup(maps_opened_before, start_clean),
		cmocka_unit_test_setup(ourselves, start_clean),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
