/*
 * unix_names.c - unix sockets: datagram sockets and what they are connected to, names and their files, and whom
 * SO_PEERCRED names.
 *
 * usage: unix_names DIRECTORY PART
 */
#define _GNU_SOURCE
#include "unix_talk.h"

static char absolute[108];

/* ---- datagrams ---- */

/* 0 receives from 1, 2, 3; 4 sends to itself; 5 to 6 to 7; 8 and 9 to each other */
static void set_up_datagrams(void)
{
	for (int i = 0; i < 10; i++)
		fds[i] = new_socket(SOCK_DGRAM | SOCK_NONBLOCK);
	bind_to(fds[0], "receiver", 8);
	for (int i = 1; i <= 3; i++)
		connect_to(fds[i], "receiver", 8);
	bind_to(fds[4], "\0itself", 7);
	connect_to(fds[4], "\0itself", 7);
	bind_to(fds[6], "six", 3);
	bind_to(fds[7], "seven", 5);
	connect_to(fds[5], "six", 3);
	connect_to(fds[6], "seven", 5);
	bind_to(fds[8], "eight", 5);
	bind_to(fds[9], "nine", 4);
	connect_to(fds[8], "nine", 4);
	connect_to(fds[9], "eight", 5);
	unlink("seven");
}

/* A pair, of which one has left the other; and another pair, of which one is connected to a third one now. */
static void set_up_twins(void)
{
	const struct sockaddr nobody = { .sa_family = AF_UNSPEC };

	live_check(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds) == 0 &&
			   connect(fds[1], &nobody, sizeof(nobody)) == 0,
		   "a pair: %m");
	fds[4] = new_socket(SOCK_DGRAM);
	bind_to(fds[4], "\0third", 6);
	live_check(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds + 2) == 0, "socketpair: %m");
	connect_to(fds[3], "\0third", 6);
}

static void verify_twins(void)
{
	talk(fds[0], fds[1], "to a twin");
	check_error(send(fds[1], "x", 1, 0), ENOTCONN, "a twin that has left");
	talk(fds[3], fds[4], "to a third one");
	check_error(send(fds[2], "x", 1, 0), EPERM, "to a twin that is connected to another one");
}

static void verify_datagrams(void)
{
	for (int i = 1; i <= 3; i++)
		talk(fds[i], fds[0], "to a common receiver");
	talk(fds[4], fds[4], "to itself");
	talk(fds[6], fds[7], "in a chain");
	check_error(send(fds[5], "x", 1, 0), EPERM, "to one that is connected to another one");
	talk_both(fds[8], fds[9], "to each other");
	check_peer_name(fds[5], "six", 4, "in a chain");
	check_name(fds[7], "seven", 6, "a deleted name");
	check_error(send(fds[0], "x", 1, 0), ENOTCONN, "a receiver");
}

/* ---- names ---- */

static char longest[109];

static void check_file(const char *name, mode_t mode)
{
	struct stat found;

	live_check(lstat(name, &found) == 0, "%s: %m", name);
	live_check(found.st_mode == (S_IFSOCK | mode), "%s has mode %o, not %o", name, found.st_mode, mode);
}

/* fds[0..]: one for each kind of name; none has a peer */
static void set_up_names(void)
{
	struct sockaddr_un address;

	memset(longest, 'x', 108);
	for (int i = 0; i < 8; i++)
		fds[i] = new_socket(i % 2 ? SOCK_DGRAM : SOCK_STREAM);
	bind_to(fds[0], absolute, strlen(absolute));
	live_check(chmod(absolute, 0640) == 0, "chmod: %m");
	bind_to(fds[1], longest, 108); /* no 0 byte */
	live_check(mkdir("below", 0755) == 0, "mkdir: %m");
	bind_to(fds[2], "below/../below/./x", 18);
	bind_to(fds[3], "moved", 5);
	live_check(rename("moved", "below/moved") == 0 && chmod("below/moved", 0600) == 0, "rename: %m");
	bind_to(fds[4], "replaced", 8);
	live_check(unlink("replaced") == 0, "unlink: %m");
	bind_to(fds[5], "replaced", 8);
	bind_to(fds[6], "file", 4);
	live_check(unlink("file") == 0 && close(creat("file", 0600)) == 0, "creat: %m");
	address = (struct sockaddr_un){ .sun_family = AF_UNIX }; /* the kernel chooses one */
	live_check(bind(fds[7], (struct sockaddr *)&address, sizeof(sa_family_t)) == 0, "bind: %m");
	fds[8] = new_socket(SOCK_DGRAM);
	bind_to(fds[8], "\0", 1);
	fds[9] = new_socket(SOCK_DGRAM);
	bind_to(fds[9], "temporary", 9);
	live_check(link("temporary", "linked") == 0 && unlink("temporary") == 0, "link: %m");
}

/* The usual ones. */
static void set_up_places(void)
{
	for (int i = 0; i < 3; i++)
		fds[i] = new_socket(i ? SOCK_DGRAM : SOCK_STREAM);
	bind_to(fds[0], absolute, strlen(absolute));
	live_check(chmod(absolute, 0640) == 0, "chmod: %m");
	bind_to(fds[1], "receiver", 8);
	bind_to(fds[2], "\0odd\0name", 9);
}

static char chosen[16];

static void note_chosen(void)
{
	char address[64];
	socklen_t size = sizeof(address);

	live_check(getsockname(fds[7], (struct sockaddr *)address, &size) == 0, "getsockname: %m");
	memcpy(chosen, address + 2, 6);
}

static void send_to(const char *name, int receiver)
{
	struct sockaddr_un address;
	char buffer[8];
	int sender = new_socket(SOCK_DGRAM);
	socklen_t size = fill_name(&address, name, strlen(name));

	live_check(sendto(sender, "word", 4, 0, (struct sockaddr *)&address, size) == 4, "to %s: %m", name);
	live_check(recv(receiver, buffer, 8, MSG_DONTWAIT) == 4, "from %s: %m", name);
	close(sender);
}

static void verify_places(void)
{
	check_name(fds[0], absolute, strlen(absolute) + 1, "an absolute path");
	check_file(absolute, 0640);
	check_name(fds[1], "receiver", 9, "a relative path");
	send_to("receiver", fds[1]);
	check_name(fds[2], "\0odd\0name", 9, "an abstract name");
}

static void verify_names(void)
{
	struct sockaddr_un address;

	check_name(fds[0], absolute, strlen(absolute) + 1, "an absolute path");
	check_file(absolute, 0640);
	check_name(fds[1], longest, 109, "the longest path");
	check_name(fds[2], "below/../below/./x", 19, "a path with dots");
	live_check(access("below/x", F_OK) == 0, "below/x: %m");
	check_name(fds[3], "moved", 6, "a path that was moved");
	check_file("below/moved", 0600);
	send_to("below/moved", fds[3]);
	live_check(access("moved", F_OK) < 0, "it is at its old place, too");
	check_name(fds[4], "replaced", 9, "a path that was replaced");
	send_to("replaced", fds[5]);
	check_name(fds[6], "file", 5, "a path where a file is now");
	check_error(open("file/", O_RDONLY), ENOTDIR, "the file is no file");
	check_name(fds[7], chosen, 6, "a name that the kernel has chosen");
	check_name(fds[8], "\0", 1, "an empty abstract name");
	check_name(fds[9], "temporary", 10, "a deleted path with another link");
	send_to("linked", fds[9]);
	live_check(access("temporary", F_OK) < 0, "the deleted path is there");
	live_check(listen(fds[0], 1) == 0, "listen: %m");
	check_error(
		connect(fds[2], (struct sockaddr *)&address, fill_name(&address, absolute, strlen(absolute))) ?:
			(errno = 0, -1),
		0, "to an absolute path");
}

/* ---- credentials ---- */

static void check_named(int fd, pid_t pid, uid_t uid, gid_t gid, int groups, const char *what)
{
	struct ucred named;
	socklen_t size = sizeof(named), groups_size = 100 * sizeof(gid_t);
	gid_t found[100];

	live_check(getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &named, &size) == 0, "SO_PEERCRED: %m");
	live_check(named.pid == pid && named.uid == uid && named.gid == gid,
		   "%s: the peer is process %d of user %u, group %u, not %d, %u, %u", what, named.pid,
		   named.uid, named.gid, pid, uid, gid);
	if (groups < 0)
		return;
	live_check(getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, found, &groups_size) == 0, "SO_PEERGROUPS: %m");
	live_check(groups_size == groups * sizeof(gid_t), "%s: the peer has %zu groups", what,
		   groups_size / sizeof(gid_t));
	for (int i = 0; i < groups; i++)
		live_check(found[i] == 3000u + i, "%s: group %u", what, found[i]);
}

static pid_t makers[3];

/* A process that makes something and ends. */
static void make_as(int number, uid_t uid, void (*make)(void))
{
	static const gid_t groups[] = { 3000, 3001, 3002 };

	makers[number] = fork();
	live_check(makers[number] >= 0, "fork: %m");
	if (!makers[number]) {
		if (uid && (setgroups(number, groups) || setegid(uid + 1) || seteuid(uid)))
			live_fail("ids: %m");
		make();
		_exit(0);
	}
	live_check(waitpid(makers[number], NULL, 0) > 0, "waitpid: %m");
}

static int carrier[2];

/* Sends descriptors to the parent. */
static void carry(int *carried, int count)
{
	char control[CMSG_SPACE(8 * sizeof(int))] = { 0 }, byte = 0;
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = control,
				  .msg_controllen = CMSG_SPACE(count * sizeof(int)) };
	struct cmsghdr *header = CMSG_FIRSTHDR(&message);

	header->cmsg_level = SOL_SOCKET;
	header->cmsg_type = SCM_RIGHTS;
	header->cmsg_len = CMSG_LEN(count * sizeof(int));
	memcpy(CMSG_DATA(header), carried, count * sizeof(int));
	live_check(sendmsg(carrier[0], &message, 0) == 1, "sendmsg: %m");
}

static void receive(int *carried, int count)
{
	char control[CMSG_SPACE(8 * sizeof(int))], byte;
	struct iovec data = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &data, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof(control)
	};

	live_check(recvmsg(carrier[1], &message, 0) == 1, "recvmsg: %m");
	memcpy(carried, CMSG_DATA(CMSG_FIRSTHDR(&message)), count * sizeof(int));
}

static void make_pair_there(void)
{
	int pair[2];

	live_check(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0, "socketpair: %m");
	carry(pair, 2);
}

static void listen_there(void)
{
	int listener = new_socket(SOCK_STREAM);

	bind_to(listener, "\0credentials", 12);
	live_check(listen(listener, 3) == 0, "listen: %m");
	carry(&listener, 1);
}

static void connect_there(void)
{
	int client = new_socket(SOCK_STREAM);

	connect_to(client, "\0credentials", 12);
	carry(&client, 1);
}

static uid_t uid_of(int fd)
{
	struct stat found;

	live_check(fstat(fd, &found) == 0, "fstat: %m");
	return found.st_uid;
}

static void set_up_credentials(void)
{
	uid_t other = getuid() ? 0 : 1234;

	live_check(socketpair(AF_UNIX, SOCK_DGRAM, 0, carrier) == 0, "socketpair: %m");
	make_as(0, 0, make_pair_there);
	receive(fds, 2);
	make_as(1, other, listen_there);
	receive(fds + 2, 1);
	make_as(2, other ? other + 100 : 0, connect_there);
	receive(fds + 3, 1);
	fds[4] = accept_from(fds[2]);
	live_check(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, fds + 5) == 0, "socketpair: %m");
	fds[7] = new_socket(SOCK_STREAM);
	live_check(fchmod(fds[7], 0640) == 0, "fchmod: %m");
	live_check(uid_of(fds[0]) == getuid(), "its owner is %u", uid_of(fds[0]));
}

static void verify_credentials(void)
{
	struct stat found;
	uid_t uid = getuid(), first = uid ?: 1234, second = uid ?: 1334;
	gid_t gid = getgid(), first_gid = uid ? gid : 1235, second_gid = uid ? gid : 1335;

	check_named(fds[0], makers[0], uid, gid, -1, "a pair whose maker is gone");
	check_named(fds[1], makers[0], uid, gid, -1, "a pair whose maker is gone");
	check_named(fds[2], makers[1], first, first_gid, uid ? -1 : 1, "a listener");
	check_named(fds[3], makers[1], first, first_gid, uid ? -1 : 1, "a client");
	check_named(fds[4], makers[2], second, second_gid, uid ? -1 : 2, "an accepted connection");
	check_named(fds[5], getpid(), uid, gid, -1, "a pair of its own");
	check_named(carrier[0], getpid(), uid, gid, -1, "a pair of its own");
	check_named(fds[7], 0, -1, -1, -1, "an unconnected socket");
	talk_both(fds[3], fds[4], "a connection");
	talk_both(fds[0], fds[1], "a pair");
	live_check(fstat(fds[7], &found) == 0 && (found.st_mode & 07777) == 0640, "its mode is %o",
		   found.st_mode);
	live_check(uid_of(fds[0]) == uid && uid_of(fds[2]) == first && uid_of(fds[3]) == second,
		   "they belong to users %u, %u, %u", uid_of(fds[0]), uid_of(fds[2]), uid_of(fds[3]));
}

static const struct part {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} parts[] = {
	{ "datagrams", set_up_datagrams, verify_datagrams },
	{ "twins", set_up_twins, verify_twins },
	{ "places", set_up_places, verify_places },
	{ "names", set_up_names, verify_names },
	{ "credentials", set_up_credentials, verify_credentials },
};

/* Only what it has created: anything else is the fault of criu. */
static void remove_files(void)
{
	const char *const names[] = { "receiver", "six",     "eight",	    "nine",   "replaced",
				      "absolute", "below/x", "below/moved", "linked", longest };

	for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
		unlink(names[i]);
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	const struct part *part = live_choose(parts, argv[2]);
	live_path(absolute, sizeof(absolute), "absolute");
	live_check(chdir(live_directory) == 0, "chdir: %m");
	part->set_up();
	if (part->verify == verify_names)
		note_chosen();
	live_ready();
	live_wait_stop();
	part->verify();
	remove_files();
	return live_finish();
}
