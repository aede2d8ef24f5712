/*
 * tree.c - a tree of processes: three generations, sessions, groups, a group without its leader, zombies, a child
 * that a subreaper has adopted. Each process compares its ids with those that it had at first.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "live.h"

enum { PLAIN, LEADER_OF_GROUP, MEMBER, SESSION, IN_SESSION, ORPHAN_OF_GROUP, INHERITED, GRANDCHILD, COUNT };

struct member {
	atomic_int pid, parent, group, session;
	atomic_ulong rounds;
};

static struct member *members;
static pid_t zombies[2], leaderless, between;

static void describe(struct member *member)
{
	member->parent = getppid();
	member->group = getpgrp();
	member->session = getsid(0);
	member->pid = getpid();
}

static void verify(const struct member *member, int number)
{
	live_check(getpid() == member->pid && getppid() == member->parent,
		   "member %d: pid %d, parent %d, not %d and %d", number, getpid(), getppid(), member->pid,
		   member->parent);
	live_check(getpgrp() == member->group && getsid(0) == member->session,
		   "member %d: group %d, session %d, not %d and %d", number, getpgrp(), getsid(0),
		   member->group, member->session);
}

static void live_as(int number)
{
	struct member *member = &members[number];

	describe(member);
	while (!live_stopping()) {
		verify(member, number);
		member->rounds++;
		live_sleep(0.002);
	}
	verify(member, number);
}

static void wait_for(int number)
{
	while (!members[number].pid)
		live_sleep(0.001);
}

static void plain(void)
{
	live_as(PLAIN);
}

static void member_of_group(void)
{
	setpgid(0, members[LEADER_OF_GROUP].pid);
	live_as(MEMBER);
}

static void leader_of_group(void)
{
	setpgid(0, 0);
	live_as(LEADER_OF_GROUP);
}

static void grandchild(void)
{
	live_as(GRANDCHILD);
}

static void in_session(void)
{
	setpgid(0, 0);
	pid_t child = live_fork(grandchild);
	live_as(IN_SESSION);
	live_join(child);
}

static void new_session(void)
{
	setsid();
	pid_t child = live_fork(in_session);
	live_as(SESSION);
	live_join(child);
}

static void leaderless_member(void)
{
	setpgid(0, leaderless);
	live_as(ORPHAN_OF_GROUP);
}

/* The member joins the group before its leader ends and is reaped. */
static pid_t set_up_leaderless(void)
{
	leaderless = fork();
	if (leaderless == 0) {
		setpgid(0, 0);
		pause();
		_exit(0);
	}
	setpgid(leaderless, leaderless);
	pid_t member = live_fork(leaderless_member);
	wait_for(ORPHAN_OF_GROUP);
	kill(leaderless, SIGKILL);
	waitpid(leaderless, NULL, 0);
	return member;
}

static void inherited(void)
{
	while (getppid() ==
	       between) /* until the parent has ended and the subreaper has adopted this process */
		live_sleep(0.001);
	live_as(INHERITED);
}

static void set_up_inherited(void)
{
	prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0);
	between = fork();
	if (between == 0) {
		between = getpid();
		live_fork(inherited);
		_exit(0);
	}
	waitpid(between, NULL, 0);
}

static void set_up_zombies(void)
{
	siginfo_t facts;

	zombies[0] = fork();
	if (zombies[0] == 0)
		_exit(42);
	zombies[1] = fork();
	if (zombies[1] == 0) {
		signal(SIGTERM, SIG_DFL);
		raise(SIGTERM);
	}
	for (int i = 0; i < 2; i++)
		waitid(P_PID, zombies[i], &facts, WEXITED | WNOWAIT);
}

static void verify_zombies(void)
{
	int status;

	live_check(waitpid(zombies[0], &status, 0) == zombies[0] && WIFEXITED(status) &&
			   WEXITSTATUS(status) == 42,
		   "the first zombie: wait status 0x%x", status);
	live_check(waitpid(zombies[1], &status, 0) == zombies[1] && WIFSIGNALED(status) &&
			   WTERMSIG(status) == SIGTERM,
		   "the second zombie: wait status 0x%x", status);
}

static void verify_progress(void)
{
	unsigned long before[COUNT];

	for (int i = 0; i < COUNT; i++)
		before[i] = members[i].rounds;
	for (int i = 0; i < COUNT; i++)
		live_await(members[i].rounds != before[i], "member %d does not go on", i);
}

int main(int argc, char **argv)
{
	pid_t children[5];

	live_begin(argc, argv);
	members = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	children[0] = live_fork(plain);
	children[1] = live_fork(leader_of_group);
	wait_for(LEADER_OF_GROUP);
	children[2] = live_fork(member_of_group);
	children[3] = live_fork(new_session);
	children[4] = set_up_leaderless();
	set_up_inherited();
	set_up_zombies();
	for (int i = 0; i < COUNT; i++)
		wait_for(i);
	live_ready();
	while (!live_stopping())
		live_sleep(0.01);
	verify_progress();
	verify_zombies();
	for (int i = 0; i < 5; i++)
		live_join(children[i]);
	live_join(members[INHERITED].pid);
	return live_finish();
}
