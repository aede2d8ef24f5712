/*
 * kind.h - a kind of file: how an open file description is saved and made again.
 *
 * A new kind is one source in criu/files, one message in images/, one line in kinds.c and one row of a live test:
 * Documentation/add-a-kind.md walks through it. The core does for all kinds: which descriptors are one open file, ids,
 * close-on-exec, flags (F_SETFL), owner and signal (F_SETOWN, F_SETSIG), images and logs. A kind knows only what is special
 * about it.
 *
 * A kind's callbacks run in the order in which they stand below. Each may be NULL, but for recognizes, describe, check and open.
 * Those that return int return 0 or -errno, recorded by fail(); in a dump they may also refuse().
 */
#ifndef CRIU_FILES_KIND_H
#define CRIU_FILES_KIND_H

#include "compiler.h"
#include "files/seen.h"

/* How a dump ended for the processes. */
enum dump_end {
	DUMP_FAILED,  /* they run on, or stand stopped, as before: everything has to be as it was */
	DUMP_RUNS_ON, /* the dump is complete, as far as it concerns files; they run on (--leave-running) */
	DUMP_STOPPED, /* they will stand stopped (--leave-stopped) */
	DUMP_KILLED,  /* they are dead */
};

struct file_kind {
	const char *name; /* for people: "pipe" */
	FdTypes type;	  /* file_entry.type */
	size_t message;	  /* where file_entry has the kind's message: offsetof(FileEntry, pipe) */
	/* What the kind keeps for one snapshot: file_kind_state(). The core allocates it, zeroed. What it points to is the kind's. */
	size_t state_size;

	/* ---- dump: the tree is frozen and, when there is one, the network is locked ---- */

	/* Once, before the first file is recognized: what is asked of the kernel for all files at once (sock_diag). */
	int (*collect)(struct snapshot *snapshot);
	/*
	 * Is this file one of ours? Kinds are asked in the order of the table; the first that says yes has the file. `seen` is what
	 * /proc, fstat() and fcntl() told. Changes nothing.
	 */
	bool (*recognizes)(const struct snapshot *snapshot, const struct seen_file *seen);
	/*
	 * For each line of the file's fdinfo, right after it was recognized. file->entry and the kind's message exist; id, flags and
	 * owner are set. `value` stands behind the first ':' of the line, without blanks. Keys that the kind does not know are
	 * passed, too. All files that are known are recognized before the first is described.
	 */
	int (*fdinfo)(struct snapshot *snapshot, struct file *file, const char *key, const char *value);
	/* Keys that fdinfo must have had, NULL at the end. If one is missing, the dump fails. */
	const char *const *fdinfo_needs;
	/*
	 * For each file: fills the kind's message. refuse() what cannot be saved: all refusals are told at once. May add files:
	 * files_add_path_of(), files_identify(). May look into the file through files_borrow(), but changes nothing.
	 */
	int (*describe)(struct snapshot *snapshot, struct file *file);
	/*
	 * Once, when all files are described and none was refused: from here on the kind may change what let_go() gives back (repair
	 * mode). May add files, which are then described like all others.
	 */
	int (*hold)(struct snapshot *snapshot);
	/*
	 * Once, when all files are described, also if some were refused: what one file alone does not tell. After a refusal it goes
	 * on, and returns 0.
	 */
	int (*judge)(struct snapshot *snapshot);
	/* Once, when files.img is written: what lies beside it. */
	int (*save)(struct snapshot *snapshot);
	/*
	 * Always called exactly once, if collection has reached this kind, however the dump ends and whichever callback has failed.
	 * Gives back what hold() took and frees what the state points to. The processes are still frozen, but for DUMP_KILLED: then
	 * they are gone.
	 */
	void (*let_go)(struct snapshot *snapshot, enum dump_end end);

	/* ---- restore: before any process exists ---- */

	/*
	 * The id of the regular file that says where `file` lies, and is neither checked nor opened for itself. NULL, or 0: none.
	 * The dump asks, too.
	 */
	uint32_t (*path)(const struct file *file);
	/* Once for each kind, before the first check: reads and checks images beside files.img. Changes nothing outside of criu. */
	int (*load)(struct snapshot *snapshot);
	/*
	 * Checks the message, and that the file can be made here. Whatever open() relies on is checked here; nothing is changed. The
	 * core has checked that the kind's message is there.
	 */
	int (*check)(struct snapshot *snapshot, struct file *file);
	/*
	 * Makes the open file description and returns a descriptor of it, close-on-exec, which the core owns. The core then sets the
	 * flags. Files are opened in the order of their ids, in criu itself; every newborn inherits them.
	 */
	int (*open)(struct snapshot *snapshot, struct file *file);
	/* Once, when all files of all kinds are open: peers, queues; owners and modes, which could have hindered opening. */
	int (*join)(struct snapshot *snapshot);

	/* ---- restore: processes exist ---- */

	/* In each newborn, while all files are still open and none has its number yet: what the process has to do itself. */
	int (*settle)(struct snapshot *snapshot, struct task *task);
	/* Once, in the last step: nothing can fail any more, and the processes do not run yet (repair mode off). */
	void (*release)(struct snapshot *snapshot);
	/*
	 * Always called exactly once, if load() was reached: closes and frees what load(), open() and join() kept. After release(),
	 * before the processes run; or when the restore has failed.
	 */
	void (*close)(struct snapshot *snapshot);

	/* ---- both ---- */

	/*
	 * How many descriptors load() and open() keep beside those of the files. NULL: none. Messages may be missing where something
	 * was refused.
	 */
	size_t (*keeps)(const struct snapshot *snapshot);
};

extern const struct file_kind *const file_kinds[];
extern const size_t file_kind_count;
extern const struct file_kind file_kind_regular, file_kind_pipe, file_kind_fifo, file_kind_eventfd,
	file_kind_timerfd, file_kind_signalfd, file_kind_epoll, file_kind_terminal, file_kind_memfd;

/* Calls one callback of every kind that has it, until one fails:	result = call_file_kinds(load, snapshot);	*/
#define call_file_kinds(callback, ...)                                                  \
	({                                                                              \
		int result_of_kinds = 0;                                                \
		for (size_t i = 0; !result_of_kinds && i < file_kind_count; i++)        \
			if (file_kinds[i]->callback)                                    \
				result_of_kinds = file_kinds[i]->callback(__VA_ARGS__); \
		result_of_kinds;                                                        \
	})

/* ---- kind.c: what a snapshot has of each kind ---- */

const struct file_kind *file_kind_of(FdTypes type);
/* state_size bytes, zeroed when they are asked for the first time. */
void *file_kind_state(const struct snapshot *snapshot, const struct file_kind *kind);

/* Its files, in the order in which they became known: on restore that of their ids. */
struct file_list {
	struct file **items;
	size_t count;
};
struct file_list *files_of_kind(const struct snapshot *snapshot, const struct file_kind *kind);
/* Sets file->kind, and adds it to the files of this kind. */
void file_set_kind(const struct snapshot *snapshot, struct file *file, const struct file_kind *kind);

/* The kind's message in file->entry; NULL: there is none. */
ProtobufCMessage *file_message(const struct file *file);
/* Dump: makes file->entry and the kind's message, with id, flags and owner. */
void file_make_message(struct file *file);
/* From the message, or from that of the path. */
uint32_t file_flags(const struct snapshot *snapshot, const struct file *file);
const FownEntry *file_owner(const struct snapshot *snapshot, const struct file *file);

/* The regular file that says where `file` lies, by file_kind.path; NULL: none, which only files_load() finds. */
struct file *file_path(const struct snapshot *snapshot, const struct file *file);

/* ---- room.c: dump, and restore before any process exists ---- */

/* Which files are only mapped, and which only say where another lies. */
void files_note_use(struct snapshot *snapshot);
/*
 * Can criu have as many descriptors as it takes to restore all this? NULL, or a sentence that says why not. `ours`: that it has open
 * for itself.
 */
char *files_lack_room(struct snapshot *snapshot, size_t ours);

/* ---- restore.c: restore, all kinds ---- */

/* Reads files.img, the descriptor tables of all tasks and what lies beside; then checks every file. */
int files_load(struct snapshot *snapshot) must_check;
/* Opens every file that a task has open, in this process: newborns inherit them. */
int files_open(struct snapshot *snapshot) must_check;
/* In a newborn: a descriptor of what is only mapped, to be closed by the caller. */
int files_open_to_map(struct snapshot *snapshot, struct file *file, bool is_shared) must_check;
/* In the last step, when nothing can fail: release() of all kinds. */
void files_release(struct snapshot *snapshot);
/* Closes what criu itself has open; also after a failure, and more than once. */
void files_close(struct snapshot *snapshot);

/* ---- arrange.c: in a newborn ---- */

/* Before files_arrange(): settle() of all kinds. */
int files_settle(struct snapshot *snapshot, struct task *task) must_check;
/* Its descriptor table, exactly; `kept` are numbers of ours that stay open, wherever they have to move. */
int files_arrange(const struct snapshot *snapshot, struct task *task, int **kept, size_t kept_count)
	must_check;
/* When all tasks exist: owners and signals of descriptors. */
int files_set_owners(const struct snapshot *snapshot, struct task *task) must_check;

#endif
