/*
 * ipc.h - System V IPC: shared memory segments, sets of semaphores and message queues (sysvipc(7)).
 *
 * An object of these belongs to an ipc namespace, and not to a process: it stays when the processes end, unless it was
 * marked for removal. So an object that only the tree uses is saved; and a restore that finds it still there takes it
 * again. What processes outside of the tree use, too, is refused.
 *
 * Which objects does the tree use? The kernel knows who has attached a segment, who created it, who changed a semaphore
 * last, and who sent to a queue and received from it last: look.c. The pages of segments are shared memory like any
 * other: memory/shared.h.
 */
#ifndef CRIU_IPC_IPC_H
#define CRIU_IPC_IPC_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"
#include "image/image.h"
#include "ipc-desc.pb-c.h"
#include "ipc-msg.pb-c.h"
#include "ipc-sem.pb-c.h"
#include "ipc-shm.pb-c.h"
#include "kernel/message_queue.h"
#include "model/snapshot.h"

enum ipc_kind { IPC_SEGMENT, IPC_SEMAPHORES, IPC_QUEUE, IPC_KINDS };

/* An object as the kernel lists it. */
struct ipc_object {
	int id;
	int32_t key;
	uint32_t mode, uid, gid, cuid, cgid;
	uint64_t amount;      /* bytes; semaphores; messages */
	uint64_t attachments; /* of a segment: mappings */
	pid_t users[2];	      /* a segment: creator; a queue: last sender and receiver. 0: none */
	int64_t used;	      /* when it was used last, seconds since the epoch; 0: never */
	int64_t changed; /* when it was created, or its owner or mode changed; a set: or a value by semctl() */
};

struct ipc_list {
	struct ipc_object *items;
	size_t count;
};

/* An object of the tree. */
struct ipc_item {
	enum ipc_kind kind;
	ProtobufCMessage *entry; /* of its image; owned */
	IpcDescEntry *desc;	 /* in it */
	uint16_t *values;	 /* of semaphores */
	uint16_t *before;	 /* restore: what they were; NULL: they were not changed */
	struct queue_message *messages;
	size_t message_count;
	bool is_there; /* restore: it has stayed since the dump */
	bool was_made; /* restore: it must go if the restore fails */
};

struct ipc_items {
	struct ipc_item *items;
	size_t count;
	uint32_t namespace;		     /* the number in the names of its images */
	struct message_queue_reader *reader; /* NULL: none is open */
	bool has_no_reader;		     /* it does not work here */
};

/* ---- kinds.c: what the kinds have in common ---- */

struct ipc_type {
	const char *name;    /* "shared memory segment" */
	const char *list;    /* the file that lists them */
	const char *next_id; /* takes the id of the next one */
	const char *remove;  /* an option of ipcrm(1) */
	enum image_kind image;
	const ProtobufCMessageDescriptor *message;
	size_t desc; /* where the message has it */
};
extern const struct ipc_type ipc_types[IPC_KINDS];

struct ipc_items *ipc_items_of(const struct snapshot *snapshot);
struct ipc_item *ipc_item_add(struct ipc_items *items, enum ipc_kind kind, ProtobufCMessage *entry);
/* "shared memory segment 12 (key 0x52e2c1)", allocated */
char *ipc_describe(enum ipc_kind kind, int id, int32_t key);

/* Empty, if the kernel has no objects of this kind. */
int ipc_list_read(enum ipc_kind kind, struct ipc_list *list) must_check;
void ipc_list_parse(enum ipc_kind kind, const char *text, struct ipc_list *list);
const struct ipc_object *ipc_list_find(const struct ipc_list *list, int id);

/*
 * Who uses an object? A process outside of the tree counts if it has existed since before `used` (seconds since the
 * epoch): its number may be that of an older process.
 */
bool ipc_user_is_outside(const struct snapshot *snapshot, pid_t pid, int64_t used);
/* The processes outside of the tree that have attached a segment: "process 12 (x), …", allocated. Slow. */
char *ipc_name_attached(const struct snapshot *snapshot, int id);
char *ipc_name_process(pid_t pid);

/* ---- images.c ---- */

int ipc_save(struct snapshot *snapshot) must_check;
/* Reads and checks what is known of the objects of a namespace. */
int ipc_load(struct snapshot *snapshot, uint32_t namespace) must_check;
/* The messages behind a record; *messages is allocated, also after an error. */
int ipc_read_messages(struct image *image, uint32_t count, struct queue_message **messages, size_t *read)
	must_check;

/* ---- messages.c ---- */

/* While the tree runs: prepares to copy the messages of its long queues. `pids` are of criu's namespace. */
void ipc_look_ahead(const struct snapshot *snapshot, const pid_t *pids, size_t count);
/* All messages of a queue that the kernel has listed; *messages is allocated, also after an error. */
int ipc_copy_messages(const struct snapshot *snapshot, const struct ipc_object *queue,
		      struct queue_message **messages, size_t *count) must_check;
/* Restore: has a queue that has stayed the messages of the images? 0: it has others. */
int ipc_has_same_messages(const struct snapshot *snapshot, const struct ipc_item *item,
			  const struct ipc_object *found) must_check;
void ipc_end_copying(const struct snapshot *snapshot);

/* ---- look.c: dump ---- */

/* Before mappings are described: which numbers belong to segments? */
int ipc_collect(struct snapshot *snapshot) must_check;
/* When they are: finds the objects of the tree, reads them, and refuses what others use, too. */
int ipc_look(struct snapshot *snapshot) must_check;

/* ---- make.c: restore ---- */

/* Can each object be made here, or is it still there? Changes nothing. */
int ipc_check(struct snapshot *snapshot) must_check;
/* Makes them, by processes with the ids of their old users: before any process of the tree exists. */
int ipc_make(struct snapshot *snapshot) must_check;
/* When all processes have attached segments: what would have hindered that. */
int ipc_finish(const struct snapshot *snapshot) must_check;
/* The restore has failed, and there are no processes any more. */
void ipc_withdraw(struct snapshot *snapshot);

#endif
