/*
 * place_test.c - run_in() as root: what is created in a place belongs to that place, processes of the place cannot
 * attack the child, and the child does not outlive its parent. test/unit/place_test.c has the rest.
 */
#include "../unit/unit.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/nsfs.h>
#include <linux/sockios.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/place.h"

#define ALL_NAMESPACES \
	(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWCGROUP)
#define FIRST_ID 100000 /* the id that is 0 in the user namespace */

static char directory[] = "/tmp/place-XXXXXX"; /* every user may write there */

/* --- A process in another place --------------------------------------------------------------------------------- */

struct resident {
	pid_t pid;
	struct place place; /* where it is */
};

static void give_signal(int fd)
{
	if (write(fd, "", 1) != 1)
		_exit(1);
}

static void await_signal(int fd)
{
	char byte;

	if (read(fd, &byte, 1) != 1) {
		print_error("no signal arrived\n");
		_exit(1);
	}
}

/* Its mount namespace has a file `inside` in the directory; its host name is "elsewhere". */
static does_not_return void reside(int flags, int ready, int go)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (unshare(flags))
		_exit(1);
	give_signal(ready);
	await_signal(go);
	if (flags & CLONE_NEWUSER && (setresgid(0, 0, 0) || setresuid(0, 0, 0)))
		_exit(1);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (flags & CLONE_NEWNS && (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
				    mount("tmpfs", directory, "tmpfs", 0, "mode=777") || chdir(directory) ||
				    close(open("inside", O_CREAT | O_WRONLY, 0644))))
		_exit(1);
	if (flags & CLONE_NEWUTS && sethostname("elsewhere", 9))
		_exit(1);
	give_signal(ready);
	pause();
	_exit(0);
}

static int open_namespace(pid_t pid, const char *name)
{
	autofree char *path = format_text("/proc/%d/ns/%s", pid, name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	assert_true(fd >= 0);
	return fd;
}

static void map_ids(pid_t pid)
{
	autofree char *uids = format_text("/proc/%d/uid_map", pid);
	autofree char *gids = format_text("/proc/%d/gid_map", pid);
	autofree char *map = format_text("0 %d 65536", FIRST_ID);

	assert_int_equal(write_text_at(AT_FDCWD, uids, map), 0);
	assert_int_equal(write_text_at(AT_FDCWD, gids, map), 0);
}

static struct resident settle(int flags)
{
	struct resident resident = { .place = PLACE_HERE };
	struct place *place = &resident.place;
	int ready[2], go[2];

	assert_int_equal(pipe2(ready, O_CLOEXEC) | pipe2(go, O_CLOEXEC), 0);
	resident.pid = fork();
	if (!resident.pid)
		reside(flags, ready[1], go[0]);
	close(ready[1]);
	await_signal(ready[0]);
	if (flags & CLONE_NEWUSER)
		map_ids(resident.pid);
	give_signal(go[1]);
	await_signal(ready[0]);
	place->user = flags & CLONE_NEWUSER ? open_namespace(resident.pid, "user") : -1;
	place->mount = flags & CLONE_NEWNS ? open_namespace(resident.pid, "mnt") : -1;
	place->net = flags & CLONE_NEWNET ? open_namespace(resident.pid, "net") : -1;
	place->uts = flags & CLONE_NEWUTS ? open_namespace(resident.pid, "uts") : -1;
	place->ipc = flags & CLONE_NEWIPC ? open_namespace(resident.pid, "ipc") : -1;
	place->cgroup = flags & CLONE_NEWCGROUP ? open_namespace(resident.pid, "cgroup") : -1;
	close(ready[0]);
	close(go[0]);
	close(go[1]);
	return resident;
}

static void move_out(struct resident *resident)
{
	const int namespaces[] = { resident->place.user, resident->place.mount, resident->place.net,
				   resident->place.uts,	 resident->place.ipc,	resident->place.cgroup };

	for (size_t i = 0; i < array_size(namespaces); i++)
		if (namespaces[i] >= 0)
			close(namespaces[i]);
	kill(resident->pid, SIGKILL);
	assert_int_equal(waitpid(resident->pid, NULL, 0), resident->pid);
}

/* --- Work ------------------------------------------------------------------------------------------------------ */

static int make_socket(void *unused_argument unused)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

	return fd < 0 ? fail(errno, "no socket") : fd;
}

static int open_there(void *name)
{
	autofree char *path = format_text("%s/%s", directory, (const char *)name);
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	return fd < 0 ? fail(errno, "cannot open %s", path) : fd;
}

static int make_file(void *name)
{
	autofree char *path = format_text("%s/%s", directory, (const char *)name);
	int fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

	return fd < 0 ? fail(errno, "cannot create %s", path) : fd;
}

static int make_pair(void *pair)
{
	return socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) ? fail(errno, "no pair") : 0;
}

/* --- Namespaces ------------------------------------------------------------------------------------------------ */

static ino_t inode_of(int fd)
{
	struct stat status;

	assert_int_equal(fstat(fd, &status), 0);
	return status.st_ino;
}

static void is_in_network(int socket, int network)
{
	autoclose int seen = ioctl(socket, SIOCGSKNS);

	assert_true(seen >= 0);
	assert_int_equal(inode_of(seen), inode_of(network));
}

static void network(void **state unused)
{
	struct resident resident = settle(CLONE_NEWNET);
	autoclose int fd = run_in(&resident.place, make_socket, NULL);
	autoclose int ours = make_socket(NULL), home = open_namespace(getpid(), "net");

	is_in_network(fd, resident.place.net);
	is_in_network(ours, home);
	move_out(&resident);
}

static void mounts(void **state unused)
{
	struct resident resident = settle(CLONE_NEWNS);
	autoclose int fd = run_in(&resident.place, open_there, "inside");

	assert_true(fd >= 0);
	assert_int_equal(open_there("inside"), -ENOENT);
	move_out(&resident);
}

struct view {
	char name[65];
	ino_t namespaces[6];
};
static const char *const names[] = { "user", "mnt", "net", "uts", "ipc", "cgroup" };

static int look(void *argument)
{
	struct view *view = argument;
	struct utsname name;
	struct stat status;

	for (size_t i = 0; i < array_size(names); i++) {
		autofree char *path = format_text("/proc/thread-self/ns/%s", names[i]);

		if (stat(path, &status))
			return fail(errno, "cannot look at %s", path);
		view->namespaces[i] = status.st_ino;
	}
	uname(&name);
	memcpy(view->name, name.nodename, sizeof(view->name));
	return make_socket(NULL);
}

/* All namespaces, a user namespace among them, with the ids of a user in it; the child has the same memory. */
static void all_namespaces(void **state unused)
{
	struct resident resident = settle(ALL_NAMESPACES);
	const struct place *place = &resident.place;
	const int there[] = { place->user, place->mount, place->net, place->uts, place->ipc, place->cgroup };
	struct view view = {};
	autoclose int fd = run_in(place, look, &view);

	for (size_t i = 0; i < array_size(names); i++)
		assert_int_equal(view.namespaces[i], inode_of(there[i]));
	assert_string_equal(view.name, "elsewhere");
	is_in_network(fd, place->net);
	move_out(&resident);
}

static void user_namespace(void **state unused)
{
	struct resident resident = settle(CLONE_NEWUSER);
	struct stat status;

	resident.place.uid = 5;
	resident.place.gid = 6;
	autoclose int fd = run_in(&resident.place, make_file, "of-user-5");

	assert_true(fd >= 0);
	assert_int_equal(fstat(fd, &status), 0);
	assert_int_equal(status.st_uid, FIRST_ID + 5);
	assert_int_equal(status.st_gid, FIRST_ID + 6);
	move_out(&resident);
}

/* A user who has privileges only in a user namespace of his own: namespaces that it owns are joined from within. */
static int join_as_user(void)
{
	struct place place = PLACE_HERE;
	int ready[2], socket, seen;
	pid_t resident;

	if (setresgid(1234, 1234, 1234) || setresuid(1234, 1234, 1234) || prctl(PR_SET_DUMPABLE, 1) ||
	    pipe2(ready, O_CLOEXEC))
		return 1;
	resident = fork();
	if (!resident) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (unshare(CLONE_NEWUSER | CLONE_NEWNET))
			_exit(1);
		give_signal(ready[1]);
		pause();
	}
	await_signal(ready[0]);
	place.user = open_namespace(resident, "user");
	place.net = open_namespace(resident, "net");
	socket = run_in(&place, make_socket, NULL);
	seen = socket < 0 ? -1 : ioctl(socket, SIOCGSKNS);
	return seen >= 0 && inode_of(seen) == inode_of(place.net) ? 0 : 1;
}

static void without_privileges(void **state unused)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(join_as_user());
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
}

/* --- Ids ------------------------------------------------------------------------------------------------------- */

static void ids(void **state unused)
{
	static const gid_t groups[] = { 4001, 4002 };
	struct place place = PLACE_HERE;
	gid_t seen[8] = {};
	struct ucred peer;
	socklen_t size = sizeof(peer), seen_size = sizeof(seen);
	struct stat status;
	int pair[2], fd;

	place.uid = 1234;
	place.gid = 2345;
	place.groups = groups;
	place.group_count = array_size(groups);
	assert_int_equal(run_in(&place, make_pair, pair), 0);
	assert_int_equal(getsockopt(pair[0], SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
	assert_int_equal(peer.uid, 1234);
	assert_int_equal(peer.gid, 2345);
	assert_int_equal(getsockopt(pair[0], SOL_SOCKET, SO_PEERGROUPS, seen, &seen_size), 0);
	assert_int_equal(seen_size, sizeof(groups));
	assert_memory_equal(seen, groups, sizeof(groups));
	fd = run_in(&place, make_file, "of-user-1234");
	assert_int_equal(fstat(fd, &status), 0);
	assert_true(status.st_uid == 1234 && status.st_gid == 2345);
	assert_true(geteuid() == 0 && getegid() == 0 && prctl(PR_GET_DUMPABLE) == 1);
	close(fd);
	close(pair[0]);
	close(pair[1]);
}

static void capabilities(void **state unused)
{
	autoclose int secret = make_file("secret"), with = -1;
	struct place place = PLACE_HERE;

	place.uid = 1234;
	with = run_in(&place, open_there, "secret");
	assert_true(with >= 0);
	place.capabilities = ~(1ULL << CAP_DAC_OVERRIDE | 1ULL << CAP_DAC_READ_SEARCH);
	assert_int_equal(run_in(&place, open_there, "secret"), -EACCES);
}

/* --- Pids ------------------------------------------------------------------------------------------------------ */

/* A pid that was in use a moment ago and most likely is free now. */
static pid_t free_pid(void)
{
	pid_t child = fork();

	if (!child)
		_exit(0);
	assert_int_equal(waitpid(child, NULL, 0), child);
	return child;
}

static void named_pid(void **state unused)
{
	struct place place = PLACE_HERE;
	struct ucred peer;
	socklen_t size = sizeof(peer);
	int pair[2], result;

	place.uid = 1234;
	do {
		failure_clear();
		place.pid = free_pid();
		result = run_in(&place, make_pair, pair);
	} while (result == -EEXIST);
	assert_int_equal(result, 0);
	assert_true(kill(place.pid, 0) < 0 && errno == ESRCH);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(getsockopt(pair[i], SOL_SOCKET, SO_PEERCRED, &peer, &size), 0);
		assert_int_equal(peer.pid, place.pid);
		assert_int_equal(peer.uid, 1234);
		close(pair[i]);
	}
}

static void taken_pid(void **state unused)
{
	struct place place = PLACE_HERE;
	autofree char *expected = format_text("pid %d is in use: File exists", getppid());

	place.pid = getppid();
	assert_int_equal(run_in(&place, make_socket, NULL), -EEXIST);
	assert_string_equal(failure_text(), expected);
}

/* --- Dangers --------------------------------------------------------------------------------------------------- */

struct meeting {
	int child[2], attacker[2]; /* pipes for what each of the two sends */
};

/* Sends its pid to the attacker, and waits until the attacker has tried everything. */
static int meet(void *argument)
{
	struct meeting *meeting = argument;
	pid_t self = getpid();
	char byte;

	if (write(meeting->child[1], &self, sizeof(self)) != sizeof(self) ||
	    read(meeting->attacker[0], &byte, 1) != 1)
		return fail(EIO, "the attacker did not answer");
	return byte;
}

/* Sends the number of attacks that succeeded. */
static does_not_return void attack(const struct meeting *meeting, const struct resident *victim)
{
	char path[32], open_ways = 0;
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (victim->place.user >= 0 && setns(victim->place.user, CLONE_NEWUSER))
		_exit(1);
	if (victim->place.uid != (uid_t)-1 &&
	    (setresgid(victim->place.gid, victim->place.gid, victim->place.gid) ||
	     setresuid(victim->place.uid, victim->place.uid, victim->place.uid)))
		_exit(1);
	if (read(meeting->child[0], &pid, sizeof(pid)) != sizeof(pid))
		_exit(1);
	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	open_ways += open(path, O_RDWR) >= 0;
	open_ways += ptrace(PTRACE_SEIZE, pid, 0, 0) == 0;
	open_ways += victim->place.user < 0 && kill(pid, 0) == 0;
	_exit(write(meeting->attacker[1], &open_ways, 1) != 1);
}

static void is_safe_from(struct resident *resident)
{
	struct meeting meeting;
	pid_t attacker;
	int status;

	assert_int_equal(pipe2(meeting.child, O_CLOEXEC) | pipe2(meeting.attacker, O_CLOEXEC), 0);
	attacker = fork();
	if (!attacker)
		attack(&meeting, resident);
	assert_int_equal(run_in(&resident->place, meet, &meeting), 0);
	assert_int_equal(waitpid(attacker, &status, 0), attacker);
	assert_int_equal(status, 0);
	for (int i = 0; i < 2; i++) {
		close(meeting.child[i]);
		close(meeting.attacker[i]);
	}
}

/*
 * The child has criu's memory: neither the user whose ids it takes nor the owner of the user namespace may access it.
 */
static void safe_from_user(void **state unused)
{
	struct resident user = { .place = PLACE_HERE };

	user.place.uid = user.place.gid = 1234;
	is_safe_from(&user);
}

static void safe_from_owner(void **state unused)
{
	struct resident resident = settle(CLONE_NEWUSER);

	is_safe_from(&resident);
	resident.place.uid = resident.place.gid = 5;
	is_safe_from(&resident);
	move_out(&resident);
}

static int wait_for_ever(void *argument)
{
	give_signal(*(int *)argument);
	pause();
	return 0;
}

/* The caller of run_in() is killed. Its child is then the only one with the end of the pipe, and must be gone, too. */
static void the_child_dies_with_us(void **state unused)
{
	static const uid_t users[] = { -1, 1234 };

	for (size_t i = 0; i < array_size(users); i++) {
		struct pollfd end;
		pid_t runner;
		int alive[2];

		assert_int_equal(pipe2(alive, O_CLOEXEC), 0);
		runner = fork();
		if (!runner) {
			struct place place = PLACE_HERE;

			place.uid = users[i];
			_exit(run_in(&place, wait_for_ever, &alive[1]) != 0);
		}
		close(alive[1]);
		await_signal(alive[0]);
		kill(runner, SIGKILL);
		assert_int_equal(waitpid(runner, NULL, 0), runner);
		end = (struct pollfd){ .fd = alive[0], .events = POLLIN };
		assert_int_equal(poll(&end, 1, 20000), 1);
		assert_true(end.revents & POLLHUP);
		close(alive[0]);
	}
}

static int go_on_alone(void *argument)
{
	const int *ends = argument;
	char byte;

	give_signal(ends[1]);
	if (read(ends[2], &byte, 1) != 1) /* until the caller is gone */
		return -EIO;
	give_signal(ends[1]);
	return 0;
}

/* But not if the place has outlives_criu. */
static void the_child_completes_its_work(void **state unused)
{
	pid_t runner;
	int ends[4];

	assert_int_equal(pipe2(ends, O_CLOEXEC) | pipe2(ends + 2, O_CLOEXEC), 0);
	runner = fork();
	if (!runner) {
		struct place place = PLACE_HERE;

		place.outlives_criu = true;
		_exit(run_in(&place, go_on_alone, ends) != 0);
	}
	close(ends[1]);
	await_signal(ends[0]);
	kill(runner, SIGKILL);
	assert_int_equal(waitpid(runner, NULL, 0), runner);
	give_signal(ends[3]);
	await_signal(ends[0]);
	for (int i = 0; i < 4; i++)
		if (i != 1)
			close(ends[i]);
}

/* --- Speed ----------------------------------------------------------------------------------------------------- */

static double now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec + time.tv_nsec / 1e9;
}

static int do_nothing(void *unused_argument unused)
{
	return 0;
}

static void measure(void **state unused)
{
	struct resident resident = settle(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET);
	const struct place here = PLACE_HERE;
	const struct place *places[] = { &here, &resident.place };
	static const char *const words[] = { "here", "user, mount and network namespace" };

	for (size_t i = 0; i < array_size(places); i++) {
		double began = now();

		for (int k = 0; k < 200; k++)
			assert_int_equal(run_in(places[i], do_nothing, NULL), 0);
		print_message("%s: %.3f ms a call\n", words[i], (now() - began) / 200 * 1000);
	}
	move_out(&resident);
}

/* --------------------------------------------------------------------------------------------------------------- */

static int begin(void **state unused)
{
	return !mkdtemp(directory) || chmod(directory, 0777);
}

static int end(void **state unused)
{
	static const char *const files[] = { "of-user-5", "of-user-1234", "secret" };

	for (size_t i = 0; i < array_size(files); i++) {
		autofree char *path = format_text("%s/%s", directory, files[i]);

		unlink(path);
	}
	return rmdir(directory);
}

static int setup(void **state unused)
{
	failure_clear();
	return 0;
}

static int nothing_is_left(void **state unused)
{
	return waitpid(-1, NULL, WNOHANG | __WALL) >= 0 || errno != ECHILD || prctl(PR_GET_DUMPABLE) != 1;
}

#define row(test) cmocka_unit_test_setup_teardown(test, setup, nothing_is_left)

int main(void)
{
	const struct CMUnitTest tests[] = {
		row(network),
		row(mounts),
		row(all_namespaces),
		row(user_namespace),
		row(without_privileges),
		row(ids),
		row(capabilities),
		row(named_pid),
		row(taken_pid),
		row(safe_from_user),
		row(safe_from_owner),
		row(the_child_dies_with_us),
		row(the_child_completes_its_work),
		row(measure),
	};

	return cmocka_run_group_tests(tests, begin, end);
}
