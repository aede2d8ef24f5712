/*
 * packets.h - what packets.c and packet_rings.c share. Frames go over lo, with a type of their own, so that nothing
 * else is received.
 */
#ifndef TEST_PACKETS_H
#define TEST_PACKETS_H

#include <arpa/inet.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <poll.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "live.h"

#define TYPE   0x88b5 /* for local experiments */
#define HEADER 14     /* of Ethernet */

/* A socket that only asks, or only sends, must not stay open. */
static inline int call(const char *name, unsigned long request, struct ifreq argument)
{
	int ask = socket(AF_INET, SOCK_DGRAM, 0);

	strcpy(argument.ifr_name, name);
	live_check(ask >= 0 && ioctl(ask, request, &argument) == 0, "ioctl %lx of %s: %m", request, name);
	close(ask);
	return argument.ifr_ifindex;
}

static inline void bring_up(const char *name)
{
	call(name, SIOCSIFFLAGS, (struct ifreq){ .ifr_flags = IFF_UP });
}

static inline struct sockaddr_ll name_of(const char *interface, int type)
{
	struct sockaddr_ll name = { .sll_family = AF_PACKET, .sll_protocol = htons(type) };

	name.sll_ifindex = interface ? (int)if_nametoindex(interface) : 0;
	live_check(!interface || name.sll_ifindex, "no interface %s", interface);
	return name;
}

static inline int make(int kind)
{
	int fd = socket(AF_PACKET, kind, 0);

	live_check(fd >= 0, "socket: %m");
	return fd;
}

static inline void bind_to(int fd, const char *interface, int type)
{
	struct sockaddr_ll name = name_of(interface, type);

	live_check(bind(fd, (void *)&name, sizeof(name)) == 0, "bind: %m");
}

static inline void verify_name(int fd, const char *interface, int type)
{
	struct sockaddr_ll name, wanted = name_of(interface, type);
	socklen_t size = sizeof(name);

	live_check(getsockname(fd, (void *)&name, &size) == 0, "getsockname: %m");
	live_check(name.sll_protocol == wanted.sll_protocol && name.sll_ifindex == wanted.sll_ifindex,
		   "protocol %#x and interface %d", ntohs(name.sll_protocol), name.sll_ifindex);
}

static inline void send_text(const char *text)
{
	unsigned char frame[64] = { 0 };
	struct sockaddr_ll to = name_of("lo", TYPE);
	int fd = make(SOCK_RAW);

	frame[12] = TYPE >> 8;
	frame[13] = TYPE & 0xff;
	strcpy((char *)frame + HEADER, text);
	live_check(sendto(fd, frame, sizeof(frame), 0, (void *)&to, sizeof(to)) == sizeof(frame),
		   "sendto: %m");
	close(fd);
}

/* Is there a frame? Its text is behind `skipped` bytes. */
static inline bool take(int fd, const char *text, size_t skipped, int patience)
{
	char frame[2048] = "";

	if (poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, patience) != 1)
		return false;
	live_check(recv(fd, frame, sizeof(frame) - 1, 0) > (ssize_t)skipped, "recv: %m");
	live_check(!strcmp(frame + skipped, text), "%s, and not %s", frame + skipped, text);
	return true;
}

static inline void expect(int fd, const char *text, size_t skipped)
{
	live_check(take(fd, text, skipped, 2000), "%s has not arrived", text);
}

static inline void expect_nothing(int fd)
{
	live_check(!take(fd, "", 0, 20), "something has arrived");
}

#endif
