/*
 * device_tun.c - tun and tap: network devices of the process.
 *
 * usage: device_tun DIRECTORY tun|tap|bridged|persistent|queues|filtered|off
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/if_tun.h>
#include <linux/sockios.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "live.h"

#define NAME "criu-tun0" /* in the network namespace of the test */

static const unsigned char hardware[6] = { 2, 1, 2, 3, 4, 5 };
static int fds[3], ask;
static unsigned number;

static int attach(short flags)
{
	struct ifreq request = { .ifr_name = NAME, .ifr_flags = flags };
	int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);

	if (fd < 0)
		live_skip("no tun: %m");
	live_check(ioctl(fd, TUNSETIFF, &request) == 0, "TUNSETIFF: %m");
	return fd;
}

/* SIOC*: a socket that asks must not stay open. */
static struct ifreq call(unsigned long request, struct ifreq argument)
{
	ask = socket(AF_INET, SOCK_DGRAM, 0);
	strcpy(argument.ifr_name, NAME);
	live_check(ask >= 0 && ioctl(ask, request, &argument) == 0, "ioctl %lx: %m", request);
	close(ask);
	return argument;
}

static struct ifreq with_address(const char *text)
{
	struct ifreq request = { 0 };
	struct sockaddr_in *address = (void *)&request.ifr_addr;

	address->sin_family = AF_INET;
	inet_pton(AF_INET, text, &address->sin_addr);
	return request;
}

static void bring_up(void)
{
	call(SIOCSIFMTU, (struct ifreq){ .ifr_mtu = 1234 });
	call(SIOCSIFADDR, with_address("10.99.1.1"));
	call(SIOCSIFNETMASK, with_address("255.255.255.0"));
	call(SIOCSIFFLAGS, (struct ifreq){ .ifr_flags = IFF_UP });
	number = call(SIOCGIFINDEX, (struct ifreq){ 0 }).ifr_ifindex;
}

static const char *address_of(unsigned long request)
{
	struct ifreq found = call(request, (struct ifreq){ 0 });

	return inet_ntoa(((struct sockaddr_in *)&found.ifr_addr)->sin_addr);
}

static void verify_device(void)
{
	live_check(call(SIOCGIFMTU, (struct ifreq){ 0 }).ifr_mtu == 1234, "another MTU");
	live_check(!strcmp(address_of(SIOCGIFADDR), "10.99.1.1"), "another address");
	live_check(!strcmp(address_of(SIOCGIFNETMASK), "255.255.255.0"), "another netmask");
	live_check(call(SIOCGIFFLAGS, (struct ifreq){ 0 }).ifr_flags & IFF_UP, "it is down");
	live_check((unsigned)call(SIOCGIFINDEX, (struct ifreq){ 0 }).ifr_ifindex == number, "another number");
}

static void verify_flags(int fd, int wanted)
{
	struct ifreq request = { 0 };

	live_check(ioctl(fd, TUNGETIFF, &request) == 0 && !strcmp(request.ifr_name, NAME), "TUNGETIFF: %m");
	live_check((request.ifr_flags & 0xffff) == wanted, "flags %x, not %x", request.ifr_flags & 0xffff,
		   wanted);
}

/* A packet that is sent to the network arrives at the file. */
static void verify_packet(int fd)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(9) };
	unsigned char packet[2048];
	int sender = socket(AF_INET, SOCK_DGRAM, 0);
	bool is_found = false;

	inet_pton(AF_INET, "10.99.1.2", &to.sin_addr);
	live_check(sendto(sender, "hello", 5, 0, (void *)&to, sizeof(to)) == 5, "sendto: %m");
	close(sender);
	/* The kernel sends others, too: it looks for routers. */
	while (!is_found && poll(&(struct pollfd){ fd, POLLIN, 0 }, 1, 2000) == 1) {
		ssize_t length = read(fd, packet, sizeof(packet));

		is_found = length > 5 && memmem(packet, length, "hello", 5);
	}
	live_check(is_found, "the packet has not arrived");
}

/* ---- tun: what ioctls set ---- */

static void set_up_tun(void)
{
	int header = 12, buffer = 100000, yes = 1;

	fds[0] = attach(IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
	live_check(fcntl(fds[0], F_SETFL, O_NONBLOCK) == 0 && dup2(fds[0], 77) == 77, "fcntl: %m");
	live_check(ioctl(fds[0], TUNSETOWNER, 1234L) == 0 && ioctl(fds[0], TUNSETGROUP, 4321L) == 0 &&
			   ioctl(fds[0], TUNSETVNETHDRSZ, &header) == 0 &&
			   ioctl(fds[0], TUNSETSNDBUF, &buffer) == 0 &&
			   ioctl(fds[0], TUNSETVNETLE, &yes) == 0,
		   "ioctl: %m");
	bring_up();
}

static void verify_tun(void)
{
	int header, buffer, little_endian;

	verify_flags(fds[0], IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
	verify_flags(77, IFF_TUN | IFF_NO_PI | IFF_VNET_HDR);
	live_check(fcntl(fds[0], F_GETFL) & O_NONBLOCK && fcntl(fds[0], F_GETFD) == FD_CLOEXEC,
		   "other flags");
	live_check(ioctl(fds[0], TUNGETVNETHDRSZ, &header) == 0 && header == 12, "another header: %d",
		   header);
	live_check(ioctl(fds[0], TUNGETSNDBUF, &buffer) == 0 && buffer == 100000, "another buffer: %d",
		   buffer);
	live_check(ioctl(fds[0], TUNGETVNETLE, &little_endian) == 0 && little_endian == 1,
		   "another byte order");
	verify_device();
	verify_packet(fds[0]);
}

/* ---- tap: its hardware address ---- */

static void set_up_tap(void)
{
	struct ifreq request = { 0 };

	fds[0] = attach(IFF_TAP | IFF_NO_PI);
	request.ifr_hwaddr.sa_family = ARPHRD_ETHER;
	memcpy(request.ifr_hwaddr.sa_data, hardware, sizeof(hardware));
	call(SIOCSIFHWADDR, request);
	bring_up();
}

static void verify_tap(void)
{
	struct ifreq found = call(SIOCGIFHWADDR, (struct ifreq){ 0 });
	char frame[64] = { 0 };

	live_check(!memcmp(found.ifr_hwaddr.sa_data, hardware, sizeof(hardware)), "another hardware address");
	verify_flags(fds[0], IFF_TAP | IFF_NO_PI);
	verify_device();
	live_check(write(fds[0], frame, sizeof(frame)) == sizeof(frame), "write: %m");
}

/* ---- bridged: a tap in a bridge, like that of a virtual machine; the bridge stays until the test ends ---- */

#define BRIDGE "criu-br0"

static void call_bridge(unsigned long request, void *argument)
{
	ask = socket(AF_INET, SOCK_DGRAM, 0);
	live_check(ask >= 0 && ioctl(ask, request, argument) == 0, "bridge, ioctl %lx: %m", request);
	close(ask);
}

static void set_up_bridged(void)
{
	struct ifreq request = { .ifr_name = BRIDGE };

	set_up_tap();
	call_bridge(SIOCBRADDBR, BRIDGE);
	request.ifr_ifindex = number;
	call_bridge(SIOCBRADDIF, &request);
}

static void verify_bridged(void)
{
	struct ifreq request = { .ifr_name = BRIDGE, .ifr_ifindex = number };

	verify_tap();
	call_bridge(SIOCBRDELIF, &request);
	call_bridge(SIOCBRADDIF, &request);
}

/* ---- persistent: it outlives the file; the owner may have removed it meanwhile ---- */

static void set_up_persistent(void)
{
	fds[0] = attach(IFF_TUN | IFF_NO_PI);
	live_check(ioctl(fds[0], TUNSETPERSIST, 1L) == 0, "TUNSETPERSIST: %m");
	bring_up();
}

static void verify_persistent(void)
{
	verify_flags(fds[0], IFF_TUN | IFF_NO_PI | IFF_PERSIST);
	verify_device();
	verify_packet(fds[0]);
	if (access("keep", F_OK) < 0)
		live_check(ioctl(fds[0], TUNSETPERSIST, 0L) == 0, "TUNSETPERSIST: %m");
}

/* ---- queues: a file for each ---- */

static void set_up_queues(void)
{
	for (int i = 0; i < 3; i++)
		fds[i] = attach(IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE);
	bring_up();
}

static void verify_queues(void)
{
	for (int i = 0; i < 3; i++)
		verify_flags(fds[i], IFF_TUN | IFF_NO_PI | IFF_MULTI_QUEUE);
	verify_device();
	/* Each can be switched off by itself. */
	for (int i = 1; i < 3; i++)
		live_check(ioctl(fds[i], TUNSETQUEUE, &(struct ifreq){ .ifr_flags = IFF_DETACH_QUEUE }) == 0,
			   "TUNSETQUEUE: %m");
	verify_packet(fds[0]);
}

/* ---- filtered, which is refused ---- */

static void set_up_filtered(void)
{
	struct sock_filter all = BPF_STMT(BPF_RET | BPF_K, 0xffff);
	struct sock_fprog filter = { 1, &all };

	fds[0] = attach(IFF_TAP | IFF_NO_PI);
	live_check(ioctl(fds[0], TUNATTACHFILTER, &filter) == 0, "TUNATTACHFILTER: %m");
}

static void verify_filtered(void)
{
	verify_flags(fds[0], IFF_TAP | IFF_NO_PI);
}

/* ---- off: a queue that is switched off, which is refused ---- */

static void set_up_off(void)
{
	set_up_queues();
	live_check(ioctl(fds[1], TUNSETQUEUE, &(struct ifreq){ .ifr_flags = IFF_DETACH_QUEUE }) == 0,
		   "TUNSETQUEUE: %m");
}

static void verify_off(void)
{
	verify_device();
}

static const struct live_part things[] = {
	{ "tun", set_up_tun, verify_tun },
	{ "tap", set_up_tap, verify_tap },
	{ "bridged", set_up_bridged, verify_bridged },
	{ "persistent", set_up_persistent, verify_persistent },
	{ "queues", set_up_queues, verify_queues },
	{ "filtered", set_up_filtered, verify_filtered },
	{ "off", set_up_off, verify_off },
};

int main(int argc, char **argv)
{
	return live_run_one(argc, argv, things);
}
