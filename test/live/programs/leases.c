/*
 * leases.c - leases of files (F_SETLEASE): they are still held, and broken, by whoever opens the file. One that is
 * being broken stays so: its holder is not told again, and a process that waits for it still waits.
 *
 * usage: leases DIRECTORY KIND     (a row of the table `kinds`)
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "told.h"

#define NONE -1
#define MANY 300

struct kind {
	const char *name;
	int flags;  /* of the file with the lease */
	int lease;  /* F_RDLCK, F_WRLCK */
	int opener; /* flags of the open() that breaks it before the dump and waits; NONE: nobody does */
	int target; /* what F_GETLEASE tells meanwhile */
	bool is_childs;
};

static const struct kind kinds[] = {
	{ "read", O_RDONLY, F_RDLCK, NONE, F_RDLCK, false },
	{ "write", O_RDWR, F_WRLCK, NONE, F_WRLCK, false },
	{ "write_reader", O_RDONLY, F_WRLCK, NONE, F_WRLCK, false },
	{ "breaking_read", O_RDONLY, F_RDLCK, O_WRONLY, F_UNLCK, false },
	{ "breaking_write", O_RDONLY, F_WRLCK, O_WRONLY, F_UNLCK, false },
	{ "breaking_writer", O_RDWR, F_WRLCK, O_WRONLY, F_UNLCK, false },
	{ "downgrading", O_RDONLY, F_WRLCK, O_RDONLY, F_RDLCK, false },
	{ "kept_by_child", O_RDONLY, F_RDLCK, NONE, F_RDLCK, true },
	{ "many", O_RDONLY, F_RDLCK, NONE, F_RDLCK, false },
};

static const struct kind *kind;
static char path[4096];
static int leased, signo;
static pid_t opener, holder;
static volatile sig_atomic_t told_count, told_of = NONE;
static int many[MANY];

static void note(int number, siginfo_t *info, void *context)
{
	(void)number;
	(void)context;
	told_count++;
	told_of = info->si_fd;
}

static int create(const char *name, int flags)
{
	int fd;

	live_path(path, sizeof(path), name);
	close(open(path, O_RDWR | O_CREAT, 0600));
	fd = open(path, flags);
	live_check(fd >= 0, "%s: %m", path);
	return fd;
}

static void open_and_wait(void)
{
	int fd;

	signal(SIGTERM, live_stop_child);
	close(leased);
	tell();
	do
		fd = open(path, kind->opener);
	while (fd < 0 && errno == EINTR);
	live_check(fd >= 0, "the open() that waited for the lease: %m");
	tell();
	for (;;)
		pause();
}

static void keep(void)
{
	signal(SIGTERM, live_stop_child);
	for (;;)
		pause();
}

static void wait_told(int count)
{
	live_await(told_count >= count, "told %d times of a lease, not %d", told_count, count);
	live_check(told_count == count && (!count || told_of == leased),
		   "told %d times of a lease, not %d; the last time of descriptor %d, not %d", told_count,
		   count, told_of, leased);
}

static void set_up(void)
{
	struct sigaction action = { .sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART };
	int first;

	signo = SIGRTMIN + 3;
	live_check(sigaction(signo, &action, NULL) == 0 && sigaction(SIGIO, &action, NULL) == 0 &&
			   pipe(told) == 0,
		   "sigaction: %m");
	if (!strcmp(kind->name, "many"))
		for (int i = 0; i < MANY; i++) {
			char name[32];

			snprintf(name, sizeof(name), "leased-%d", i);
			many[i] = create(name, O_RDONLY);
			live_check(fcntl(many[i], F_SETLEASE, F_RDLCK) == 0, "F_SETLEASE: %m");
		}
	first = create("leased", kind->flags);
	leased = fcntl(first, F_DUPFD, 400);
	live_check(leased >= 400 && close(first) == 0, "F_DUPFD: %m");
}

/* What an open() of another process gets. */
static int try_open(int flags)
{
	int status;
	pid_t pid = fork();

	if (!pid) {
		int fd;

		close(leased);
		fd = open(path, flags | O_NONBLOCK);
		_exit(fd < 0 ? errno : 0);
	}
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	live_check(WIFEXITED(status), "wait status 0x%x", status);
	return WEXITSTATUS(status);
}

static void look(const char *when)
{
	live_check(fcntl(leased, F_GETLEASE) == kind->target, "%s: the lease is %d, not %d", when,
		   fcntl(leased, F_GETLEASE), kind->target);
	for (int i = 0; i < MANY && !strcmp(kind->name, "many"); i++)
		live_check(fcntl(many[i], F_GETLEASE) == F_RDLCK, "%s: lease %d is %d", when, i,
			   fcntl(many[i], F_GETLEASE));
}

static void begin_lease(void)
{
	live_check(fcntl(leased, F_SETSIG, signo) == 0 && fcntl(leased, F_SETLEASE, kind->lease) == 0,
		   "F_SETLEASE: %m");
	if (kind->opener != NONE) {
		opener = live_fork(open_and_wait);
		hear();
		wait_told(1);
		live_wait_asleep(opener);
	}
	if (kind->is_childs) {
		holder = live_fork(keep);
		close(leased);
	}
}

/* Nobody waits for it: it breaks as it should. */
static void break_it(void)
{
	live_check(try_open(O_RDONLY) == (kind->lease == F_WRLCK ? EWOULDBLOCK : 0),
		   "another result for a reader");
	live_check(try_open(O_WRONLY) == EWOULDBLOCK, "another result for a writer");
	if (kind->is_childs)
		return;
	live_check(told_count >= 1 && told_of == leased, "the holder is not told: %d, descriptor %d",
		   told_count, told_of);
	live_check(fcntl(leased, F_SETLEASE, F_UNLCK) == 0 && try_open(O_WRONLY) == 0, "F_SETLEASE: %m");
}

/* Somebody waits, and the type of the lease shows only in what readers get. */
static void let_opener_go(void)
{
	wait_told(1);
	live_check(try_open(O_RDONLY) == (kind->lease == F_WRLCK ? EWOULDBLOCK : 0),
		   "another result for a reader");
	live_wait_asleep(opener);
	live_check(fcntl(leased, F_SETLEASE, kind->target) == 0, "F_SETLEASE: %m");
	hear();
	live_check(fcntl(leased, F_GETLEASE) == kind->target, "the lease is %d, not %d in the end",
		   fcntl(leased, F_GETLEASE), kind->target);
	live_join(opener);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	kind = live_choose(kinds, argv[2]);
	set_up();
	begin_lease();
	if (!kind->is_childs)
		look("at first");
	live_ready();
	live_wait_stop();
	if (!kind->is_childs)
		look("at the end");
	if (kind->opener == NONE)
		break_it();
	else
		let_opener_go();
	if (kind->is_childs)
		live_join(holder);
	return live_finish();
}
