/*
 * uring.c - reads the kernel's struct io_ring_ctx. See uring.h.
 *
 * Requests in flight: the kernel allocates requests for one ring, counts them (nr_req_allocated, Linux 6.15), and keeps
 * those that it does not use at the moment in a list of free ones. Older kernels have a second such list, and count the
 * requests only together with other users of the ring (refs): then criu may see too many, and never too few. A request
 * returns to that list when its completion has been posted, and everything that it writes has been written. So those
 * that are allocated and not free are in flight: also timeouts, and requests that a worker thread or a device works on.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "kernel/uring_reader.h"

#define MOST_REQUESTS (1u << 20) /* allocated for one ring */
#define MOST_TASKS    4096	 /* that have used one ring */
#define RING_SLOTS    16	 /* registered descriptors of rings, of one thread */
#define FILE_BITS     7ULL	 /* of the address of a registered file: facts about the file */
#define ATTEMPTS      100

/* ---- reading ---- */

int uring_cannot_read(int error)
{
	return fail(-error, "cannot read what the kernel knows of an io_uring");
}

int uring_read_at(const struct uring_reader *reader, uint64_t struct_at, enum place place, void *value,
		  uint32_t size)
{
	int result = peek_read(&reader->peek, struct_at + reader->offsets[place], value, size);

	return result ? uring_cannot_read(result) : 0;
}

int uring_read_address(const struct uring_reader *reader, uint64_t struct_at, enum place place,
		       uint64_t *address)
{
	return uring_read_at(reader, struct_at, place, address, sizeof(*address));
}

/* ---- ids ---- */

/* The number of a struct pid in the namespaces of a level; there may be several of a level. */
static int read_number(const struct uring_reader *reader, uint64_t id, uint32_t level, pid_t *number,
		       uint64_t *namespace)
{
	uint64_t at = id + reader->offsets[ID_NUMBERS] + (uint64_t)level * reader->number_size;
	int result = uring_read_at(reader, at, NUMBER_ID, number, sizeof(*number));

	return result ?: uring_read_address(reader, at, NUMBER_NAMESPACE, namespace);
}

int uring_find_namespace(struct uring_reader *reader, uint64_t self)
{
	pid_t number = 0;
	uint64_t id;
	int result = uring_read_address(reader, self, TASK_ID, &id) ?:
			     uring_read_at(reader, id, ID_LEVEL, &reader->level, sizeof(reader->level));

	if (!result)
		result = read_number(reader, id, reader->level, &number, &reader->namespace);
	return result || number == gettid() ? result : uring_cannot_read(-EINVAL);
}

/* 0: it has ended, or is not in criu's namespace. */
static int read_id(const struct uring_reader *reader, uint64_t task, pid_t *number)
{
	uint64_t id, namespace = 0;
	uint32_t level = 0;
	int result = uring_read_address(reader, task, TASK_ID, &id);

	*number = 0;
	if (result || !id)
		return result;
	result = uring_read_at(reader, id, ID_LEVEL, &level, sizeof(level));
	if (!result && level >= reader->level)
		result = read_number(reader, id, reader->level, number, &namespace);
	if (namespace != reader->namespace)
		*number = 0;
	return result;
}

int uring_read_ids(const struct uring_reader *reader, uint64_t task, pid_t *thread, pid_t *process)
{
	uint64_t leader;
	int result = read_id(reader, task, thread) ?: uring_read_address(reader, task, TASK_LEADER, &leader);

	return result ?: read_id(reader, leader, process);
}

/* ---- the ring ---- */

const struct kernel_files *uring_files(const struct uring_reader *reader)
{
	return &reader->files;
}

static int has_feature(const struct uring_reader *reader, uint64_t ring, size_t which, bool *has_it)
{
	const struct feature *feature = &uring_features[which];
	const struct btf_place *place = &reader->features[which];
	uint64_t address = ring + place->offset, value = 0;
	int result = peek_read(&reader->peek, address, &value, place->bits ? 1 : feature->size);

	if (place->bits)
		value = value >> place->bit & 1;
	*has_it = value != (feature->shape == HAS_ENTRIES ? address : feature->shape == IS_NOT_ONE);
	return result ? uring_cannot_read(result) : 0;
}

static int read_features(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	int result = 0;

	for (size_t i = 0; !result && i < URING_FEATURES; i++) {
		const char **words = uring_features[i].use == WAITING || uring_features[i].use == LISTED ?
					     &facts->waiting :
					     &facts->extra;
		bool has_it = false;

		if (reader->has_feature[i])
			result = has_feature(reader, ring, i, &has_it);
		if (has_it && !*words)
			*words = uring_features[i].words;
	}
	return result;
}

static int read_slots(const struct uring_reader *reader, uint64_t task, uint64_t slots[RING_SLOTS])
{
	uint64_t uring;
	int result = uring_read_address(reader, task, TASK_URING, &uring);

	memset(slots, 0, RING_SLOTS * sizeof(*slots));
	if (!result && uring)
		result = uring_read_at(reader, uring, URING_RINGS, slots, RING_SLOTS * sizeof(*slots));
	return result;
}

static int has_registered_rings(const struct uring_reader *reader, uint64_t task, bool *has_some)
{
	uint64_t slots[RING_SLOTS];
	int result = read_slots(reader, task, slots);

	for (size_t i = 0; i < RING_SLOTS; i++)
		*has_some |= slots[i] != 0;
	return result;
}

static int note_user(const struct uring_reader *reader, uint64_t task, struct uring_facts *facts)
{
	size_t number = facts->user_count;

	if (number >= URING_USERS)
		return 0;
	facts->user_count++;
	return uring_read_ids(reader, task, &facts->users[number].thread, &facts->users[number].process);
}

/* All threads that have used this ring and not ended since. */
static int read_users(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	uint64_t head = ring + reader->offsets[USERS], at, task;
	bool has_rings = false;
	size_t count = 0;
	int result = uring_read_address(reader, ring, USERS, &at);

	for (; !result && at != head && count < MOST_TASKS; count++) {
		uint64_t user = at - reader->offsets[USER_NEXT];

		result = uring_read_address(reader, user, USER_TASK, &task) ?:
				 has_registered_rings(reader, task, &has_rings);
		if (!result)
			result = note_user(reader, task, facts);
		if (!result)
			result = uring_read_address(reader, user, USER_NEXT, &at);
	}
	if (!result && at != head)
		return fail(EBUSY, "an io_uring is used by too many threads");
	facts->has_slots = has_rings;
	return result;
}

static int add_slots(const struct uring_reader *reader, uint64_t task, struct uring_slots *slots)
{
	uint64_t files[RING_SLOTS];
	pid_t thread, process;
	int result = read_slots(reader, task, files) ?: uring_read_ids(reader, task, &thread, &process);

	for (uint32_t i = 0; !result && i < RING_SLOTS; i++)
		if (files[i])
			*grow(&slots->items, &slots->count) = (struct uring_slot){ thread, process, i,
										   files[i] & ~FILE_BITS };
	return result;
}

int uring_read_slots(const struct uring_reader *reader, const struct uring_facts *facts,
		     struct uring_slots *slots)
{
	uint64_t head = facts->ring + reader->offsets[USERS], at, task;
	int result = uring_read_address(reader, facts->ring, USERS, &at);

	*slots = (struct uring_slots){ 0 };
	for (size_t count = 0; !result && at != head && count < MOST_TASKS; count++) {
		uint64_t user = at - reader->offsets[USER_NEXT];

		result = uring_read_address(reader, user, USER_TASK, &task) ?: add_slots(reader, task, slots);
		if (!result)
			result = uring_read_address(reader, user, USER_NEXT, &at);
	}
	return result;
}

/*
 * The kernel counts references on each CPU; the sum matters. While a ring is being closed, or was registered for in an
 * old way, it has another count, and the address has its lowest bits set.
 */
static int sum_references(const struct uring_reader *reader, uint64_t ring, uint32_t *sum)
{
	uint64_t address, total = 0, count;
	int result = uring_read_address(reader, ring, REFERENCES, &address);

	if (!result && address & 3)
		return fail(EBUSY, "an io_uring is being changed");
	for (size_t i = 0; !result && i < reader->cpu_count; i++, total += count)
		if (peek_read(&reader->peek, address + reader->distances[i], &count, sizeof(count)))
			return uring_cannot_read(-EFAULT);
	*sum = (uint32_t)total;
	return result;
}

static int read_allocated(const struct uring_reader *reader, uint64_t ring, uint32_t *allocated)
{
	return reader->has_count ? uring_read_at(reader, ring, ALLOCATED, allocated, sizeof(*allocated)) :
				   sum_references(reader, ring, allocated);
}

/* Adds the length of a list of free requests. 0; 1: it has changed meanwhile; or -errno. */
static int count_free(const struct uring_reader *reader, uint64_t ring, enum place list, uint32_t *count)
{
	uint64_t first, next, again;
	int result = uring_read_address(reader, ring, list, &first);

	/* Not recorded: a worker may take the request away meanwhile. */
	for (next = first; !result && next; ++*count)
		if (*count > MOST_REQUESTS || peek_read(&reader->peek, next, &next, sizeof(next)))
			return 1;
	result = result ?: uring_read_address(reader, ring, list, &again);
	return !result && first != again ? 1 : result;
}

/* The same. */
static int count_once(const struct uring_reader *reader, uint64_t ring, uint32_t *in_flight)
{
	uint32_t allocated, again, free = 0;
	int result = read_allocated(reader, ring, &allocated);

	if (!result)
		result = count_free(reader, ring, FREE, &free);
	if (!result && reader->has_list)
		result = count_free(reader, ring, FREE_TOO, &free);
	if (!result)
		result = read_allocated(reader, ring, &again);
	if (!result && (free > allocated || allocated != again))
		return 1;
	*in_flight = allocated - free;
	return result;
}

static int count_requests(const struct uring_reader *reader, uint64_t ring, uint32_t *in_flight)
{
	int result = 1;

	for (int attempt = 0; result == 1 && attempt < ATTEMPTS; attempt++)
		result = count_once(reader, ring, in_flight);
	return result == 1 ? fail(EBUSY, "the requests of an io_uring cannot be counted") : result;
}

static int read_submitter(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	uint64_t task;
	int result = uring_read_address(reader, ring, SUBMITTER, &task);

	if (result || !task)
		return result;
	return uring_read_ids(reader, task, &facts->submitter, &facts->submitter_process);
}

/* ---- what is registered ---- */

int uring_read_slot(const struct uring_reader *reader, const struct uring_facts *facts, uint32_t slot,
		    uint64_t *file)
{
	uint64_t node, tag = 0;

	*file = 0;
	if (peek_read(&reader->peek, facts->files + 8 * (uint64_t)slot, &node, sizeof(node)))
		return uring_cannot_read(-EFAULT);
	if (!node)
		return 0;
	if (uring_read_address(reader, node, NODE_TAG, &tag) ||
	    uring_read_address(reader, node, NODE_FILE, file))
		return -EFAULT;
	*file &= ~FILE_BITS;
	return tag ? -ENOTSUP : 0;
}

static int read_registered(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	uint32_t start, end, is_async = 0;
	uint64_t event = 0;
	int result = uring_read_at(reader, ring, FILE_COUNT, &facts->file_count, sizeof(facts->file_count)) ?:
			     uring_read_address(reader, ring, FILE_NODES, &facts->files);

	if (!result)
		result = uring_read_at(reader, ring, RANGE_START, &start, sizeof(start)) ?:
				 uring_read_at(reader, ring, RANGE_END, &end, sizeof(end));
	if (!result && facts->file_count && (start || end != facts->file_count) && !facts->extra)
		facts->extra = "a range of registered files (IORING_REGISTER_FILE_ALLOC_RANGE)";
	if (!result)
		result = uring_read_address(reader, ring, EVENT, &event);
	if (!result && event)
		result = uring_read_address(reader, event, EVENT_FILE, &facts->eventfd) ?:
				 uring_read_at(reader, event, EVENT_ASYNC, &is_async, sizeof(is_async));
	facts->eventfd_is_async = is_async & 1;
	return result;
}

/* ---- all facts ---- */

static const struct {
	enum place place;
	size_t offset;
} numbers[] = {
	{ FLAGS, offsetof(struct uring_facts, flags) },
	{ SQ_HEAD, offsetof(struct uring_facts, sq_head) },
	{ SQ_ENTRIES, offsetof(struct uring_facts, sq_entries) },
	{ CQ_TAIL, offsetof(struct uring_facts, cq_tail) },
	{ CQ_ENTRIES, offsetof(struct uring_facts, cq_entries) },
};

static int read_numbers(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
{
	int result = 0;

	for (size_t i = 0; !result && i < array_size(numbers); i++)
		result = uring_read_at(reader, ring, numbers[i].place, (char *)facts + numbers[i].offset,
				       sizeof(uint32_t));
	return result;
}

/* The requests are counted first: what is read afterwards does not change if there are none. */
int uring_read(const struct uring_reader *reader, int fd, struct uring_facts *facts)
{
	uint64_t ring, checks, file;
	int result = kernel_files_find(&reader->files, fd, &file, &ring);

	*facts = (struct uring_facts){ .ring = ring };
	if (!result)
		result = count_requests(reader, ring, &facts->in_flight);
	if (!result)
		result = read_numbers(reader, ring, facts) ?: read_features(reader, ring, facts);
	if (!result)
		result = read_submitter(reader, ring, facts) ?: read_users(reader, ring, facts);
	if (!result && reader->has_registered)
		result = read_registered(reader, ring, facts);
	if (!result && reader->has_buffers)
		result = uring_find_buffers(reader, ring, facts);
	if (!result && reader->has_thread)
		result = uring_read_thread(reader, ring, facts);
	if (!result)
		result = uring_read_at(reader, ring, CHECKS, &checks, sizeof(checks));
	if (!result && checks && !facts->extra)
		facts->extra = "completions for which its queue had no space";
	return result;
}
