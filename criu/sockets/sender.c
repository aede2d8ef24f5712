/*
 * sender.c - see sender.h.
 *
 * What a receiver sees of a path is the text that was given to bind(2). So a socket with any path is bound in an empty
 * file system that is mounted nowhere: a child makes it its root, and creates the directories of the path. Nobody else
 * can reach it, and it disappears with the last descriptor. (Linux 5.2: fsmount(2).)
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "sockets/sender.h"

struct sender {
	union {
		struct sockaddr any;
		struct sockaddr_un path;
		struct sockaddr_storage space;
	} address;
	socklen_t size;
	int fd;
};

static bool has_path(const struct sender *sender)
{
	return sender->address.any.sa_family == AF_UNIX && sender->size > sizeof(sa_family_t) &&
	       sender->address.path.sun_path[0];
}

static int make_file_system(void)
{
	autoclose int context = syscall(SYS_fsopen, "tmpfs", FSOPEN_CLOEXEC);
	int mount = -1;

	if (context >= 0 && syscall(SYS_fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0) == 0)
		mount = syscall(SYS_fsmount, context, FSMOUNT_CLOEXEC, 0);
	return mount < 0 ? fail(errno, "cannot create a file system for the name of a socket") : mount;
}

/* The directories that lead to the socket; "a/../b" needs a, too. */
static void make_directories(const struct sockaddr_un *address)
{
	char path[sizeof(address->sun_path) + 1] = "";

	memcpy(path, address->sun_path, sizeof(address->sun_path));
	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		ignore(mkdir(path, 0700)); /* it may exist; bind() finds out */
		*slash = '/';
	}
}

static int enter_file_system(void)
{
	autoclose int mount = make_file_system();

	if (mount < 0)
		return mount;
	return fchdir(mount) == 0 && chroot(".") == 0 ?
		       0 :
		       fail(errno, "cannot enter a file system for the name of a socket");
}

/* In a child that shares descriptors with criu, but not its root. */
static int create(void *argument)
{
	struct sender *sender = argument;
	int result = 0;

	sender->fd = socket(sender->address.any.sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (sender->fd < 0)
		return fail(errno, "cannot create a socket");
	if (has_path(sender)) {
		result = enter_file_system();
		if (!result)
			make_directories(&sender->address.path);
	}
	if (!result && sender->size > sizeof(sa_family_t) &&
	    bind(sender->fd, &sender->address.any, sender->size) < 0)
		result = fail(errno, "cannot bind a socket to the name of a sender");
	if (result)
		close(steal_fd(&sender->fd));
	return result;
}

int temporary_sender(const struct place *place, sa_family_t family, const void *name, size_t size)
{
	static const struct place here = PLACE_HERE;
	struct sender sender = { .fd = -1 };
	int result;

	sender.address.any.sa_family = family;
	if (size)
		memcpy((char *)&sender.address + sizeof(sa_family_t), name,
		       min(size, sizeof(sender.address) - sizeof(sa_family_t)));
	sender.size = sizeof(sa_family_t) + size;
	if (family == AF_UNIX) /* the kernel shows a path of the full length with a 0 byte more */
		sender.size = min(sender.size, (socklen_t)sizeof(sender.address.path));
	result = place || has_path(&sender) ? run_in(place ?: &here, create, &sender) : create(&sender);
	return result ?: sender.fd;
}
