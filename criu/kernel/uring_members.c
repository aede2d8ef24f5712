/*
 * uring_members.c - where the members of the kernel's structs of an io_uring are. See uring.h.
 *
 * The kernel's type information tells it, so any kernel will do that has the members in the tables below; a kernel that
 * lacks one that is needed is refused. What is read is compared with what fdinfo shows (files/kinds/io_uring.c).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/cpus.h"
#include "kernel/uring_reader.h"

static const struct kernel_member places[ALL_PLACES] = {
	[FLAGS] = { "io_ring_ctx", "flags" },
	[SQ_HEAD] = { "io_ring_ctx", "cached_sq_head" },
	[SQ_ENTRIES] = { "io_ring_ctx", "sq_entries" },
	[CQ_TAIL] = { "io_ring_ctx", "cached_cq_tail" },
	[CQ_ENTRIES] = { "io_ring_ctx", "cq_entries" },
	[SUBMITTER] = { "io_ring_ctx", "submitter_task" },
	[ALLOCATED] = { "io_ring_ctx", "nr_req_allocated" },
	[FREE] = { "io_ring_ctx", "submit_state.free_list.next" },
	[USERS] = { "io_ring_ctx", "tctx_list" },
	[CHECKS] = { "io_ring_ctx", "check_cq" },
	[USER_NEXT] = { "io_tctx_node", "ctx_node" },
	[USER_TASK] = { "io_tctx_node", "task" },
	[TASK_ID] = { "task_struct", "thread_pid" },
	[TASK_LEADER] = { "task_struct", "group_leader" },
	[ID_LEVEL] = { "pid", "level" },
	[ID_NUMBERS] = { "pid", "numbers" },
	[NUMBER_ID] = { "upid", "nr" },
	[NUMBER_NAMESPACE] = { "upid", "ns" },
	[TASK_URING] = { "task_struct", "io_uring" },
	[URING_RINGS] = { "io_uring_task", "registered_rings" },
	[FILE_COUNT] = { "io_ring_ctx", "file_table.data.nr" },
	[FILE_NODES] = { "io_ring_ctx", "file_table.data.nodes" },
	[NODE_TAG] = { "io_rsrc_node", "tag" },
	[NODE_FILE] = { "io_rsrc_node", "file_ptr" },
	[RANGE_START] = { "io_ring_ctx", "file_alloc_start" },
	[RANGE_END] = { "io_ring_ctx", "file_alloc_end" },
	[EVENT] = { "io_ring_ctx", "io_ev_fd" },
	[EVENT_FILE] = { "io_ev_fd", "cq_ev_fd" },
	[EVENT_ASYNC] = { "io_ev_fd", "eventfd_async" },
	[BUFFER_COUNT] = { "io_ring_ctx", "buf_table.nr" }, /* Linux 6.13 */
	[BUFFER_NODES] = { "io_ring_ctx", "buf_table.nodes" },
	[NODE_BUFFER] = { "io_rsrc_node", "buf" },
	[BUFFER_ADDRESS] = { "io_mapped_ubuf", "ubuf" },
	[BUFFER_LENGTH] = { "io_mapped_ubuf", "len" },
	[BUFFER_PIECES] = { "io_mapped_ubuf", "nr_bvecs" },
	[BUFFER_LIST] = { "io_mapped_ubuf", "bvec" },
	[PIECE_PAGE] = { "bio_vec", "bv_page" },
	[PIECE_LENGTH] = { "bio_vec", "bv_len" },
	[PIECE_OFFSET] = { "bio_vec", "bv_offset" },
	[THREAD_DATA] = { "io_ring_ctx", "sq_data" },
	[THREAD_IDLE] = { "io_ring_ctx", "sq_thread_idle" },
	[THREAD_CPU] = { "io_sq_data", "sq_cpu" },
	[THREAD_TASK] = { "io_sq_data", "thread" },
	[RINGS] = { "io_ring_ctx", "rings" },
	[RINGS_SQ_TAIL] = { "io_rings", "sq.tail" },
	[THREAD_RIGHTS] = { "io_ring_ctx", "sq_creds" },
	[RIGHTS_REAL_UID] = { "cred", "uid" },
	[RIGHTS_SAVED_UID] = { "cred", "suid" },
	[RIGHTS_REAL_GID] = { "cred", "gid" },
	[RIGHTS_SAVED_GID] = { "cred", "sgid" },
	[RIGHTS_PERMITTED] = { "cred", "cap_permitted" },
	[RIGHTS_UID] = { "cred", "euid" },
	[RIGHTS_FSUID] = { "cred", "fsuid" },
	[RIGHTS_GID] = { "cred", "egid" },
	[RIGHTS_FSGID] = { "cred", "fsgid" },
	[RIGHTS_CAPABILITIES] = { "cred", "cap_effective" },
	[RIGHTS_GROUPS] = { "cred", "group_info" },
	[GROUPS_COUNT] = { "group_info", "ngroups" },
	[GROUPS_IDS] = { "group_info", "gid" },
	[POLLED] = { "io_ring_ctx", "cancel_table.hbs" },
	[POLLED_BITS] = { "io_ring_ctx", "cancel_table.hash_bits" },
	[BUCKET_LIST] = { "io_hash_bucket", "list.first" },
	[TIMEOUTS] = { "io_ring_ctx", "timeout_list" },
	[COUNTED_OUT] = { "io_ring_ctx", "cq_timeouts" },
	[REQUEST_NODE] = { "io_kiocb", "hash_node" },
	[REQUEST_OPCODE] = { "io_kiocb", "opcode" },
	[REQUEST_FLAGS] = { "io_kiocb", "flags" },
	[REQUEST_DATA] = { "io_kiocb", "cqe.user_data" },
	[REQUEST_FD] = { "io_kiocb", "cqe.fd" },
	[REQUEST_FILE] = { "io_kiocb", "file" },
	[REQUEST_USER] = { "io_kiocb", "tctx" }, /* Linux 6.13 */
	[REQUEST_LINK] = { "io_kiocb", "link" },
	[REQUEST_ASYNC] = { "io_kiocb", "async_data" },
	[REQUEST_EVENTS] = { "io_kiocb", "poll_refs" },
	[REQUEST_RIGHTS] = { "io_kiocb", "creds" },
	[TASK_RIGHTS] = { "task_struct", "cred" },
	[USER_OF_REQUEST] = { "io_uring_task", "task" },
	[POLL_EVENTS] = { "io_poll", "events" },
	[TRANSFER_POSITION] = { "io_rw", "kiocb.ki_pos" },
	[TRANSFER_ADDRESS] = { "io_rw", "addr" },
	[TRANSFER_LENGTH] = { "io_rw", "len" },
	[TRANSFER_FLAGS] = { "io_rw", "flags" },
	[TRANSFER_DONE] = { "io_async_rw", "bytes_done" },
	[MESSAGE_ADDRESS] = { "io_sr_msg", "buf" },
	[MESSAGE_LENGTH] = { "io_sr_msg", "len" },
	[MESSAGE_DONE] = { "io_sr_msg", "done_io" },
	[MESSAGE_FLAGS] = { "io_sr_msg", "msg_flags" },
	[MESSAGE_HOW] = { "io_sr_msg", "flags" },
	[ACCEPT_ADDRESS] = { "io_accept", "addr" },
	[ACCEPT_LENGTH] = { "io_accept", "addr_len" },
	[ACCEPT_FLAGS] = { "io_accept", "flags" },
	[ACCEPT_HOW] = { "io_accept", "iou_flags" },
	[ACCEPT_SLOT] = { "io_accept", "file_slot" },
	[TIMEOUT_NODE] = { "io_timeout", "list" },
	[TIMEOUT_COUNT] = { "io_timeout", "off" },
	[TIMEOUT_TARGET] = { "io_timeout", "target_seq" },
	[TIMER_EXPIRES] = { "io_timeout_data", "timer.node.expires" },
	[TIMER_FLAGS] = { "io_timeout_data", "flags" },
	[REFERENCES] = { "io_ring_ctx", "refs.percpu_count_ptr" },
	[FREE_TOO] = { "io_ring_ctx", "locked_free_list.first" },
};

/* What a ring may have beside its two queues. Features that this kernel does not have are left out. */
const struct feature uring_features[] = {
	{ "timeout_list", HAS_ENTRIES, 8, LISTED, "a timeout" },
	{ "futex_list", IS_SET, 8, WAITING, "a futex" },
	{ "waitid_list", IS_SET, 8, WAITING, "the end of a process" },
	{ "cancelable_uring_cmd", IS_SET, 8, WAITING, "a driver" },
	{ "defer_list", HAS_ENTRIES, 8, WAITING, "other requests (IOSQE_IO_DRAIN)" },
	{ "cq_overflow_list", HAS_ENTRIES, 8, BESIDE, "completions for which its queue had no space" },
	{ "restricted", IS_SET, 1, BESIDE, "restrictions" },
	{ "restrictions.registered", IS_SET, 1, BESIDE, "restrictions" },
	{ "compat", IS_SET, 1, BESIDE, "a 32-bit program" },
	{ "iowq_limits_set", IS_SET, 1, BESIDE, "limits on worker threads" },
	{ "io_ev_fd", IS_SET, 8, REGISTERED, "a registered eventfd" },
	{ "file_table.data.nr", IS_SET, 4, REGISTERED, "registered files" }, /* Linux 6.13 */
	{ "nr_user_files", IS_SET, 4, BESIDE, "registered files" },
	{ "buf_table.nr", IS_SET, 4, BUFFERS, "registered buffers" },
	{ "nr_user_bufs", IS_SET, 4, BESIDE, "registered buffers" },
	{ "io_bl", IS_SET, 8, BESIDE, "provided buffers" }, /* until 6.8 */
	{ "io_bl_xa.xa_head", IS_SET, 8, BESIDE, "provided buffers" },
	{ "zcrx_ctxs.xa_head", IS_SET, 8, BESIDE, "queues of a network device" },
	{ "personalities.xa_head", IS_SET, 8, BESIDE, "registered credentials" },
	{ "cq_wait_arg", IS_SET, 8, BESIDE, "registered memory for waiting" },
	{ "param_region.pages", IS_SET, 8, BESIDE, "registered memory for waiting" },
	{ "clockid", IS_NOT_ONE, 4, BESIDE, "another clock than CLOCK_MONOTONIC" },
	{ "napi_busy_poll_dt", IS_SET, 8, BESIDE, "busy polling (NAPI)" },
	{ "napi_list", HAS_ENTRIES, 8, BESIDE, "busy polling (NAPI)" },
};

static bool find_place(struct uring_reader *reader, const struct btf *btf, enum place which)
{
	return btf_find_offset(btf, places[which].type, places[which].path, &reader->offsets[which]);
}

static bool find_places(struct uring_reader *reader, const struct btf *btf, enum place from, enum place end)
{
	bool has_all = true;

	for (size_t i = from; i < end; i++)
		has_all &= find_place(reader, btf, i);
	return has_all;
}

static int find_cpus(struct uring_reader *reader, const struct btf *btf)
{
	uint32_t variable = btf_find_variable(btf, "this_cpu_off");
	autofree char *list = NULL;
	struct cpus *cpus = allocate(sizeof(*cpus));
	int result = 0;

	if (!variable || !find_place(reader, btf, REFERENCES) ||
	    read_text_at(AT_FDCWD, "/sys/devices/system/cpu/possible", &list) < 0 || !cpus_parse(list, cpus))
		result = fail(EOPNOTSUPP,
			      "this kernel does not tell which requests of an io_uring are in flight");
	result = result ?: peek_prepare_cpus(&reader->peek, variable);
	for (unsigned cpu = 0; !result && cpu < MOST_CPUS; cpu++) {
		if (!(cpus->bits[cpu / 8] >> cpu % 8 & 1))
			continue;
		result = peek_cpu(&reader->peek, cpu, grow(&reader->distances, &reader->cpu_count));
		if (result)
			fail(-result, "cannot read what the kernel knows of CPU %u", cpu);
	}
	free(cpus);
	return result;
}

static const char *const request_bits[REQUEST_BITS] = {
	[BIT_FAIL] = "REQ_F_FAIL_BIT",	       [BIT_AT_POSITION] = "REQ_F_CUR_POS_BIT",
	[BIT_POLLED] = "REQ_F_POLLED_BIT",     [BIT_HAS_BUFFER] = "REQ_F_BUFFER_SELECTED_BIT",
	[BIT_CREDENTIALS] = "REQ_F_CREDS_BIT", [BIT_ASYNC_DATA] = "REQ_F_ASYNC_DATA_BIT",
};

static bool find_requests(struct uring_reader *reader, const struct btf *btf)
{
	bool has_all = find_places(reader, btf, FIRST_OF_REQUESTS, ALL_PLACES);

	for (size_t i = 0; i < REQUEST_BITS; i++) {
		uint32_t bit = 0;

		has_all &= btf_find_enumerator(btf, request_bits[i], &bit) && bit < 32;
		reader->bits[i] = 1ULL << (bit & 31);
	}
	reader->bucket_size = btf_size(btf, "io_hash_bucket");
	return has_all && reader->bucket_size;
}

static bool find_buffers(struct uring_reader *reader, const struct btf *btf)
{
	reader->piece_size = btf_size(btf, "bio_vec");
	reader->page_structs.size = btf_size(btf, "page");
	return find_places(reader, btf, FIRST_OF_BUFFERS, FIRST_OF_THREAD) && reader->piece_size &&
	       reader->page_structs.size;
}

static int find_members(struct uring_reader *reader, const struct btf *btf)
{
	int result = btf_find_members(btf, places, PLACE_COUNT, reader->offsets, "io_uring");

	if (result)
		return result;
	reader->number_size = btf_size(btf, "upid");
	reader->has_registered = find_places(reader, btf, FIRST_REGISTERED, FIRST_OF_BUFFERS);
	reader->has_buffers = reader->has_registered && find_buffers(reader, btf);
	reader->has_thread = find_places(reader, btf, FIRST_OF_THREAD, FIRST_OF_REQUESTS);
	reader->has_requests = find_requests(reader, btf);
	for (size_t i = 0; i < URING_FEATURES; i++)
		reader->has_feature[i] = !(uring_features[i].use == REGISTERED && reader->has_registered) &&
					 !(uring_features[i].use == BUFFERS && reader->has_buffers) &&
					 !(uring_features[i].use == LISTED && reader->has_requests) &&
					 btf_find(btf, "io_ring_ctx", uring_features[i].member,
						  &reader->features[i]);
	reader->has_count = find_place(reader, btf, ALLOCATED);
	reader->has_list = find_place(reader, btf, FREE_TOO);
	return reader->has_count ? 0 : find_cpus(reader, btf);
}

int uring_reader_open(struct uring_reader **reader)
{
	struct uring_reader *made = allocate(sizeof(*made));
	struct btf *btf = NULL;
	int result = peek_open(&made->peek) ?: btf_load(&btf) ?: find_members(made, btf);

	result = result							   ?:
			 kernel_files_open(&made->files, &made->peek, btf) ?:
			 uring_find_namespace(made, peek_self(&made->peek));
	btf_free(btf);
	if (result)
		uring_reader_close(steal_pointer(&made));
	*reader = made;
	return result;
}

void uring_reader_close(struct uring_reader *reader)
{
	if (!reader)
		return;
	peek_close(&reader->peek);
	free(reader->distances);
	free(reader);
}
