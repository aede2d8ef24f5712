/*
 * kind.h - a kind of file: how an open file description is saved and made again.
 *
 * A new kind is one source in criu/files, one message in images/, one line in kinds.c and one row of a live test:
 * Documentation/add-a-kind.md walks through it. Ids, sharing between descriptors and tasks, close-on-exec, owners and signals
 * of descriptors, images and logs are the core's; a kind knows only what is special about it.
 */
#ifndef CRIU_FILES_KIND_H
#define CRIU_FILES_KIND_H

#include "compiler.h"
#include "files/seen.h"

struct file_kind {
	const char *name; /* for people: "pipe" */
	FdTypes type;	  /* file_entry.type */

	/* Dump. Is this one of ours? Kinds are asked in the order of the table; the first that says yes has it. */
	bool (*recognizes)(const struct seen_file *seen);
	/*
	 * Dump. Makes the kind's message in file->entry. `owner` (F_SETOWN, F_SETSIG) is already read and becomes the
	 * message's (or is freed by the kind). refuse() what cannot be saved; fail() what went wrong.
	 */
	int (*describe)(struct snapshot *snapshot, struct file *file, FownEntry *owner) must_check;
	/* Dump, once for all files of the kind, after all were described: what lies beside files.img. May be NULL. */
	int (*save_more)(struct snapshot *snapshot) must_check;

	/*
	 * Restore. The id of the regular file that says where this one lies, and is neither checked nor opened for itself. NULL,
	 * or 0: none.
	 */
	uint32_t (*path)(const struct file *file);
	/* Restore. Checks the message and that it can be made here; changes nothing. */
	int (*check)(struct snapshot *snapshot, struct file *file) must_check;
	/* Restore, once for all files of the kind, before the first is opened. May be NULL. */
	int (*load_more)(struct snapshot *snapshot) must_check;
	/* Restore. Makes the open file description and returns a descriptor of it, close-on-exec. */
	int (*open)(struct snapshot *snapshot, struct file *file) must_check;
	/*
	 * Restore, once for all files of the kind, when all have been opened: what could hinder that, as owners and modes. May be
	 * NULL.
	 */
	int (*finish)(struct snapshot *snapshot) must_check;
	/*
	 * Restore, in each newborn, while all files are still open and none has its number yet: what has to be done by the
	 * process itself. May be NULL.
	 */
	int (*settle)(struct snapshot *snapshot, struct task *task) must_check;
	/* Restore, once, when every newborn has what it needs: closes and frees what load_more() and open() kept. May be NULL. */
	void (*close_more)(struct snapshot *snapshot);
	/*
	 * Dump and restore: how many descriptors open() and load_more() keep beside those of the files. NULL: none. Messages may be
	 * missing where something was refused.
	 */
	size_t (*keeps)(const struct snapshot *snapshot);
	/* The owner that files of this kind carry. NULL: none, or that of the path. */
	const FownEntry *(*owner)(const struct file *file);
};

extern const struct file_kind *const file_kinds[];
extern const size_t file_kind_count;
extern const struct file_kind file_kind_regular, file_kind_pipe, file_kind_fifo, file_kind_eventfd,
	file_kind_timerfd, file_kind_signalfd, file_kind_epoll, file_kind_terminal, file_kind_memfd;

const struct file_kind *file_kind_of(FdTypes type);

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

/* ---- restore, all kinds ---- */

/* Reads files.img and the descriptor tables of all tasks; checks every file. */
int files_load(struct snapshot *snapshot) must_check;
/* Opens every file that a task has open, in this process: newborns inherit them. */
int files_open(struct snapshot *snapshot) must_check;
/* In a newborn: a descriptor of what is only mapped, to be closed by the caller. */
int files_open_to_map(struct snapshot *snapshot, struct file *file, bool is_shared) must_check;
void files_close(struct snapshot *snapshot);
/* In a newborn, before files_arrange(): settle() of all kinds. */
int files_settle(struct snapshot *snapshot, struct task *task) must_check;
/* In a newborn: its descriptor table, exactly; `kept` are numbers of ours that stay open, wherever they have to move. */
int files_arrange(const struct snapshot *snapshot, struct task *task, int **kept, size_t kept_count)
	must_check;
/* In a newborn, when all tasks exist: owners and signals of descriptors. */
int files_set_owners(const struct snapshot *snapshot, struct task *task) must_check;

#endif
