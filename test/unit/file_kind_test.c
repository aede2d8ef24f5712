/*
 * file_kind_test.c - the contract of criu/files/kind.h: when each callback runs, and that let_go() and close() run
 * exactly once, however a journey ends. The files are the open files of this test, which has two kinds for them.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/image.h"
#include "image/message.h"

static char calls[2000]; /* "collect first, collect second, …" */
static const char *fails_at;
static struct snapshot snapshot;
static struct task *task;
static int fds[2]; /* these are of the first kind, all other files of the second */

/* Notes consecutive calls for several files once. */
static int note(const char *callback, const char *kind)
{
	char call[64];

	snprintf(call, sizeof(call), "%s%s %s", *calls ? ", " : "", callback, kind);
	if (!strstr(calls, call + (*calls ? 2 : 0)))
		strncat(calls, call, sizeof(calls) - strlen(calls) - 1);
	return fails_at && !strncmp(fails_at, callback, strlen(callback)) && strstr(fails_at, kind) ?
		       fail(EIO, "%s fails", fails_at) :
		       0;
}

static bool is_first(const struct snapshot *any unused, const struct seen_file *seen)
{
	return seen->fd == fds[0] || seen->fd == fds[1];
}

static bool is_any(const struct snapshot *any unused, const struct seen_file *seen)
{
	return seen->fd >= 0;
}

struct counters {
	int let_go, closed;
	enum dump_end end;
};

/* The callbacks of a kind `name`. Its message is a member of file_entry that is otherwise unused here. */
#define kind_of_test(kind_, number, member, recognizes_what)                                       \
	extern const struct file_kind kind_;                                                       \
	static struct counters kind_##_counters;                                                   \
	static int kind_##_collect(struct snapshot *any unused)                                    \
	{                                                                                          \
		return note("collect", #kind_);                                                    \
	}                                                                                          \
	static int kind_##_fdinfo(struct snapshot *any unused, struct file *file, const char *key, \
				  const char *value unused)                                        \
	{                                                                                          \
		assert_non_null(file->entry->member);                                              \
		assert_int_equal(file->entry->member->id, file->id);                               \
		return strcmp(key, "flags") ? 0 : note("fdinfo", #kind_);                          \
	}                                                                                          \
	static int kind_##_describe(struct snapshot *any unused, struct file *file unused)         \
	{                                                                                          \
		return note("describe", #kind_);                                                   \
	}                                                                                          \
	static int kind_##_hold(struct snapshot *any unused)                                       \
	{                                                                                          \
		return note("hold", #kind_);                                                       \
	}                                                                                          \
	static int kind_##_judge(struct snapshot *any unused)                                      \
	{                                                                                          \
		return note("judge", #kind_);                                                      \
	}                                                                                          \
	static int kind_##_save(struct snapshot *any unused)                                       \
	{                                                                                          \
		return note("save", #kind_);                                                       \
	}                                                                                          \
	static void kind_##_let_go(struct snapshot *any unused, enum dump_end end)                 \
	{                                                                                          \
		kind_##_counters.let_go++;                                                         \
		kind_##_counters.end = end;                                                        \
		note("let_go", #kind_);                                                            \
	}                                                                                          \
	static int kind_##_load(struct snapshot *any)                                              \
	{                                                                                          \
		const char *state = file_kind_state(any, &kind_);                                  \
                                                                                                   \
		for (int i = 0; i < number; i++)                                                   \
			assert_int_equal(state[i], 0);                                             \
		return note("load", #kind_);                                                       \
	}                                                                                          \
	static int kind_##_check(struct snapshot *any unused, struct file *file unused)            \
	{                                                                                          \
		return note("check", #kind_);                                                      \
	}                                                                                          \
	static int kind_##_open(struct snapshot *any unused, struct file *file unused)             \
	{                                                                                          \
		return note("open", #kind_) ?: open("/dev/null", O_RDWR | O_CLOEXEC);              \
	}                                                                                          \
	static int kind_##_join(struct snapshot *any)                                              \
	{                                                                                          \
		for (size_t i = 0; i < any->file_count; i++)                                       \
			assert_true(any->files[i]->fd >= 0);                                       \
		return note("join", #kind_);                                                       \
	}                                                                                          \
	static void kind_##_pass(struct snapshot *any, struct letter *letter)                      \
	{                                                                                          \
		char *state = file_kind_state(any, &kind_);                                        \
                                                                                                   \
		state[0] = letter->is_read ? 0 : number;                                           \
		letter_value(letter, state, 1);                                                    \
		assert_int_equal(state[0], number);                                                \
		note("pass", #kind_);                                                              \
	}                                                                                          \
	static int kind_##_settle(struct snapshot *any unused, struct task *one unused)            \
	{                                                                                          \
		return note("settle", #kind_);                                                     \
	}                                                                                          \
	static void kind_##_release(struct snapshot *any unused)                                   \
	{                                                                                          \
		note("release", #kind_);                                                           \
	}                                                                                          \
	static void kind_##_close(struct snapshot *any unused)                                     \
	{                                                                                          \
		kind_##_counters.closed++;                                                         \
		note("close", #kind_);                                                             \
	}                                                                                          \
	const struct file_kind kind_ = {                                                           \
		.name = #kind_,                                                                    \
		.type = number,                                                                    \
		.message = offsetof(FileEntry, member),                                            \
		.state_size = number,                                                              \
		.collect = kind_##_collect,                                                        \
		.recognizes = recognizes_what,                                                     \
		.fdinfo = kind_##_fdinfo,                                                          \
		.describe = kind_##_describe,                                                      \
		.hold = kind_##_hold,                                                              \
		.judge = kind_##_judge,                                                            \
		.save = kind_##_save,                                                              \
		.let_go = kind_##_let_go,                                                          \
		.load = kind_##_load,                                                              \
		.check = kind_##_check,                                                            \
		.open = kind_##_open,                                                              \
		.join = kind_##_join,                                                              \
		.pass = kind_##_pass,                                                              \
		.settle = kind_##_settle,                                                          \
		.release = kind_##_release,                                                        \
		.close = kind_##_close,                                                            \
	}
kind_of_test(first, FD_TYPES__EVENTFD, efd, is_first);
kind_of_test(second, FD_TYPES__SIGNALFD, sgfd, is_any);

/* Replaces kinds.c: the core knows only these kinds here. */
const struct file_kind *const file_kinds[] = { &first, &second };
const size_t file_kind_count = 2;
const struct file_kind file_kind_regular = { .name = "file" };

static pid_t child;

/* It has the same open files as this test, and does not change them. */
static pid_t make_child(void)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

static void end_child(void)
{
	if (child <= 0)
		return;
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	child = 0;
}

/* The tree is a child of this test. */
static void add_child(void)
{
	child = make_child();
	assert_true(child > 0);
	task = snapshot_add_task_here(&snapshot, NULL, child);
	task->ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
	task->ids->files_id = 2;
	task->proc = proc_open(child);
	task->pidfd = syscall(SYS_pidfd_open, child, 0);
	assert_true(task->proc >= 0 && task->pidfd >= 0);
}

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	fails_at = NULL;
	*calls = '\0';
	first_counters = second_counters = (struct counters){ 0 };
	snapshot_init(&snapshot);
	fds[0] = open("/dev/null", O_RDONLY);
	fds[1] = open("/dev/null", O_RDONLY);
	return image_store_open_memory(&snapshot.images);
}

static void free_snapshot(void)
{
	for (size_t i = 0; i < snapshot.file_count; i++)
		if (snapshot.files[i]->seen) {
			seen_file_free(snapshot.files[i]->seen);
			free(snapshot.files[i]->seen);
		}
	snapshot_free(&snapshot);
}

static int end(void **state unused)
{
	struct image_store *images = snapshot.images;

	end_child();
	free_snapshot();
	image_store_close(images);
	close(fds[0]);
	close(fds[1]);
	return 0;
}

static int dump(void)
{
	add_child();
	return files_collect(&snapshot) ?: files_save(&snapshot) ?: files_save_tables(&snapshot);
}

#define WHOLE_DUMP                                                                                           \
	"collect first, collect second, fdinfo second, fdinfo first, describe second, describe first, "      \
	"hold first, hold second, judge first, judge second, save first, save second, let_go first, let_go " \
	"second"

static void order_of_a_dump(void **state unused)
{
	assert_int_equal(dump(), 0);
	files_let_go(&snapshot, DUMP_KILLED);
	assert_string_equal(calls, WHOLE_DUMP);
	assert_int_equal(files_of_kind(&snapshot, &first)->count, 2);
	assert_int_equal(files_of_kind(&snapshot, &second)->count, snapshot.file_count - 2);
}

/* `reached`: for how many kinds let_go() has to run. */
static void let_go_once(const char *step, enum dump_end how, int reached)
{
	void *none = NULL;

	begin(&none);
	fails_at = step;
	assert_int_equal(dump() < 0, step != NULL);
	files_let_go(&snapshot, how);
	files_let_go(&snapshot, DUMP_FAILED); /* as when a later step is undone */
	assert_int_equal(first_counters.let_go, reached > 0);
	assert_int_equal(second_counters.let_go, reached > 1);
	assert_int_equal(first_counters.end, how);
	end(&none);
}

static void every_dump_lets_go_once(void **state unused)
{
	static const struct {
		const char *step;
		int reached;
	} failures[] = {
		{ "collect first", 1 }, { "collect second", 2 }, { "fdinfo first", 2 },
		{ "fdinfo second", 2 }, { "describe first", 2 }, { "hold first", 2 },
		{ "hold second", 2 },	{ "judge first", 2 },	 { "judge second", 2 },
		{ "save first", 2 },	{ "save second", 2 },
	};
	static const enum dump_end ends[] = { DUMP_FAILED, DUMP_RUNS_ON, DUMP_STOPPED, DUMP_KILLED };

	for (size_t i = 0; i < array_size(failures); i++)
		let_go_once(failures[i].step, DUMP_FAILED, failures[i].reached);
	for (size_t i = 0; i < array_size(ends); i++)
		let_go_once(NULL, ends[i], 2);
}

static void no_collection_no_end(void **state unused)
{
	add_child();
	files_let_go(&snapshot, DUMP_FAILED);
	assert_string_equal(calls, "");
}

/* Writes the images that a restore begins with: those of this test itself. */
static void begin_restore(void)
{
	struct image_store *images = snapshot.images;

	assert_int_equal(dump(), 0);
	files_let_go(&snapshot, DUMP_RUNS_ON);
	free_snapshot();
	snapshot_init(&snapshot);
	snapshot.images = images;
	task = snapshot_add_task_here(&snapshot, NULL, getpid());
	task->ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
	task->ids->files_id = 2;
	*calls = '\0';
}

/* From a criu that has opened the files to the root, whose copy of criu's memory is older: it has no number yet. */
static void pass_on(void)
{
	struct letter written = { 0 }, read;
	int numbers[64];

	assert_true(snapshot.file_count < array_size(numbers));
	files_pass(&snapshot, &written);
	read = (struct letter){ .bytes = written.bytes, .size = written.size, .is_read = true };
	for (size_t i = 0; i < snapshot.file_count; i++) {
		numbers[i] = snapshot.files[i]->fd;
		snapshot.files[i]->fd = snapshot.files[i]->mapping_fd = -2;
	}
	files_pass(&snapshot, &read);
	for (size_t i = 0; i < snapshot.file_count; i++) {
		assert_int_equal(snapshot.files[i]->fd, numbers[i]);
		assert_int_equal(snapshot.files[i]->mapping_fd, -1);
	}
	assert_false(read.is_shorter);
	assert_int_equal(read.at, read.size);
	letter_free(&written);
}

static int restore(void)
{
	int result = files_load(&snapshot) ?: files_open(&snapshot);

	if (!result)
		pass_on();
	result = result ?: files_settle(&snapshot, task);
	if (!result)
		files_release(&snapshot);
	files_close(&snapshot);
	files_close(&snapshot);
	return result;
}

static void order_of_a_restore(void **state unused)
{
	begin_restore();
	assert_int_equal(restore(), 0);
	assert_string_equal(calls,
			    "load first, load second, check second, check first, open second, open first, "
			    "join first, join second, pass first, pass second, settle first, settle second, "
			    "release first, release second, close first, close second");
}

static void every_restore_closes_once(void **state unused)
{
	static const struct {
		const char *step;
		int reached;
	} failures[] = {
		{ "load first", 1 },  { "load second", 2 },  { "check first", 2 }, { "open second", 2 },
		{ "join second", 2 }, { "settle first", 2 }, { NULL, 2 },
	};
	void *none = NULL;

	for (size_t i = 0; i < array_size(failures); i++) {
		begin(&none);
		begin_restore();
		fails_at = failures[i].step;
		assert_int_equal(restore() < 0, fails_at != NULL);
		assert_int_equal(first_counters.closed, 1);
		assert_int_equal(second_counters.closed, failures[i].reached > 1);
		for (size_t j = 0; j < snapshot.file_count; j++)
			assert_true(snapshot.files[j]->fd < 0);
		end(&none);
	}
}

/* The core sets flags, id and owner. */
static void common_fields(void **state unused)
{
	const struct file_list *files = files_of_kind(&snapshot, &first);

	assert_int_equal(fcntl(fds[0], F_SETFL, O_APPEND | O_NONBLOCK), 0);
	assert_int_equal(fcntl(fds[0], F_SETSIG, 10), 0);
	assert_int_equal(fcntl(fds[0], F_SETOWN, getpid()), 0);
	assert_int_equal(dump(), 0);
	files = files_of_kind(&snapshot, &first);
	assert_int_equal(files->items[0]->entry->efd->flags & ~0100000, O_APPEND | O_NONBLOCK);
	assert_int_equal(files->items[0]->entry->efd->fown->signum, 10);
	assert_int_equal(file_owner(&snapshot, files->items[0])->pid, getpid());
	assert_int_equal(files->items[1]->entry->efd->fown->signum, 0);
	files_let_go(&snapshot, DUMP_RUNS_ON);
}

static void fdinfo_lines(void **state unused)
{
	char text[] =
		"pos:\t0\nsettime flags: 01\nit_value: (0, 5)\nno colon\nempty:\ntfd:        3 events: 19\n"
		"tfd: 4";
	struct seen_file seen = { 0 };

	fdinfo_split(text, &seen.lines, &seen.line_count);
	assert_int_equal(seen.line_count, 6);
	assert_string_equal(fdinfo_find(&seen, "pos"), "0");
	assert_string_equal(fdinfo_find(&seen, "settime flags"), "01");
	assert_string_equal(fdinfo_find(&seen, "it_value"), "(0, 5)");
	assert_string_equal(fdinfo_find(&seen, "empty"), "");
	assert_string_equal(fdinfo_find(&seen, "tfd"), "3 events: 19");
	assert_string_equal(seen.lines[5].value, "4");
	assert_null(fdinfo_find(&seen, "flags"));
	free(seen.lines);
	fdinfo_split(NULL, &seen.lines, &seen.line_count);
	assert_int_equal(seen.line_count, 0);
}

int main(void)
{
#define test(name) cmocka_unit_test_setup_teardown(name, begin, end)
	const struct CMUnitTest tests[] = {
		test(order_of_a_dump),
		cmocka_unit_test(every_dump_lets_go_once),
		test(no_collection_no_end),
		test(order_of_a_restore),
		cmocka_unit_test(every_restore_closes_once),
		test(common_fields),
		cmocka_unit_test(fdinfo_lines),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
