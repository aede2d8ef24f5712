/*
 * sock_reader.h - what sock_packet.c, sock_queue.c and sock_proof.c have in common.
 */
#ifndef CRIU_KERNEL_SOCK_READER_H
#define CRIU_KERNEL_SOCK_READER_H

#include "kernel/btf.h"
#include "kernel/kernel_files.h"
#include "kernel/page_map.h"
#include "kernel/peek.h"
#include "kernel/sock_queue.h"

enum sock_place {
	SOCKET_SOCK,
	SOCKET_IN_INODE,
	SOCKET_INODE,
	SOCK_QUEUE,
	SOCK_SOCKET,
	SOCK_MAKER,
	SOCK_MAKER_IDS,
	UNIX_NAME,
	UNIX_PEER,
	NAME_SIZE,
	NAME_BYTES,
	SKB_NEXT,
	SKB_SOCK,
	SKB_SIZE,
	SKB_BEHIND,
	SKB_HEAD,
	SKB_DATA,
	SKB_END,
	SKB_NOTES,
	REST_COUNT,
	REST_MORE,
	REST_FRAGMENTS,
	NOTES_PID,
	NOTES_USER,
	NOTES_GROUP,
	NOTES_FILES,
	FILES_COUNT,
	FILES_FILES,
	PID_LEVEL,
	PID_NUMBERS,
	NUMBER_NUMBER,
	NUMBER_SPACE,
	IDS_USER,
	IDS_GROUP,
	IDS_GROUPS,
	GROUPS_COUNT,
	GROUPS_IDS,
	TASK_PID,
	SOCK_PLACES,
};

struct sock_reader {
	struct peek peek;
	struct btf *btf;
	struct kernel_files files;
	uint32_t offsets[SOCK_PLACES];
	uint32_t label, urgent; /* UINT32_MAX: this kernel has none */
	uint32_t number_size, fragment_size;
	uint32_t fragment_page, fragment_length, fragment_start;
	/* the pid namespace of criu */
	uint32_t level;
	uint64_t space;
	struct page_map pages;
	bool has_pages;
};

/* Members to read: sock_read(reader, skb, FIELD(SKB_SIZE, size), FIELD(SKB_DATA, data)). 0 or -errno, recorded. */
#define FIELD(place, value)                      \
	{                                        \
		(place), &(value), sizeof(value) \
	}
#define sock_read(reader, struct_at, ...)                                                    \
	sock_read_fields((reader), (struct_at), (const struct peek_member[]){ __VA_ARGS__ }, \
			 array_size(((const struct peek_member[]){ __VA_ARGS__ })))
int sock_read_fields(const struct sock_reader *reader, uint64_t struct_at, const struct peek_member *fields,
		     size_t count) must_check;
/* The number by which criu sees a process; 0: it does not. */
int sock_read_pid(const struct sock_reader *reader, uint64_t pid, pid_t *number) must_check;
/* All packets that wait in the queue of a struct sock. */
int sock_read_packets(const struct sock_reader *reader, uint64_t sock, struct sock_packet **packets,
		      size_t *count) must_check;
void sock_packets_free(struct sock_packet *packets, size_t count);
/* Reads bytes at an address, in pieces. */
int sock_read_bytes(const struct sock_reader *reader, uint64_t address, void *bytes, size_t size) must_check;

/* ---- sock_proof.c ---- */

/* Sends so many bytes through a connection of criu's own, and fails if it does not find them as they were sent. */
int sock_reader_test(struct sock_reader *reader, size_t size) must_check;

#endif
