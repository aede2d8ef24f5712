/*
 * sock_proof.c - does criu understand this kernel's unix sockets? It connects to a listener of its own, sends something,
 * and reads what waits there as it reads what waits for other processes.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/sock_reader.h"

struct proof {
	int listener, client;
	struct sockaddr_un name; /* of the client */
	socklen_t name_size;
	char *bytes, *found;
	size_t size; /* that were sent */
};

static int cannot_prove(const char *call)
{
	return fail(errno, "cannot prepare to read the queues of unix sockets: %s", call);
}

/* The kernel chooses abstract names. */
static int make_name(int fd, struct sockaddr_un *name, socklen_t *size)
{
	const sa_family_t family = AF_UNIX;

	*size = sizeof(*name);
	if (fd < 0)
		return cannot_prove("socket");
	if (bind(fd, (const struct sockaddr *)&family, sizeof(family)) < 0 ||
	    getsockname(fd, (struct sockaddr *)name, size) < 0)
		return cannot_prove("bind");
	return 0;
}

static int connect_pair(struct proof *proof)
{
	struct sockaddr_un name;
	socklen_t size;
	int result;

	proof->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	proof->client = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	result = make_name(proof->listener, &name, &size) ?:
			 make_name(proof->client, &proof->name, &proof->name_size);
	if (!result && (listen(proof->listener, 1) < 0 ||
			connect(proof->client, (const struct sockaddr *)&name, size) < 0))
		result = cannot_prove("connect");
	return result;
}

/* With a descriptor, of a file that leads to no socket: so nothing is left for the kernel's collector of garbage. */
static int send_all(struct proof *proof, int in_flight, size_t size)
{
	char space[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = "";
	struct cmsghdr *control = (struct cmsghdr *)space;
	struct iovec bytes = { proof->bytes, size };
	struct msghdr message = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)
	};
	ssize_t sent;

	for (size_t i = 0; i < size; i++)
		proof->bytes[i] = (char)(i * 7 + i / 251);
	*control = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
				     .cmsg_type = SCM_RIGHTS,
				     .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(control), &in_flight, sizeof(int));
	sent = sendmsg(proof->client, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (sent <= 0)
		return cannot_prove("send");
	proof->size = (size_t)sent;
	return 0;
}

static bool is_client(const struct proof *proof, const struct sock_waiting *waiting)
{
	const size_t family = sizeof(sa_family_t);
	struct stat client;

	return fstat(proof->client, &client) == 0 && waiting->client == (uint32_t)client.st_ino &&
	       waiting->name_size == proof->name_size - family &&
	       !memcmp(waiting->name, (const char *)&proof->name + family, waiting->name_size) &&
	       waiting->maker.pid == getpid() && waiting->maker.uid == geteuid() &&
	       waiting->maker.gid == getegid() && !waiting->has_urgent;
}

static bool has_groups(const struct sock_waiting *waiting)
{
	int count = getgroups(0, NULL);
	autofree gid_t *groups = allocate_array((size_t)max(count, 0) + 1, sizeof(*groups));

	return count >= 0 && getgroups(count, groups) == count && waiting->group_count == (size_t)count &&
	       (!count || !memcmp(waiting->groups, groups, waiting->group_count * sizeof(*groups)));
}

static bool is_sent_by_us(const struct sock_packet *packet)
{
	return packet->has_sender && packet->sender.pid == getpid() && packet->sender.uid == getuid() &&
	       packet->sender.gid == getgid();
}

static bool has_descriptor(const struct sock_reader *reader, const struct sock_packet *packet)
{
	uint64_t file, data;

	return !kernel_files_find(&reader->files, reader->peek.map, &file, &data) &&
	       packet->file_count == 1 && packet->files[0] == file;
}

/* 1: all is as it was sent; 0: it is not; or -errno. */
static int compare_packets(struct sock_reader *reader, struct proof *proof,
			   const struct sock_waiting *waiting)
{
	size_t at = 0;

	for (size_t i = 0; i < waiting->count; i++) {
		const struct sock_packet *packet = &waiting->packets[i];
		int result;

		if (packet->size > proof->size - at || !is_sent_by_us(packet) ||
		    (i ? packet->file_count != 0 : !has_descriptor(reader, packet)))
			return 0;
		result = sock_packet_read(reader, packet, proof->found + at);
		if (result)
			return result;
		at += packet->size;
	}
	return at == proof->size && !memcmp(proof->bytes, proof->found, at);
}

static int prove(struct sock_reader *reader, struct proof *proof)
{
	struct sock_backlog backlog = { 0 };
	int result = sock_backlog_read(reader, proof->listener, &backlog);

	if (!result)
		result = backlog.count == 1 && is_client(proof, &backlog.items[0]) &&
					 has_groups(&backlog.items[0]) ?
				 compare_packets(reader, proof, &backlog.items[0]) :
				 0;
	sock_backlog_free(&backlog);
	if (!result)
		return fail(EOPNOTSUPP, "criu does not understand this kernel's unix sockets");
	return min(result, 0);
}

int sock_reader_test(struct sock_reader *reader, size_t size)
{
	struct proof proof = {
		.listener = -1, .client = -1, .bytes = allocate(size), .found = allocate(size)
	};
	int result = connect_pair(&proof)			      ?:
			     send_all(&proof, reader->peek.map, size) ?:
									prove(reader, &proof);

	autoclose_clean(&proof.listener);
	autoclose_clean(&proof.client);
	free(proof.bytes);
	free(proof.found);
	return result;
}
