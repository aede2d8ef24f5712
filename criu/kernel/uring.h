/*
 * uring.h - what only the kernel knows of an io_uring: how it was set up, how far it has got, and whether any request
 * is in flight.
 *
 * No call and no line of fdinfo tells this, and no request of criu's own could find it out: it would move the position
 * from which the kernel takes the next one, and nothing moves that back. So criu reads the kernel's struct io_ring_ctx.
 */
#ifndef CRIU_KERNEL_URING_H
#define CRIU_KERNEL_URING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

#define URING_USERS 16

struct uring_facts {
	uint64_t ring;	/* struct io_ring_ctx: the kernel's address */
	uint32_t flags; /* IORING_SETUP_* */
	uint32_t sq_entries, cq_entries;
	uint32_t sq_head, cq_tail; /* where the kernel takes the next request, and puts the next completion */
	uint32_t in_flight;	   /* requests */
	const char *waiting;	   /* some of them wait for this, perhaps for ever; NULL: none is known to */
	const char *extra;	   /* something about it that criu cannot save, in words; NULL: nothing */
	/* Some of the threads that have used it, and not ended since: ids in criu's pid namespace. */
	struct {
		pid_t thread, process;
	} users[URING_USERS];
	size_t user_count;
	bool has_slots; /* a thread that has used it has registered descriptors of rings */
	/* registered; the addresses are the kernel's */
	uint32_t file_count; /* slots; some may be empty */
	uint64_t files;
	uint32_t buffer_count; /* slots, likewise */
	uint64_t buffers;
	uint64_t eventfd; /* 0: none */
	bool eventfd_is_async;
	/* IORING_SETUP_SINGLE_ISSUER: the thread that may submit, with its ids in criu's pid namespace; 0: none */
	pid_t submitter, submitter_process;
	/*
	 * IORING_SETUP_SQPOLL: the thread of the kernel that takes requests, and the process that it belongs to,
	 * likewise. 0: none, or this kernel does not tell.
	 */
	pid_t thread, owner;
	uint32_t sq_tail; /* how far requests are published for it */
	uint32_t idle;	  /* jiffies until it sleeps */
	uint32_t cpu;
};

/* What the thread of the kernel may do: the credentials of whoever has made the ring. */
struct uring_rights {
	uid_t real_uid, uid, saved_uid, fsuid; /* `uid` is the effective one */
	gid_t real_gid, gid, saved_gid, fsgid;
	uint64_t capabilities, permitted; /* effective ones, and more */
	gid_t *groups;
	size_t group_count; /* before: for how many there is room; then there may be more, which are not read */
};

/* A request as it would be submitted again; members as those of struct io_uring_sqe. */
struct uring_request {
	uint64_t at; /* struct io_kiocb: the kernel's address */
	uint8_t opcode, flags;
	uint16_t how; /* ioprio */
	int32_t fd; /* as it was submitted: perhaps another file has it now; or a slot of the registered files */
	uint64_t file; /* struct file: the kernel's address; 0: none */
	uint64_t offset, address, user_data;
	uint32_t length, operation_flags, slot;
	int64_t time;	       /* nanoseconds; see `operation_flags` */
	pid_t thread, process; /* that have submitted it: ids in criu's pid namespace */
	bool is_ready;	       /* its file has become ready, and the thread will go on with it */
};

struct uring_requests {
	struct uring_request *items;
	size_t count;
};

/* A descriptor of a ring that a thread has registered (IORING_REGISTER_RING_FDS). */
struct uring_slot {
	pid_t thread, process; /* ids in criu's pid namespace */
	uint32_t slot;
	uint64_t file; /* struct file: the kernel's address */
};

struct uring_slots {
	struct uring_slot *items;
	size_t count;
};

/* Memory of a process that is registered with a ring. The kernel keeps its pages, also if they are no longer mapped. */
struct uring_buffer {
	uint64_t at; /* struct io_mapped_ubuf: the kernel's address; 0: the slot is empty */
	uint64_t address, length;
	uint32_t pieces; /* consecutive pages */
	bool is_shared;	 /* for uring_has_pages(): the process has only shared memory there */
};

struct kernel_files;
struct uring_reader;

/* 0 or -errno, recorded: it needs root's capabilities, and a kernel that it knows. */
int uring_reader_open(struct uring_reader **reader) must_check;
void uring_reader_close(struct uring_reader *reader);
/* `fd` is criu's own. The facts are of one moment; they stay true if no request is in flight, and none is submitted. */
int uring_read(const struct uring_reader *reader, int fd, struct uring_facts *facts) must_check;
/*
 * The requests in flight that wait until a file is ready, or for a time. *problem is what one of them is that criu
 * cannot make again, in words; NULL: all can be. If there are fewer than in flight, the others do something else, or
 * this kernel does not tell. uring_requests_free() also after a failure.
 */
int uring_read_requests(const struct uring_reader *reader, const struct uring_facts *facts,
			struct uring_requests *requests, const char **problem) must_check;
/* Does this kernel tell? */
bool uring_lists_requests(const struct uring_reader *reader);
void uring_requests_free(struct uring_requests *requests);
/* Those of threads that have used this ring, also for other rings. The caller frees the items, also after a failure. */
int uring_read_slots(const struct uring_reader *reader, const struct uring_facts *facts,
		     struct uring_slots *slots) must_check;
/* For a ring with IORING_SETUP_SQPOLL. */
int uring_read_rights(const struct uring_reader *reader, const struct uring_facts *facts,
		      struct uring_rights *rights) must_check;
/* The struct file in a slot of the registered files; 0: it is empty. */
int uring_read_slot(const struct uring_reader *reader, const struct uring_facts *facts, uint32_t slot,
		    uint64_t *file) must_check;
/*
 * What is in each slot of the registered buffers: facts->buffer_count of them. *problem is what one has that criu cannot
 * save, in words; NULL: nothing.
 */
int uring_read_buffers(const struct uring_reader *reader, const struct uring_facts *facts,
		       struct uring_buffer *buffers, const char **problem) must_check;
/*
 * Has a process, whose /proc/PID is `proc`, the pages of all these buffers at the addresses of the buffers? 1, 0 or
 * -errno, recorded. Needs CAP_SYS_ADMIN.
 */
int uring_has_pages(struct uring_reader *reader, const struct uring_buffer *buffers, uint32_t count, int proc)
	must_check;
/* Finds what facts.eventfd is of an eventfd, too. */
const struct kernel_files *uring_files(const struct uring_reader *reader);

#endif
