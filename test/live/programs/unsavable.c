/*
 * unsavable.c - has something that criu can save in general, but not in this state.
 *
 * usage: unsavable DIRECTORY foreign_session|controlled|controlled_by_pty|segments|provided
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pty.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <termios.h>
#include <utmp.h>
#include <unistd.h>
#ifdef __x86_64__
#include <asm/ldt.h>
#endif

#include "live.h"

static int master, slave;
static pid_t kept;

static void be_outside(pid_t parent, void (*prepare)(void), int told)
{
	double end = live_now() + 60;
	char verdict[4096];

	live_path(verdict, sizeof(verdict), "verdict");
	prepare();
	while (getppid() == parent)
		live_sleep(0.001);
	live_check(write(told, "", 1) == 1, "pipe: %m");
	close(told);
	while (access(verdict, F_OK) < 0 && live_now() < end)
		live_sleep(0.01);
}

/* Starts a process outside of the tree that has the same files open, until there is a verdict. */
static void leave_outsider(void (*prepare)(void))
{
	int told[2];
	char byte;

	live_check(pipe(told) == 0, "pipe: %m");
	if (fork() == 0) {
		pid_t parent = getpid();

		close(told[0]);
		if (fork() == 0)
			be_outside(parent, prepare, told[1]);
		_exit(0);
	}
	close(told[1]);
	live_check(read(told[0], &byte, 1) == 1, "the process outside of the tree did not start");
	close(told[0]);
}

static void take_terminal(void)
{
	close(master);
	login_tty(slave);
}

static void begin_session(void)
{
	setsid();
}

static void stay(void)
{
}

/* A terminal of a session outside of the tree, as if a terminal emulator is dumped without its shell. */
static void foreign_session(void)
{
	live_check(openpty(&master, &slave, NULL, NULL, NULL) == 0, "openpty: %m");
	leave_outsider(take_terminal);
	close(slave);
	live_check(tcgetsid(master) > 0, "no session: %m");
}

/* A terminal controls our session, and only other processes have it open. */
static void controlled(void)
{
	int terminal = open("/dev/tty62", O_RDWR | O_NOCTTY);

	if (terminal < 0 || ioctl(terminal, TIOCSCTTY, 0) < 0)
		live_skip("this machine has no free terminal: %m");
	leave_outsider(begin_session);
	close(terminal);
}

static void controlled_by_pty(void)
{
	live_check(openpty(&master, &slave, NULL, NULL, NULL) == 0, "openpty: %m");
	leave_outsider(begin_session);
	live_check(ioctl(slave, TIOCSCTTY, 0) == 0, "TIOCSCTTY: %m");
	close(master);
	close(slave);
}

static void segments(void)
{
#ifdef SYS_modify_ldt
	struct user_desc segment = {
		.entry_number = 3, .limit = 0xfffff, .seg_32bit = 1, .limit_in_pages = 1, .useable = 1
	};

	if (syscall(SYS_modify_ldt, 1, &segment, sizeof(segment)) < 0)
		live_skip("no modify_ldt() here: %m");
#else
	live_skip("modify_ldt() does not work here");
#endif
}

/* A process outside of the tree provides the missing pages of its memory (userfaultfd). */
static void provided(void)
{
	int handler = syscall(SYS_userfaultfd, O_CLOEXEC);
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register range = { .range.len = 1 << 20, .mode = UFFDIO_REGISTER_MODE_MISSING };

	range.range.start = (unsigned long)mmap(NULL, 1 << 20, PROT_READ | PROT_WRITE,
						MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (handler < 0 || ioctl(handler, UFFDIO_API, &api) < 0 ||
	    ioctl(handler, UFFDIO_REGISTER, &range) < 0)
		live_skip("no userfaultfd here: %m");
	leave_outsider(stay);
	close(handler);
}

static const struct {
	const char *name;
	void (*set_up)(void);
} states[] = {
	{ "foreign_session", foreign_session },
	{ "controlled", controlled },
	{ "controlled_by_pty", controlled_by_pty },
	{ "segments", segments },
	{ "provided", provided },
};

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	signal(SIGCHLD, SIG_IGN);
	live_choose(states, argv[2])->set_up();
	live_ready();
	live_wait_stop();
	if (kept)
		kill(kept, SIGKILL);
	return live_finish();
}
