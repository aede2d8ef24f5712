/*
 * own_network.c - see own_network.h. Since Linux 5.14 a socket tells a number of its network namespace, which no other
 * one has until the machine is started again; before, it gives a descriptor of the namespace.
 */
#include <errno.h>
#include <linux/sockios.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel_constants.h"
#include "sockets/own_network.h"

int socket_family(const struct seen_file *seen)
{
	autoclose int fd = -1;
	int family = -1;
	socklen_t size = sizeof(family);

	if (seen->fd < 0 || strncmp(seen->link, "socket:[", 8) || seen->info.flags & O_PATH)
		return -1;
	fd = attempted(files_borrow(seen));
	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size) < 0 ? -1 : family;
}

static int read_cookie(int fd, uint64_t *cookie)
{
	socklen_t size = sizeof(*cookie);

	return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, cookie, &size);
}

static int compare_namespaces(int fd)
{
	autoclose int namespace = ioctl(fd, SIOCGSKNS);
	struct stat found, own;

	if (namespace < 0 || fstat(namespace, &found) < 0 || stat("/proc/self/ns/net", &own) < 0)
		return fail(errno, "cannot find out in which network namespace a socket is");
	return found.st_ino == own.st_ino && found.st_dev == own.st_dev;
}

int socket_is_in_own_network(int fd)
{
	autoclose int own = -1;
	uint64_t found, ours;

	if (read_cookie(fd, &found) < 0)
		return compare_namespaces(fd);
	own = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (own < 0 || read_cookie(own, &ours) < 0)
		return fail(errno, "cannot find out in which network namespace criu is");
	return found == ours;
}
