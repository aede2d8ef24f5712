/*
 * uring_thread.c - the thread of the kernel that takes the requests of an io_uring (IORING_SETUP_SQPOLL). See uring.h.
 */
#include <errno.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/uring_reader.h"

/* The thread of the kernel that takes requests (IORING_SETUP_SQPOLL), and how far requests are published for it. */
int uring_read_thread(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	uint64_t data, task, rings;
	int result = uring_read_address(reader, ring, THREAD_DATA, &data);

	if (!result && !data)
		return 0;
	result = result ?: uring_read_address(reader, data, THREAD_TASK, &task);
	result = result ?: uring_read_address(reader, ring, RINGS, &rings);
	result = result ?: uring_read_at(reader, rings, RINGS_SQ_TAIL, &facts->sq_tail, sizeof(uint32_t));
	result = result ?: uring_read_at(reader, ring, THREAD_IDLE, &facts->idle, sizeof(uint32_t));
	result = result ?: uring_read_at(reader, data, THREAD_CPU, &facts->cpu, sizeof(uint32_t));
	return result || !task ? result : uring_read_ids(reader, task, &facts->thread, &facts->owner);
}

static int read_groups(const struct uring_reader *reader, uint64_t groups, struct uring_rights *rights)
{
	uint64_t at = groups + reader->offsets[GROUPS_IDS];
	uint32_t count = 0, piece;
	int result = uring_read_at(reader, groups, GROUPS_COUNT, &count, sizeof(count));

	for (uint32_t i = 0; !result && i < count && count <= rights->group_count; i += piece) {
		piece = min(count - i, PEEK_MOST / (uint32_t)sizeof(gid_t));
		if (peek_read(&reader->peek, at + i * sizeof(gid_t), rights->groups + i,
			      piece * sizeof(gid_t)))
			return uring_cannot_read(-EFAULT);
	}
	rights->group_count = count;
	return result;
}

static const struct {
	enum place place;
	size_t offset;
} ids[] = {
	{ RIGHTS_REAL_UID, offsetof(struct uring_rights, real_uid) },
	{ RIGHTS_UID, offsetof(struct uring_rights, uid) },
	{ RIGHTS_SAVED_UID, offsetof(struct uring_rights, saved_uid) },
	{ RIGHTS_FSUID, offsetof(struct uring_rights, fsuid) },
	{ RIGHTS_REAL_GID, offsetof(struct uring_rights, real_gid) },
	{ RIGHTS_GID, offsetof(struct uring_rights, gid) },
	{ RIGHTS_SAVED_GID, offsetof(struct uring_rights, saved_gid) },
	{ RIGHTS_FSGID, offsetof(struct uring_rights, fsgid) },
};

int uring_read_rights(const struct uring_reader *reader, const struct uring_facts *facts,
		      struct uring_rights *rights)
{
	uint64_t from, groups;
	int result = uring_read_address(reader, facts->ring, THREAD_RIGHTS, &from);

	for (size_t i = 0; !result && i < array_size(ids); i++)
		result = uring_read_at(reader, from, ids[i].place, (char *)rights + ids[i].offset,
				       sizeof(uid_t));
	return result										    ?:
		       uring_read_address(reader, from, RIGHTS_CAPABILITIES, &rights->capabilities) ?:
		       uring_read_address(reader, from, RIGHTS_PERMITTED, &rights->permitted)	    ?:
		       uring_read_address(reader, from, RIGHTS_GROUPS, &groups)			    ?:
		       read_groups(reader, groups, rights);
}
