/*
 * identity_test.c - which descriptors are one open file: those of a process, of its child, and of criu itself, which
 * has received some through a unix socket. The tree is a child of this test that has few files open and sleeps.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/image.h"
#include "image/message.h"
#include "kernel/file_lister.h"

/* Descriptors of the child. */
enum { SOCKET = 10, FIRST, SAME, ANOTHER, SHARED, LAST };
#define MANY	  500
#define VERY_MANY 1200 /* the kernel lists them at once, if it can */

static struct snapshot snapshot;
static pid_t child;
static int sockets[2], own_shared;
static struct file *received[2];
static size_t described;

/* ---- two kinds: sockets, in which files are in flight, and all others ---- */

static bool is_socket(const struct snapshot *any unused, const struct seen_file *seen)
{
	return S_ISSOCK(seen->stat.st_mode);
}

static bool is_any(const struct snapshot *any unused, const struct seen_file *seen unused)
{
	return true;
}

static int receive(int fds[2])
{
	char byte, room[CMSG_SPACE(2 * sizeof(int))];
	struct iovec content = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &content, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)
	};
	struct cmsghdr *header;

	assert_int_equal(recvmsg(sockets[0], &message, MSG_CMSG_CLOEXEC | MSG_DONTWAIT), 1);
	header = CMSG_FIRSTHDR(&message);
	assert_true(header && header->cmsg_type == SCM_RIGHTS);
	memcpy(fds, CMSG_DATA(header), 2 * sizeof(int));
	return 0;
}

static int describe_socket(struct snapshot *any, struct file *file unused)
{
	int fds[2];

	described++;
	return receive(fds)					 ?:
		       files_identify(any, fds[0], &received[0]) ?:
								   files_identify(any, fds[1], &received[1]);
}

static int describe_other(struct snapshot *any unused, struct file *file unused)
{
	described++;
	return 0;
}

static const struct file_kind kind_socket = {
	.name = "socket",
	.type = FD_TYPES__UNIXSK,
	.message = offsetof(FileEntry, usk),
	.recognizes = is_socket,
	.describe = describe_socket,
};
const struct file_kind file_kind_regular = {
	.name = "file",
	.type = FD_TYPES__REG,
	.message = offsetof(FileEntry, reg),
	.recognizes = is_any,
	.describe = describe_other,
};
const struct file_kind *const file_kinds[] = { &kind_socket, &file_kind_regular };
const size_t file_kind_count = 2;

/* ---- the tree ---- */

static void send_files(const int fds[2])
{
	char byte = 0, room[CMSG_SPACE(2 * sizeof(int))] = { 0 };
	struct iovec content = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &content, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room)
	};
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(2 * sizeof(int));
	memcpy(CMSG_DATA(header), fds, 2 * sizeof(int));
	if (sendmsg(SOCKET, &message, 0) != 1)
		_exit(1);
}

/*
 * FIRST and SAME are one open file. ANOTHER is the same path, opened again. In flight are FIRST, and another open
 * file of this path that no process has in its table.
 */
static does_not_return void live(int socket, int shared, int many)
{
	int flying[2] = { FIRST, -1 };

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	dup2(socket, SOCKET);
	dup2(shared, SHARED);
	syscall(SYS_close_range, 0, SOCKET - 1, 0);
	syscall(SYS_close_range, LAST, ~0U, 0);
	dup2(open("/dev/null", O_RDWR), FIRST);
	dup2(FIRST, SAME);
	dup2(open("/dev/null", O_RDWR), ANOTHER);
	for (int i = 0; i < many; i++) {
		int fd = open("/dev/null", O_RDWR);

		if (dup2(fd, LAST + i) < 0)
			_exit(1);
		close(fd);
	}
	syscall(SYS_close_range, 0, SOCKET - 1, 0);
	flying[1] = open("/dev/null", O_RDONLY);
	send_files(flying);
	close(flying[1]);
	for (;;)
		pause();
}

static void add_task(pid_t pid, uint32_t table)
{
	struct task *task = snapshot_add_task_here(&snapshot, NULL, pid);

	task->ids = message_new(TaskKobjIdsEntry, task_kobj_ids_entry);
	task->ids->files_id = table;
	task->proc = proc_open(pid);
	task->pidfd = syscall(SYS_pidfd_open, pid, 0);
	assert_true(task->proc >= 0 && task->pidfd >= 0);
}

static void begin_tree(int many)
{
	struct pollfd ready = { .events = POLLIN };

	failure_clear();
	log_level = 0;
	described = 0;
	received[0] = received[1] = NULL;
	snapshot_init(&snapshot);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, sockets), 0);
	own_shared = open("/dev/null", O_RDWR | O_CLOEXEC);
	child = fork();
	assert_true(child >= 0);
	if (!child)
		live(sockets[1], own_shared, many);
	ready.fd = sockets[0];
	assert_int_equal(poll(&ready, 1, 10000), 1); /* sending is the last thing that it does … */
	add_task(child, 2);
	while (faccessat(snapshot.root->proc, "fd/0", F_OK, 0) == 0) /* … before it closes what it has sent */
		usleep(1000);
}

static void end_tree(void)
{
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	for (size_t i = 0; i < snapshot.file_count; i++)
		if (snapshot.files[i]->seen) {
			seen_file_free(snapshot.files[i]->seen);
			free(snapshot.files[i]->seen);
		}
	snapshot_free(&snapshot);
	close(sockets[0]);
	close(sockets[1]);
	close(own_shared);
}

static struct file *file_of_child(int fd)
{
	return task_find_descriptor(snapshot.root, fd)->file;
}

static void expect_in_flight(int many)
{
	size_t before;

	begin_tree(many);
	files_look_ahead(&snapshot, &child, 1);
	before = descriptors_count();
	assert_int_equal(files_collect(&snapshot), 0);
	assert_ptr_equal(received[0], file_of_child(FIRST));
	assert_ptr_equal(file_of_child(SAME), file_of_child(FIRST));
	assert_ptr_not_equal(file_of_child(ANOTHER), file_of_child(FIRST));
	/* The file that is in no table: it is found last, and described like all others. */
	assert_null(received[1]->holder);
	assert_int_equal(received[1]->id, snapshot.file_count);
	assert_int_equal(received[1]->seen->holder.here, getpid());
	assert_int_equal(received[1]->entry->reg->flags & O_ACCMODE, O_RDONLY);
	assert_int_equal(described, snapshot.file_count);
	assert_int_equal(descriptors_count(),
			 before + 3); /* that file, and the descriptors by which criu looks at itself */
	files_let_go(&snapshot, DUMP_RUNS_ON);
	assert_int_equal(descriptors_count(), before);
	end_tree();
}

static void in_flight(void **state unused)
{
	expect_in_flight(0);
	expect_in_flight(VERY_MANY);
}

/* criu has received a descriptor of a file that the child has, too: criu does not keep it. */
static void expect_received_again(int many)
{
	struct file *file;
	int fd;

	begin_tree(many);
	files_look_ahead(&snapshot, &child, 1);
	assert_int_equal(files_collect(&snapshot), 0);
	fd = dup(own_shared);
	assert_int_equal(files_identify(&snapshot, fd, &file), 0);
	assert_ptr_equal(file, file_of_child(SHARED));
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	fd = open("/dev/null", O_RDWR);
	assert_int_equal(files_identify(&snapshot, fd, &file), 0);
	assert_int_equal(file->id, snapshot.file_count);
	assert_int_equal(fcntl(fd, F_GETFD), 0);
	assert_true(files_identify(&snapshot, 99999, &file) < 0);
	failure_clear();
	files_let_go(&snapshot, DUMP_RUNS_ON);
	assert_int_equal(fcntl(fd, F_GETFD), -1);
	end_tree();
}

static void received_again(void **state unused)
{
	expect_received_again(0);
	expect_received_again(VERY_MANY);
}

/* Many open files that look alike: each is a file of its own, and ids are in the order of the descriptors. */
static void expect_many(int many)
{
	begin_tree(many);
	files_look_ahead(&snapshot, &child, 1);
	assert_int_equal(files_collect(&snapshot), 0);
	for (int i = 1; i < many; i++)
		assert_int_equal(file_of_child(LAST + i)->id, file_of_child(LAST + i - 1)->id + 1);
	for (size_t i = 1; i < snapshot.file_count; i++)
		assert_true(snapshot.files[i]->id == i + 1);
	files_let_go(&snapshot, DUMP_RUNS_ON);
	end_tree();
}

static void many_that_look_alike(void **state unused)
{
	expect_many(MANY);
	expect_many(VERY_MANY);
}

/* A child of the child: one more process with the descriptors of its parent, but for those that it has changed. */
static void inherit(pid_t *pid, int ready)
{
	pid_t born = fork();

	if (born) {
		*pid = born;
		return;
	}
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fcntl(SAME, F_SETFD, FD_CLOEXEC);
	dup2(open("/dev/null", O_RDWR), ANOTHER);
	dup2(FIRST, LAST + 1);
	close(SHARED);
	close(ready);
	for (;;)
		pause();
}

static void expect_inherited(int many)
{
	pid_t *grandchild = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct task *task;
	int ends[2];
	char byte;

	failure_clear();
	log_level = 0;
	snapshot_init(&snapshot);
	assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		dup2(open("/dev/null", O_RDWR), FIRST);
		dup2(FIRST, SAME);
		dup2(open("/dev/null", O_RDWR), ANOTHER);
		dup2(open("/dev/null", O_RDWR), SHARED);
		for (int i = 0; i < many; i++)
			dup2(FIRST, LAST + 10 + i);
		inherit(grandchild, ends[1]);
		close(ends[1]);
		for (;;)
			pause();
	}
	close(ends[1]);
	assert_int_equal(read(ends[0], &byte, 1), 0); /* both have closed it */
	close(ends[0]);
	add_task(child, 2);
	add_task(*grandchild, 3);
	task = snapshot_find_task_here(&snapshot, *grandchild);
	task->parent = snapshot_find_task_here(&snapshot, child);
	files_look_ahead(&snapshot, (pid_t[]){ child, *grandchild }, 2);
	assert_int_equal(files_collect(&snapshot), 0);
#define file_of(pid, fd) (task_find_descriptor(snapshot_find_task_here(&snapshot, pid), fd)->file)
	assert_ptr_equal(file_of(child, FIRST), file_of(child, SAME));
	assert_ptr_equal(file_of(*grandchild, FIRST), file_of(child, FIRST));
	assert_ptr_equal(file_of(*grandchild, SAME), file_of(child, FIRST));
	assert_ptr_equal(file_of(*grandchild, LAST + 1), file_of(child, FIRST));
	assert_ptr_not_equal(file_of(*grandchild, ANOTHER), file_of(child, ANOTHER));
	assert_ptr_not_equal(file_of(*grandchild, ANOTHER), file_of(child, FIRST));
	assert_null(task_find_descriptor(task, SHARED));
	assert_true(task_find_descriptor(task, SAME)->closes_on_exec);
	assert_false(task_find_descriptor(task->parent, SAME)->closes_on_exec);
	assert_int_equal(file_of(child, FIRST)->seen->holder.here, child);
	files_let_go(&snapshot, DUMP_RUNS_ON);
	kill(child, SIGKILL);
	kill(*grandchild, SIGKILL);
	waitpid(child, NULL, 0);
	task->parent = NULL;
	for (size_t i = 0; i < snapshot.file_count; i++) {
		seen_file_free(snapshot.files[i]->seen);
		free(snapshot.files[i]->seen);
	}
	snapshot_free(&snapshot);
	munmap(grandchild, 4096);
}

static void inherited(void **state unused)
{
	expect_inherited(0);
	expect_inherited(VERY_MANY);
}

/* `address`: 0 if the kernel's list does not tell it. */
static struct file *identify(int fd, uint64_t address, int expected)
{
	const struct file_holder holder = file_holder_task(snapshot.root);
	const struct listed_file listed = { .fd = fd, .file = address, .flags = O_RDWR };
	struct seen_file *seen = allocate(sizeof(*seen));
	struct file *file;

	assert_int_equal(seen_file_look(seen, &holder, fd, NULL, address ? &listed : NULL, false), 0);
	assert_int_equal(files_identify_seen(&snapshot, seen, &file), expected);
	return file;
}

/* The kernel has listed the files of some processes, but not of others. */
static void some_listed(void **state unused)
{
	struct file *first, *another, *shared;

	begin_tree(0);
	first = identify(FIRST, 0x1000, 0);
	another = identify(ANOTHER, 0x2000, 0);
	assert_ptr_not_equal(first, another);
	assert_ptr_equal(identify(SAME, 0x1000, 0), first);
	assert_ptr_equal(identify(SAME, 0, 0), first);
	shared = identify(SHARED, 0, 0);
	assert_int_equal(snapshot.file_count, 3);
	assert_ptr_equal(identify(SHARED, 0x3000, 0), shared);
	assert_ptr_equal(identify(ANOTHER, 0x2000, 0), another);
	assert_ptr_equal(identify(ANOTHER, 0, 0), another);
	assert_int_equal(snapshot.file_count, 3);
	files_let_go(&snapshot, DUMP_RUNS_ON);
	end_tree();
}

static void two_addresses(void **state unused)
{
	begin_tree(0);
	identify(FIRST, 0x1000, 0);
	identify(SAME, 0x2000, 0);
	identify(SHARED, 0, -EIO);
	assert_non_null(strstr(failure_text(), "are one open file, and have two addresses"));
	failure_clear();
	files_let_go(&snapshot, DUMP_RUNS_ON);
	end_tree();
}

static void by_path(void **state unused)
{
	uint32_t ids[4];

	begin_tree(0);
	assert_int_equal(files_add_path(&snapshot, snapshot.root, "exe", 0, &ids[0]), 0);
	assert_int_equal(files_add_path(&snapshot, snapshot.root, "cwd", 0, &ids[1]), 0);
	assert_int_equal(files_add_path(&snapshot, snapshot.root, "exe", 0, &ids[2]), 0);
	assert_int_equal(files_add_path(&snapshot, snapshot.root, "exe", O_RDWR, &ids[3]), 0);
	assert_int_equal(ids[0], 1);
	assert_int_equal(ids[1], 2);
	assert_int_equal(ids[2], 1);
	assert_int_equal(ids[3], 3);
	assert_int_equal(files_collect(&snapshot), 0);
	assert_int_equal(described, snapshot.file_count); /* each exactly once */
	files_let_go(&snapshot, DUMP_RUNS_ON);
	end_tree();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_flight),
		cmocka_unit_test(received_again),
		cmocka_unit_test(many_that_look_alike),
		cmocka_unit_test(by_path),
		cmocka_unit_test(inherited),
		cmocka_unit_test(some_listed),
		cmocka_unit_test(two_addresses),
	};

	struct rlimit before;

	descriptors_unlimit(&before);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
