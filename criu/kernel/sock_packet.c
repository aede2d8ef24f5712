/*
 * sock_packet.c - reads the packets in the queue of a unix socket: the kernel's struct sk_buff. See sock_queue.h.
 *
 * A packet has a first part of its bytes beside its struct, and the rest in fragments of pages. Beside them, its struct
 * unix_skb_parms has who has sent it, and the files in flight. Packets in the queue of a connection that waits to be
 * accepted do not change, except that more come: nobody can take them out, and its client is frozen, or is closed.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/sock_reader.h"

#define TEST	       (96u << 10) /* bytes, which are several packets with fragments */
#define MOST_PACKETS   (1u << 20)
#define LARGEST	       (1u << 30)
#define MOST_FILES     253 /* SCM_MAX_FD */
#define MOST_FRAGMENTS 64  /* MAX_SKB_FRAGS is 45 at most */

int sock_read_bytes(const struct sock_reader *reader, uint64_t address, void *bytes, size_t size)
{
	int result = 0;

	for (size_t at = 0, piece; !result && at < size; at += piece) {
		piece = min(size - at, (size_t)PEEK_MOST);
		result = peek_read(&reader->peek, address + at, (char *)bytes + at, (uint32_t)piece);
	}
	return result ? fail(-result, "cannot read what the kernel knows of a unix socket") : 0;
}

int sock_read_fields(const struct sock_reader *reader, uint64_t struct_at, const struct peek_member *fields,
		     size_t count)
{
	int result = peek_read_members(&reader->peek, struct_at, reader->offsets, fields, count);

	return result ? fail(-result, "cannot read what the kernel knows of a unix socket") : 0;
}

static int is_unknown(void)
{
	return fail(EOPNOTSUPP, "criu does not understand this kernel's unix sockets");
}

/* A process has a number in its own pid namespace, and in each of those above. */
int sock_read_pid(const struct sock_reader *reader, uint64_t pid, pid_t *number)
{
	uint64_t at = pid + reader->offsets[PID_NUMBERS] + reader->level * (uint64_t)reader->number_size,
		 space;
	uint32_t level;
	pid_t found;
	int result = pid ? sock_read(reader, pid, FIELD(PID_LEVEL, level)) : 0;

	*number = 0;
	if (result || !pid || level < reader->level)
		return result;
	result = sock_read(reader, at, FIELD(NUMBER_SPACE, space), FIELD(NUMBER_NUMBER, found));
	if (!result && space == reader->space)
		*number = found;
	return result;
}

/* ---- bytes ---- */

struct fragment {
	uint64_t page;
	uint32_t length, start;
};

static int read_fragment(const struct sock_reader *reader, uint64_t at, struct fragment *fragment)
{
	return sock_read_bytes(reader, at + reader->fragment_page, &fragment->page, 8)		   ?:
		       sock_read_bytes(reader, at + reader->fragment_length, &fragment->length, 4) ?:
		       sock_read_bytes(reader, at + reader->fragment_start, &fragment->start, 4);
}

static int copy_fragment(const struct sock_reader *reader, const struct fragment *fragment, char *bytes)
{
	uint64_t page = page_map_address(&reader->pages, fragment->page);

	/* The lowest bit: it is memory of a device. */
	if (!page || fragment->page & 1)
		return is_unknown();
	return sock_read_bytes(reader, page + fragment->start, bytes, fragment->length);
}

static int need_pages(struct sock_reader *reader)
{
	int result = reader->has_pages ? 0 : page_map_open(&reader->pages, &reader->files, reader->btf);

	if (result || reader->has_pages)
		return result;
	reader->has_pages = true;
	return sock_reader_test(reader, TEST);
}

static int copy_fragments(const struct sock_reader *reader, uint64_t rest, uint8_t count, char *bytes,
			  uint32_t size)
{
	uint64_t at = rest + reader->offsets[REST_FRAGMENTS];
	uint32_t done = 0;
	int result = 0;

	for (uint8_t i = 0; !result && i < count; i++, at += reader->fragment_size) {
		struct fragment fragment;

		result = read_fragment(reader, at, &fragment);
		if (!result && fragment.length > size - done)
			return is_unknown();
		result = result ?: copy_fragment(reader, &fragment, bytes + done);
		done += fragment.length;
	}
	return !result && done != size ? is_unknown() : result;
}

/* The bytes behind the first part. */
static int read_fragments(struct sock_reader *reader, uint64_t skb, char *bytes, uint32_t size)
{
	uint64_t head, more;
	uint32_t end;
	uint8_t count;
	int result = need_pages(reader);

	if (!result)
		result = sock_read(reader, skb, FIELD(SKB_HEAD, head), FIELD(SKB_END, end));
	if (!result)
		result = sock_read(reader, head + end, FIELD(REST_COUNT, count), FIELD(REST_MORE, more));
	if (!result && (more || count > MOST_FRAGMENTS))
		return is_unknown();
	return result ?: copy_fragments(reader, head + end, count, bytes, size);
}

int sock_packet_read(struct sock_reader *reader, const struct sock_packet *packet, char *bytes)
{
	uint64_t data;
	uint32_t size, behind;
	int result = sock_read(reader, packet->address, FIELD(SKB_SIZE, size), FIELD(SKB_BEHIND, behind),
			       FIELD(SKB_DATA, data));

	if (!result && (size != packet->size || behind > size))
		return is_unknown();
	result = result ?: sock_read_bytes(reader, data, bytes, size - behind);
	if (!result && behind)
		result = read_fragments(reader, packet->address, bytes + size - behind, behind);
	return result;
}

/* ---- what is beside the bytes ---- */

static int read_notes(const struct sock_reader *reader, uint64_t notes, struct sock_packet *packet,
		      uint64_t *files)
{
	uint64_t pid;
	uint32_t label = 0;
	int result = sock_read(reader, notes, FIELD(NOTES_PID, pid), FIELD(NOTES_USER, packet->sender.uid),
			       FIELD(NOTES_GROUP, packet->sender.gid), FIELD(NOTES_FILES, *files));

	result = result ?: sock_read_pid(reader, pid, &packet->sender.pid);
	packet->has_sender = packet->sender.pid;
	if (!result && reader->label != UINT32_MAX)
		result = sock_read_bytes(reader, notes + reader->label, &label, sizeof(label));
	packet->has_label = label;
	return result;
}

static int read_files(const struct sock_reader *reader, uint64_t files, struct sock_packet *packet)
{
	uint16_t count = 0;
	int result = files ? sock_read(reader, files, FIELD(FILES_COUNT, count)) : 0;

	if (result || !count)
		return result;
	if (count > MOST_FILES)
		return is_unknown();
	packet->files = allocate_array(count, sizeof(*packet->files));
	packet->file_count = count;
	return sock_read_bytes(reader, files + reader->offsets[FILES_FILES], packet->files,
			       count * sizeof(*packet->files));
}

/* `skb` becomes the next packet. */
static int read_packet(const struct sock_reader *reader, uint64_t *skb, struct sock_packet *packet)
{
	uint64_t notes = *skb + reader->offsets[SKB_NOTES], files = 0;
	int result;

	packet->address = *skb;
	result = sock_read(reader, packet->address, FIELD(SKB_SIZE, packet->size), FIELD(SKB_NEXT, *skb));
	if (!result && packet->size > LARGEST)
		return is_unknown();
	return result ?: read_notes(reader, notes, packet, &files) ?: read_files(reader, files, packet);
}

int sock_read_packets(const struct sock_reader *reader, uint64_t sock, struct sock_packet **packets,
		      size_t *count)
{
	uint64_t head = sock + reader->offsets[SOCK_QUEUE], at = 0;
	int result = sock_read(reader, sock, FIELD(SOCK_QUEUE, at));

	while (!result && at != head) {
		struct sock_packet *packet = grow(packets, count);

		*packet = (struct sock_packet){ 0 };
		if (*count > MOST_PACKETS)
			return is_unknown();
		result = read_packet(reader, &at, packet);
	}
	return result;
}

void sock_packets_free(struct sock_packet *packets, size_t count)
{
	for (size_t i = 0; i < count; i++)
		free(packets[i].files);
	free(packets);
}
