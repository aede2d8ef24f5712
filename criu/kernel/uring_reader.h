/*
 * uring_reader.h - for the sources that read what the kernel keeps of an io_uring (uring.h): where its members are.
 */
#ifndef CRIU_KERNEL_URING_READER_H
#define CRIU_KERNEL_URING_READER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "compiler.h"
#include "kernel/btf.h"
#include "kernel/kernel_files.h"
#include "kernel/peek.h"
#include "kernel/uring.h"

enum place {
	FLAGS,
	SQ_HEAD,
	SQ_ENTRIES,
	CQ_TAIL,
	CQ_ENTRIES,
	SUBMITTER,
	FREE,
	USERS,
	CHECKS,
	USER_NEXT,
	USER_TASK,
	TASK_ID,
	TASK_LEADER,
	ID_LEVEL,
	ID_NUMBERS,
	NUMBER_ID,
	NUMBER_NAMESPACE,
	TASK_URING,
	URING_RINGS,
	PLACE_COUNT,
	/* one or the other, depending on the kernel */
	ALLOCATED = PLACE_COUNT,
	REFERENCES,
	FREE_TOO,
	/* all of them, or what is registered is refused */
	FIRST_REGISTERED,
	FILE_COUNT = FIRST_REGISTERED,
	FILE_NODES,
	NODE_TAG,
	NODE_FILE,
	RANGE_START,
	RANGE_END,
	EVENT,
	EVENT_FILE,
	EVENT_ASYNC,
	/* all of them, or registered buffers are refused */
	FIRST_OF_BUFFERS,
	BUFFER_COUNT = FIRST_OF_BUFFERS,
	BUFFER_NODES,
	NODE_BUFFER,
	BUFFER_ADDRESS,
	BUFFER_LENGTH,
	BUFFER_PIECES, /* how many there are … */
	BUFFER_LIST,   /* … and they, one behind the other */
	PIECE_PAGE,
	PIECE_LENGTH,
	PIECE_OFFSET,
	/* all of them, or a ring with a thread of the kernel is refused */
	FIRST_OF_THREAD,
	THREAD_DATA = FIRST_OF_THREAD,
	THREAD_IDLE,
	THREAD_CPU,
	THREAD_TASK,
	RINGS,
	RINGS_SQ_TAIL,
	THREAD_RIGHTS,
	RIGHTS_REAL_UID,
	RIGHTS_SAVED_UID,
	RIGHTS_REAL_GID,
	RIGHTS_SAVED_GID,
	RIGHTS_PERMITTED,
	RIGHTS_UID,
	RIGHTS_FSUID,
	RIGHTS_GID,
	RIGHTS_FSGID,
	RIGHTS_CAPABILITIES,
	RIGHTS_GROUPS,
	GROUPS_COUNT,
	GROUPS_IDS,
	/* all of them, or requests that wait are refused */
	FIRST_OF_REQUESTS,
	POLLED = FIRST_OF_REQUESTS, /* a table of lists */
	POLLED_BITS,
	BUCKET_LIST,
	TIMEOUTS,
	COUNTED_OUT,
	REQUEST_NODE,
	REQUEST_OPCODE,
	REQUEST_FLAGS,
	REQUEST_DATA,
	REQUEST_FD,
	REQUEST_FILE,
	REQUEST_USER,
	REQUEST_LINK,
	REQUEST_ASYNC,
	REQUEST_EVENTS,
	REQUEST_RIGHTS,
	TASK_RIGHTS,
	USER_OF_REQUEST,
	POLL_EVENTS,
	TRANSFER_POSITION,
	TRANSFER_ADDRESS,
	TRANSFER_LENGTH,
	TRANSFER_FLAGS,
	TRANSFER_DONE,
	MESSAGE_ADDRESS,
	MESSAGE_LENGTH,
	MESSAGE_DONE,
	MESSAGE_FLAGS,
	MESSAGE_HOW,
	ACCEPT_ADDRESS,
	ACCEPT_LENGTH,
	ACCEPT_FLAGS,
	ACCEPT_HOW,
	ACCEPT_SLOT,
	TIMEOUT_NODE,
	TIMEOUT_COUNT,
	TIMEOUT_TARGET,
	TIMER_EXPIRES,
	TIMER_FLAGS,
	ALL_PLACES,
};

enum feature_use {
	BESIDE,	 /* criu does not save it */
	WAITING, /* requests are waiting */
	LISTED,	 /* the same, but uring_read_requests() lists them, if this kernel has the members for that */
	REGISTERED, /* read_registered() reads it, if this kernel has the members for that */
	BUFFERS,    /* uring_find_buffers(), likewise */
};

enum shape {
	IS_SET,	     /* a number or an address that is not 0 */
	IS_NOT_ONE,  /* a number */
	HAS_ENTRIES, /* the head of a list */
};

/* What a ring may have beside its two queues. Features that this kernel does not have are left out. */
struct feature {
	const char *member;
	enum shape shape;
	uint32_t size; /* unless it is a bit: some of the flags are, depending on the kernel */
	enum feature_use use;
	const char *words;
};

#define URING_FEATURES 24
extern const struct feature uring_features[URING_FEATURES];

/* Bits of the flags of a request that are not those of IOSQE_*. */
enum request_bit {
	BIT_FAIL,
	BIT_AT_POSITION, /* of the file */
	BIT_POLLED,
	BIT_HAS_BUFFER,
	BIT_CREDENTIALS,
	BIT_ASYNC_DATA,
	REQUEST_BITS,
};

/* The kernel's structs of all pages are an array (CONFIG_SPARSEMEM_VMEMMAP); page 0 may not exist. */
struct page_structs {
	uint64_t first; /* the address of that of page 0; 0: not known yet */
	uint32_t size;
};

struct uring_reader {
	struct peek peek;
	uint32_t offsets[ALL_PLACES];
	bool has_count, has_list; /* ALLOCATED, FREE_TOO */
	bool has_registered;	  /* FIRST_REGISTERED and all until FIRST_OF_BUFFERS */
	bool has_buffers;	  /* FIRST_OF_BUFFERS and all until FIRST_OF_THREAD, and these: */
	uint32_t piece_size;
	struct page_structs page_structs;
	bool has_thread;   /* FIRST_OF_THREAD and all until FIRST_OF_REQUESTS */
	bool has_requests; /* FIRST_OF_REQUESTS and all behind it, and these: */
	uint32_t bucket_size;
	uint64_t bits[REQUEST_BITS];
	uint64_t *distances; /* of the variables of each CPU, without `has_count` */
	size_t cpu_count;
	struct btf_place features[URING_FEATURES];
	bool has_feature[URING_FEATURES];
	struct kernel_files files;
	uint32_t level;	    /* of criu's pid namespace … */
	uint64_t namespace; /* … which is this one */
	uint32_t number_size;
};

/* ---- uring.c: all fail with -errno, recorded ---- */

int uring_cannot_read(int error) must_check;
int uring_read_at(const struct uring_reader *reader, uint64_t struct_at, enum place place, void *value,
		  uint32_t size) must_check;
int uring_read_address(const struct uring_reader *reader, uint64_t struct_at, enum place place,
		       uint64_t *address) must_check;

/* Ids of a struct task_struct and of its process in criu's pid namespace; 0: it is not in there. */
int uring_read_ids(const struct uring_reader *reader, uint64_t task, pid_t *thread, pid_t *process)
	must_check;
/* Finds criu itself. */
int uring_find_namespace(struct uring_reader *reader, uint64_t self) must_check;

/* ---- uring_buffers.c ---- */

/* How many there are, and where. */
int uring_find_buffers(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts)
	must_check;

/* ---- uring_thread.c ---- */

int uring_read_thread(const struct uring_reader *reader, uint64_t ring, struct uring_facts *facts) must_check;

#endif
