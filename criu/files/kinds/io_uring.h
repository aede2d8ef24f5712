/*
 * io_uring.h - io_uring(7): the ring as a file of a snapshot (io_uring.c), and rings of criu's own, which are made like
 * another (io_uring_make.c).
 */
#ifndef CRIU_FILES_KINDS_IO_URING_H
#define CRIU_FILES_KINDS_IO_URING_H

#include <linux/io_uring.h>
#include <stdbool.h>
#include <stdint.h>
#include "calls.h"
#include "compiler.h"
#include "kernel_constants.h"
#include "model/snapshot.h"

/* How a ring may be set up that criu saves; how large its queues are says the rest. */
#define URING_SETUP                                                                                         \
	(IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL |     \
	 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SQE128 | IORING_SETUP_CQE32 | \
	 IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_NO_SQARRAY |                \
	 IORING_SETUP_SQPOLL | IORING_SETUP_SQ_AFF)
#define URING_MOST_SQ	 32768u /* entries: the kernel's limits */
#define URING_MOST_CQ	 65536u
#define URING_LAYOUT	 14  /* numbers */
#define URING_MOST_SLOTS 16u /* registered rings of a thread: IO_RINGFD_REG_MAX */
/*
 * The counts of requests and of completions from which criu brings a new ring there. Each takes about 55 ns, and
 * nothing is faster.
 */
#define URING_MOST_POSITION (1u << 30)

/* ---- dump ---- */

struct uring_reader;
struct uring_facts;
struct seen_file;
struct uring_early;

struct io_uring_state {
	struct uring_reader *reader;
	struct index threads; /* of the kernel, which take requests */
	struct index files;   /* io_uring_index_files() */
	bool is_indexed;
	/* of io_uring_early.c: by the kernel's address of the ring; and all of them */
	struct index early;
	struct uring_early **earlies;
	size_t early_count;
};

/* ---- io_uring_early.c: before the files are looked at ---- */

struct uring_round {
	uint64_t deadline; /* for what is busy */
	bool was_ready;	   /* a thread has gone on with a request */
	bool is_busy;	   /* the kernel works on a request */
};

/*
 * If a request of a ring of this task could go on, its thread does that now, because it may take something from a file,
 * or open one. Nothing else in the tree runs. For the same reason, nothing else may be in flight but what waits.
 */
int io_uring_complete(struct snapshot *snapshot, const struct task *task, struct uring_round *round)
	must_check;
/* Was this ring looked at like that? */
bool io_uring_was_early(const struct io_uring_state *state, const struct uring_facts *facts);
/*
 * At the last look: what has happened in the ring since then? -EAGAIN, recorded: perhaps something with a file. If
 * completions have signalled an eventfd, its counter is read again.
 */
int io_uring_check_files(struct snapshot *snapshot, const struct uring_facts *facts, struct file *ring)
	must_check;
void io_uring_forget_early(struct io_uring_state *state);

/* ---- io_uring_settle.c ---- */

void io_uring_note_facts(IoUringFileEntry *entry, const struct uring_facts *facts);
/* Those that have used the ring enter the kernel, and so go on with their requests. `holder` has the ring as `fd`. */
int io_uring_complete_all(const struct snapshot *snapshot, const struct uring_facts *facts,
			  const struct task *holder, int fd) must_check;
int io_uring_wait_in_vain(const struct uring_facts *facts) must_check;
/* Memory has been saved: is all as it was? */
int io_uring_save(struct snapshot *snapshot) must_check;

/*
 * Waits until no request is in flight in any ring, because requests write to memory, and then reads the rings. Called
 * when the processes have been asked, and before memory is saved.
 */
int io_uring_settle(struct snapshot *snapshot, uint64_t deadline) must_check;

/* ---- io_uring.c: dump ---- */

/* fdinfo lists the requests that wait until a file is ready, by their opcodes; not while the ring is in use. */
bool io_uring_waits_for_files(int fd, unsigned *opcode);

/* Is this the thread of the kernel of a ring that a task has open? */
bool io_uring_knows_thread(const struct snapshot *snapshot, pid_t thread) must_check;
/* The ring with this inode, which its mappings show; NULL: no task has a descriptor of it. */
struct file *io_uring_find(const struct snapshot *snapshot, dev_t device, uint64_t inode);

/* ---- io_uring.c: dump and restore ---- */

/* Can this part of the ring be mapped? The kernel maps the three parts of a ring only from their beginning. */
bool io_uring_has_part(const struct file *file, uint64_t offset, uint64_t length);

/* ---- io_uring_registered.c ---- */

/* Dump: all files, by the address of their struct file; and eventfds by what their driver keeps. Does it once. */
int io_uring_index_files(const struct snapshot *snapshot, struct io_uring_state *state) must_check;
/* Dump, when all files are known and in the index: into the message of the ring. */
int io_uring_find_registered(struct snapshot *snapshot, const struct io_uring_state *state,
			     const struct uring_facts *facts, struct file *ring) must_check;
int io_uring_check_registered(const struct snapshot *snapshot, const struct file *ring) must_check;
/* Restore, when all files are open, and the ring is at its position: completions signal an eventfd. */
int io_uring_register_all(const struct snapshot *snapshot, const struct file *ring) must_check;

/* ---- io_uring_buffers.c: registered memory ---- */

/* Dump: into the message of the ring, or refuses it. */
int io_uring_find_buffers(const struct snapshot *snapshot, struct io_uring_state *state,
			  const struct uring_facts *facts, struct file *ring) must_check;
/* Dump: may the kernel write to memory of the task at any time, so that no tracker notices it? */
bool io_uring_writes_to(const struct snapshot *snapshot, const struct task *task);
int io_uring_check_buffers(const struct snapshot *snapshot, const struct file *ring) must_check;
/* Has the process the memory that it has registered, so that it can register it again? */
int io_uring_check_owner(const struct snapshot *snapshot, const struct task *task) must_check;
/* Restore: has the process registered some? And the calls by which its first thread does so again. */
bool io_uring_has_buffers(const struct snapshot *snapshot, const struct task *task);
void io_uring_plan_buffers(const struct snapshot *snapshot, const struct task *task, struct call_list *calls);

/* ---- io_uring_thread.c: rings with a thread of the kernel ---- */

int io_uring_look_at_thread(const struct snapshot *snapshot, const struct seen_file *seen,
			    const struct uring_reader *reader, const struct uring_facts *facts,
			    IoUringFileEntry *entry) must_check;
/* Dump: may the thread take requests that are published, as long as nobody wakes it? */
bool io_uring_thread_takes(const struct uring_facts *facts);
/* Dump and restore, when all descriptors are known: is such a ring its owner's only? */
int io_uring_judge_threads(const struct snapshot *snapshot) must_check;
int io_uring_load_threads(struct snapshot *snapshot) must_check;
bool io_uring_has_thread(const struct file *file);
bool io_uring_is_thread_possible(const struct snapshot *snapshot, const IoUringFileEntry *entry);
/* Restore, in the newborn: makes the ring; returns a descriptor. */
int io_uring_make_for(const struct file *file, const struct task *owner) must_check;
/* When file->fd is the ring, and `thread` its thread. */
int io_uring_settle_thread(const struct snapshot *snapshot, const struct file *file, pid_t thread) must_check;

/* ---- io_uring_rights.c: what the thread of the kernel may do ---- */

/* Dump: refuses it unless that is what its process may do. */
int io_uring_check_rights(const struct seen_file *seen, const struct uring_reader *reader,
			  const struct uring_facts *facts, const struct task *owner) must_check;
/* Restore, in the newborn: uring_create() by a thread that may do what the process will. */
struct uring;
int io_uring_create_as(struct uring *uring, const struct task *owner) must_check;

/* ---- io_uring_requests.c: requests in flight that wait ---- */

/* Dump: into the message of the ring; if they cannot be made again, refuses that, or at the last look fails. */
int io_uring_note_requests(const struct snapshot *snapshot, struct io_uring_state *state,
			   const struct uring_facts *facts, struct file *ring, bool is_last) must_check;
void io_uring_forget_requests(IoUringFileEntry *entry);
/* Can all requests in flight be made again? *problem: what one of them is that cannot, or NULL. */
int io_uring_count_requests(const struct uring_reader *reader, const struct uring_facts *facts, bool *are_all,
			    const char **problem) must_check;
int io_uring_check_requests(const struct snapshot *snapshot, const struct file *ring) must_check;
/* Has the thread what it needs to submit its requests? */
int io_uring_check_requester(const struct snapshot *snapshot, const struct task *task, size_t thread)
	must_check;
/* Restore: adds the calls by which the thread submits those of all rings that it has submitted. */
void io_uring_plan_requests(const struct snapshot *snapshot, const struct task *task, size_t thread,
			    struct call_list *calls);
/* Restore, when all threads have made their calls: are they submitted? */
int io_uring_check_submitted(const struct snapshot *snapshot) must_check;

/* ---- io_uring_slots.c: descriptors of rings that threads have registered ---- */

/* Dump: refuses a ring with something that it has. */
int io_uring_refuse(const struct file *ring, const char *what) must_check;
/* Dump: into the message of the ring, or refuses them. */
int io_uring_note_slots(const struct snapshot *snapshot, const struct io_uring_state *state,
			const struct uring_facts *facts, struct file *ring) must_check;
/* Dump: is a ring that has been noted in this slot? */
bool io_uring_knows_slot(const struct snapshot *snapshot, const struct task *task, size_t thread,
			 unsigned slot);
int io_uring_check_slots(const struct snapshot *snapshot, const struct file *ring) must_check;
/* Restore: has the thread descriptors of its rings? And the calls that register them. */
int io_uring_check_holder(const struct snapshot *snapshot, const struct task *task, size_t thread) must_check;
void io_uring_plan_slots(const struct snapshot *snapshot, const struct task *task, size_t thread,
			 struct call_list *calls);

/* ---- io_uring_make.c ---- */

struct uring {
	int fd;
	struct io_uring_params wanted; /* for io_uring_setup(), which fills it */
	uint32_t setup;
	uint32_t sq_entries, cq_entries;
	uint32_t layout[URING_LAYOUT];
	size_t rings_size, sqes_size; /* bytes */
	char *rings, *sqes;	      /* mapped; NULL: not */
};

enum uring_field { /* of the layout; see images/io-uring.proto */
		   SQ_HEAD_AT,
		   SQ_TAIL_AT,
		   SQ_MASK_AT,
		   SQ_ENTRIES_AT,
		   SQ_FLAGS_AT,
		   SQ_DROPPED_AT,
		   SQ_ARRAY_AT,
		   CQ_HEAD_AT,
		   CQ_TAIL_AT,
		   CQ_MASK_AT,
		   CQ_ENTRIES_AT,
		   CQ_OVERFLOW_AT,
		   CQ_CQES_AT,
		   CQ_FLAGS_AT,
};

/* A new ring of criu's own, set up like another; it is not mapped. uring_close() also after a failure. */
int uring_make(struct uring *uring, const IoUringFileEntry *entry) must_check;
int uring_make_like(struct uring *uring, const IoUringFileEntry *entry) must_check; /* without a thread */
/* The three parts of this. */
void uring_prepare(struct uring *uring, const IoUringFileEntry *entry);
int uring_create(struct uring *uring) must_check;
int uring_note_made(struct uring *uring, const IoUringFileEntry *entry) must_check;
/* From its setup, numbers of entries and layout. */
void uring_set_sizes(struct uring *uring);
/* Maps the memory of `fd`, a ring that was set up like this one. */
int uring_map(struct uring *uring, int fd) must_check;
void uring_unmap(struct uring *uring);
void uring_close(struct uring *uring);
/*
 * Brings a new ring that is mapped to the position from which the kernel takes the next request, and to that where it
 * puts the next completion. Then the content of its memory is that of no other ring.
 */
int uring_advance(struct uring *uring, uint32_t sq_head, uint32_t cq_tail) must_check;

static inline uint32_t *uring_word(const struct uring *uring, enum uring_field field)
{
	return (uint32_t *)(void *)(uring->rings + uring->layout[field]);
}

/* ---- io_uring_content.c ---- */

struct uring io_uring_like(const IoUringFileEntry *entry); /* it is not open */
int io_uring_read_content(IoUringFileEntry *entry, int fd) must_check;
/* Restore: file->fd is a ring of this process. */
int io_uring_enable(const struct file *file) must_check;
int io_uring_advance(const struct file *file) must_check; /* to its positions */
int io_uring_fill(const struct file *file) must_check;	  /* with its content */

#endif
