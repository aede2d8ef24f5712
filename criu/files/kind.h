/*
 * kind.h - the contract of a kind of file: how an open file description is saved and restored.
 *
 * A new kind is one source in criu/files, one message in images/, one line in kinds.c and one row of a live test;
 * Documentation/add-a-kind.md describes how to add it. The core does for all kinds: which descriptors are one open
 * file, ids, close-on-exec, flags (F_SETFL), owner and signal (F_SETOWN, F_SETSIG), images and logs. A kind contains
 * only what is special about it.
 *
 * The callbacks run in the order in which they are declared. Each may be NULL, except for recognizes, describe, check
 * and open. Those with an int result return 0 or -errno, recorded by fail(); during a dump they may also refuse().
 */
#ifndef CRIU_FILES_KIND_H
#define CRIU_FILES_KIND_H

#include "base/letter.h"
#include "compiler.h"
#include "files/seen.h"
#include "model/external.h"

/* The state of the processes at the end of a dump. */
enum dump_end {
	DUMP_FAILED,  /* they run, or are stopped, as before: everything must be as it was */
	DUMP_RUNS_ON, /* the dump of the files is complete; they continue (--leave-running) */
	DUMP_STOPPED, /* they will be stopped (--leave-stopped) */
	DUMP_KILLED,  /* they are dead */
};

/* When a restore can open a file: before any process exists, or later (late.c). */
enum file_lateness {
	FILE_IS_EARLY,
	FILE_NEEDS_PROCESS,
	FILE_NEEDS_THREAD,
};

struct file_kind {
	const char *name; /* for messages: "pipe" */
	FdTypes type;	  /* file_entry.type */
	size_t message;	  /* the message of the kind in file_entry: offsetof(FileEntry, pipe) */
	/*
	 * Size of the kind's state for one snapshot: file_kind_state(). The core allocates it zeroed. What it points to
	 * belongs to the kind.
	 */
	size_t state_size;

	/* ---- dump: the tree is frozen and the network, if there is one, is locked ---- */

	/* Once, before the first file is recognized: asks the kernel about all files at once (sock_diag). */
	int (*collect)(struct snapshot *snapshot);
	/*
	 * Is this file of this kind? Kinds are asked in the order of the table; the first that answers yes gets the
	 * file. They are not asked about a file that the user names (--external): files_find_external() knows its kind.
	 * `seen` has the results of /proc, fstat() and fcntl(). Changes nothing.
	 */
	bool (*recognizes)(const struct snapshot *snapshot, const struct seen_file *seen);
	/*
	 * For each line of the file's fdinfo, directly after the file was recognized. file->entry and the kind's
	 * message exist; id, flags and owner are set. `value` is the text behind the first ':' of the line, without
	 * leading blanks. Unknown keys are passed, too. All known files are recognized before the first is described.
	 */
	int (*fdinfo)(struct snapshot *snapshot, struct file *file, const char *key, const char *value);
	/* Keys that must occur in fdinfo, with NULL at the end. If one is missing, the dump fails. */
	const char *const *fdinfo_needs;
	/*
	 * For each file: fills the kind's message. refuse() what cannot be saved; all refusals are reported at once.
	 * May add files: files_add_path_of(), files_identify(). May examine the file through files_borrow(), but
	 * changes nothing.
	 */
	int (*describe)(struct snapshot *snapshot, struct file *file);
	/*
	 * Once, when all files are described and none was refused: from now on the kind may change what let_go() undoes
	 * (repair mode). May add files, which are then described like all others.
	 */
	int (*hold)(struct snapshot *snapshot);
	/*
	 * Once, when all files are described, even if some were refused: checks what involves more than one file. After
	 * a refusal it continues, and returns 0.
	 */
	int (*judge)(struct snapshot *snapshot);
	/* Once, when files.img is written: writes the images beside it. */
	int (*save)(struct snapshot *snapshot);
	/*
	 * Once, when the images are complete and the processes are going to be killed: changes outside of criu that
	 * must outlive it. abandon_end() undoes them: in criu, if something fails; or, if criu is killed before the
	 * processes are, in a child that has the memory and the descriptors that criu had before prepare_end().
	 */
	bool (*needs_prepare_end)(const struct snapshot *snapshot);
	int (*prepare_end)(struct snapshot *snapshot);
	void (*abandon_end)(struct snapshot *snapshot);
	/*
	 * Once, directly before the processes are killed, which nothing can prevent any more: the last look at what
	 * their death will change, and changes that nobody will see but who looks at the dead. Not called if they go on.
	 */
	void (*end)(struct snapshot *snapshot);
	/*
	 * Always called exactly once if collection has reached this kind, however the dump ends and whichever callback
	 * has failed. Undoes hold() and frees what the state points to. The processes are still frozen, or gone in case
	 * of DUMP_KILLED.
	 */
	void (*let_go)(struct snapshot *snapshot, enum dump_end end);

	/* ---- restore: before any process exists but the root, which waits ---- */

	/*
	 * The id of the regular file that holds the path of `file`, and that is neither checked nor opened itself.
	 * NULL, or 0: none. The dump calls it, too.
	 */
	uint32_t (*path)(const struct file *file);
	/*
	 * Once for each kind, before the first check: reads and checks images beside files.img. Changes nothing outside
	 * of criu.
	 */
	int (*load)(struct snapshot *snapshot);
	/*
	 * The key by which --inherit-fd can name the file. false: it has none. The core asks the table with it, once,
	 * before check(), and keeps the answer in file->external. Then the next two callbacks take the places of
	 * check() and open(). NULL: such a file cannot be inherited.
	 */
	bool (*external_key)(const struct snapshot *snapshot, const struct file *file,
			     struct external_key *key);
	/* Is the descriptor that was given for the file a possible one? `found` is what fstat() says of it. */
	int (*check_external)(struct snapshot *snapshot, struct file *file, const struct stat *found);
	/* By file_open_external_again() or file_share_external(). */
	int (*open_external)(struct snapshot *snapshot, struct file *file);
	/*
	 * Checks the message, and that the file can be restored here. Everything that open() relies on is checked here;
	 * nothing is changed. The core has checked that the kind's message exists.
	 */
	int (*check)(struct snapshot *snapshot, struct file *file);
	/*
	 * Can the file be opened only when all processes exist, or their threads, too? Then open_late() takes the place
	 * of open(). Both journeys ask, for any file of the kind; the message may not have been checked yet. NULL: none
	 * of them.
	 */
	enum file_lateness (*lateness)(const struct snapshot *snapshot, const struct file *file);
	/*
	 * Creates the open file description and returns a close-on-exec descriptor of it, which the core owns. The core
	 * then sets the flags. Files are opened in the order of their ids, in criu itself. The root shares its
	 * descriptors, and every other newborn inherits them.
	 */
	int (*open)(struct snapshot *snapshot, struct file *file);
	/*
	 * Once, when all files of all kinds are open: connects peers, fills queues, sets owners and modes, which could
	 * have prevented opening.
	 */
	int (*join)(struct snapshot *snapshot);
	/*
	 * Once in criu, after join(), and then once in the root, which was born before open(): what they have learned,
	 * beside the descriptors of files, and settle() needs. Same function for both: base/letter.h.
	 */
	void (*pass)(struct snapshot *snapshot, struct letter *letter);

	/* ---- restore: all processes are born ---- */

	/*
	 * Opens a late file: in criu, once. FILE_NEEDS_PROCESS: when all processes exist, and their zombies, too, are
	 * still alive. FILE_NEEDS_THREAD: when all threads wait to be handed over. Returns a close-on-exec descriptor;
	 * the core sets the flags, and passes the file to all processes that need it (late.c): the former before
	 * settle() and before owners are set.
	 */
	int (*open_late)(struct snapshot *snapshot, struct file *file);
	/* Once in criu, when all files are open but FILE_NEEDS_THREAD: what join() had to leave to do. */
	int (*join_late)(struct snapshot *snapshot);
	/*
	 * In each newborn, while all files are still open and none has its final number: work that the process itself
	 * has to do.
	 */
	int (*settle)(struct snapshot *snapshot, struct task *task);
	/* Once, in the last step, while the processes still die with criu: what release() cannot do because it may fail. */
	int (*prepare_release)(struct snapshot *snapshot);
	/*
	 * Once, in the last step: nothing can fail any more. The processes do not run yet, but if criu is killed they do.
	 */
	void (*release)(struct snapshot *snapshot);
	/*
	 * Always called exactly once if load() was reached: closes and frees what load(), open() and join() kept.
	 * Called after release(), before the processes run; or when the restore has failed.
	 */
	void (*close)(struct snapshot *snapshot);

	/* ---- both ---- */

	/*
	 * The number of descriptors that load() and open() keep beside those of the files. NULL: none. Messages may be
	 * missing after a refusal.
	 */
	size_t (*keeps)(const struct snapshot *snapshot);
};

extern const struct file_kind *const file_kinds[];
extern const size_t file_kind_count;
extern const struct file_kind file_kind_regular, file_kind_pipe, file_kind_fifo, file_kind_eventfd,
	file_kind_timerfd, file_kind_signalfd, file_kind_epoll, file_kind_terminal, file_kind_memfd,
	file_kind_pidfd, file_kind_inotify, file_kind_fanotify, file_kind_namespace, file_kind_bpf_map,
	file_kind_mqueue, file_kind_unix, file_kind_inet, file_kind_netlink, file_kind_packet,
	file_kind_io_uring, file_kind_tun, file_kind_plugin;

/* Calls a callback of all kinds that have it, until one fails: result = call_file_kinds(load, snapshot); */
#define call_file_kinds(callback, ...)                                                  \
	({                                                                              \
		int result_of_kinds = 0;                                                \
		for (size_t i = 0; !result_of_kinds && i < file_kind_count; i++)        \
			if (file_kinds[i]->callback)                                    \
				result_of_kinds = file_kinds[i]->callback(__VA_ARGS__); \
		result_of_kinds;                                                        \
	})

/* ---- kind.c: the files and the state of each kind in a snapshot ---- */

const struct file_kind *file_kind_of(FdTypes type);
/* The state of the kind: state_size bytes, zeroed at the first call. */
void *file_kind_state(const struct snapshot *snapshot, const struct file_kind *kind);

/* The files of a kind, in the order in which they became known: on restore by id. */
struct file_list {
	struct file **items;
	size_t count;
};
struct file_list *files_of_kind(const struct snapshot *snapshot, const struct file_kind *kind);
/* Sets file->kind, and adds it to the files of this kind. */
void file_set_kind(const struct snapshot *snapshot, struct file *file, const struct file_kind *kind);

/* The kind's message in file->entry; NULL: none. */
ProtobufCMessage *file_message(const struct file *file);
/* Dump: creates file->entry and the kind's message, with id, flags and owner. */
void file_make_message(const struct snapshot *snapshot, struct file *file);
/* From the message, or from the message of the path. */
bool file_has_flags(const struct snapshot *snapshot, const struct file *file);
uint32_t file_flags(const struct snapshot *snapshot, const struct file *file);
const FownEntry *file_owner(const struct snapshot *snapshot, const struct file *file);

/*
 * Flags to open a file again that exists: none of them creates or truncates it. O_TMPFILE has the bit of O_DIRECTORY,
 * so a file that was created with it and got a name later loses both, which mean nothing once it is open.
 */
int flags_to_reopen(int flags);

/* The regular file that holds the path of `file`, by file_kind.path; NULL: none. Only files_load() finds them. */
struct file *file_path(const struct snapshot *snapshot, const struct file *file);

/* ---- external.c: files from outside of the tree, which the user names ---- */

/*
 * Dump. The only places that ask the table of model/external.h about files. NULL: the user does not name it; otherwise
 * the kind that saves it, and file->external is set.
 */
const struct file_kind *files_find_external(struct snapshot *snapshot, struct file *file);
/* Restore. Sets file->external of all files that --inherit-fd names, and warns of options that name none. */
void files_find_inherited(struct snapshot *snapshot);
/* Restore. check() and open() of the kind, or what takes their place for a file that is inherited. */
int file_check(struct snapshot *snapshot, struct file *file) must_check;
int file_open(struct snapshot *snapshot, struct file *file) must_check;

/* Dump, for a kind that saves the file as any other of its kind: does the user name it by this key? */
bool file_is_named(struct snapshot *snapshot, const struct external_key *key);
/* Dump. The keys of --external; false: such a file cannot be named. */
struct external_key external_key_of_terminal(const struct seen_file *seen);
bool external_key_of_file(const struct seen_file *seen, struct external_key *key);
/*
 * Dump. For a file that is refused: advises the options that name it, if there are any; or --shell-job. One advice has
 * them for all files.
 */
void file_advise_external(const struct snapshot *snapshot, const struct seen_file *seen);
void file_advise_shell_job(const struct snapshot *snapshot, const struct seen_file *seen);
void files_give_advice(const struct snapshot *snapshot);
/* Restore, for kinds. Fails with the options that are missing, for this file and all others. */
int file_lacks_external(const struct snapshot *snapshot, const struct external_key *key) must_check;
/* Fails: the descriptor is not `wanted`, "a pipe". */
int file_is_wrong_external(const struct file *file, const char *wanted) must_check;
/* A new open file description, to which the core gives the flags and the owner of the image. */
int file_open_external_again(const struct file *file, int flags) must_check;
/*
 * A copy of the descriptor: the processes share the open file description with whoever has started criu. So its flags,
 * owner and position stay as they are.
 */
int file_share_external(const struct file *file) must_check;

/* ---- descriptor_need.c: dump, and restore before any process exists ---- */

/* Notes which files are only mapped, and which only hold the path of another. */
void files_note_use(struct snapshot *snapshot);
/*
 * The number of descriptors that criu needs for this restore. Can it have them? NULL, or a sentence with the reason.
 * `ours`: the number that criu has open for itself.
 */
size_t files_descriptor_need(const struct snapshot *snapshot, size_t ours);
char *files_lack_descriptors(struct snapshot *snapshot, size_t ours);

/* ---- restore.c: restore, all kinds ---- */

/* Reads files.img, the descriptor tables of all tasks and the images beside them; then checks every file. */
int files_load(struct snapshot *snapshot) must_check;
/* Opens every file that a task has open, in this process. */
int files_open(struct snapshot *snapshot) must_check;
/* In criu and in the root: their descriptors, and what kinds pass on. */
void files_pass(struct snapshot *snapshot, struct letter *letter);
/* In a newborn: opens a file that is only mapped; the caller closes the descriptor. */
int files_open_to_map(struct snapshot *snapshot, struct file *file, bool is_shared) must_check;
/* In the last step: prepare_release() of all kinds. */
int files_prepare_release(struct snapshot *snapshot) must_check;
/* In the last step, when nothing can fail: release() of all kinds. */
void files_release(struct snapshot *snapshot);
/* Closes all files that criu itself has open. May be called after a failure, and more than once. */
void files_close(struct snapshot *snapshot);

/* open(2) ignores some flags, and a kind may have needed others to open and fill the file. */
int file_set_flags(const struct snapshot *snapshot, const struct file *file) must_check;

/* ---- late.c: files that are opened when all processes exist ---- */

enum file_lateness file_lateness(const struct snapshot *snapshot, const struct file *file);
/* The number of descriptors that all late files need, beside their own. */
size_t files_late_need(const struct snapshot *snapshot);
/* In criu, with the other files: a placeholder, which has the file's final number in criu and in all newborns. */
int file_reserve_late(struct snapshot *snapshot, struct file *file) must_check;
/* When all of them have one: what they will travel in. */
int files_make_envelopes(struct snapshot *snapshot) must_check;
void files_pass_envelopes(struct snapshot *snapshot, struct letter *letter);
/* In criu, when all processes exist. */
int files_open_late(struct snapshot *snapshot) must_check;
/* In a newborn, after that: nothing, unless it needs one of them. */
int files_receive_late(const struct snapshot *snapshot, const struct task *task) must_check;
/*
 * In criu, when all threads exist: opens those that need a thread, and puts each into an envelope whose other end is
 * its placeholder in all tables. Whoever has a table takes them out there (restore/thread_files.c).
 */
int files_open_for_threads(struct snapshot *snapshot) must_check;
void files_close_envelopes(struct snapshot *snapshot);

/* ---- arrange.c: in a newborn ---- */

/* Before files_arrange(): settle() of all kinds. */
int files_settle(struct snapshot *snapshot, struct task *task) must_check;
/*
 * Arranges the descriptor table exactly as in the images; `kept` are criu's descriptors that stay open, possibly under
 * other numbers.
 */
int files_arrange(struct task *task, int **kept, size_t kept_count) must_check;
/* The owner and the signal of one descriptor of the file `id`, in the process that has it. */
int descriptor_set_owner(int fd, uint32_t id, const FownEntry *owner) must_check;
/* Those of a file that this process has open. */
int file_set_owner(const struct snapshot *snapshot, const struct file *file) must_check;
/* When all tasks exist: those of all files of a table but FILE_NEEDS_THREAD. */
int files_set_owners(const struct snapshot *snapshot, struct task *task) must_check;

#endif
