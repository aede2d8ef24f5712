/*
 * show.h - `criu show`: reads a directory of images and prints it as text or JSON.
 *
 * show_tree_read() builds one structure from the images, which show_text() and show_json() print. A missing image (an
 * interrupted dump, a dump of memory only) leaves its part empty; a torn one is an error. show_statistics() is apart
 * from that: it shows where the time of a dump or restore went.
 */
#ifndef CRIU_CLI_SHOW_H
#define CRIU_CLI_SHOW_H

#include <stdio.h>
#include "base/index.h"
#include "compiler.h"
#include "core.pb-c.h"
#include "fdinfo.pb-c.h"
#include "fs.pb-c.h"
#include "image/inventory.h"
#include "memfd.pb-c.h"
#include "memory/chain.h"
#include "mm.pb-c.h"
#include "mqueue.pb-c.h"
#include "pstree.pb-c.h"
#include "remap-file-path.pb-c.h"
#include "stats.pb-c.h"

/* In bytes */
struct show_memory {
	uint64_t mapped;
	uint64_t saved;	    /* in this directory */
	uint64_t in_parent; /* in its parents */
};

/* All records of an image. The owner of this struct owns the messages. */
struct show_records {
	ProtobufCMessage **items;
	size_t count;
};

struct show_process {
	const PstreeEntry *entry;
	struct show_records cores; /* one per thread, the leader's first; NULL: missing */
	const TaskCoreEntry *task; /* in cores; NULL: missing */
	const CredsEntry *credentials;
	const TaskKobjIdsEntry *ids;
	TaskKobjIdsEntry *ids_record; /* if the ids are in an image of their own */
	FsEntry *fs;
	MmEntry *mm;
	struct show_memory memory;
	struct show_records descriptors; /* FdinfoEntry */

	/* An earlier process that has the same; NULL: its own. */
	const struct show_process *shares_descriptors, *shares_memory, *shares_directories;

	/* The tree: parents come before their children */
	struct show_process *parent, *first_child, *last_child, *next_sibling;
	unsigned depth;
};

struct show_shared_memory {
	uint64_t id;
	struct show_memory memory;
};

/* A snapshot of the chain: the newest first. */
struct show_layer {
	const char *directory;
	uint64_t used; /* bytes of memory that come from it */
};

struct show_tree {
	const char *directory;
	InventoryEntry *inventory; /* NULL: the dump is not complete */
	int64_t made;		   /* seconds since 1970; 0: not known */
	char *parent;		   /* the directory this one builds on; NULL: none */
	struct page_chain *chain;  /* NULL: it cannot be read */
	struct show_layer *layers;
	size_t layer_count;
	char *problem; /* why pages of its parents were not found; NULL: all were */

	struct show_records entries; /* PstreeEntry */
	struct show_process *processes;
	size_t process_count, thread_count;
	struct index by_pid;			      /* the last process with a pid */
	struct index by_files_id, by_vm_id, by_fs_id; /* the first process with an id */

	struct show_records files;     /* FileEntry */
	struct index files_by_id;      /* the first one with an id */
	struct show_records remaps;    /* RemapFilePathEntry … */
	struct index remaps_by_id;     /* … by the file that it is about */
	struct show_records memfds;    /* MemfdInodeEntry */
	struct show_records queues;    /* MqueueEntry */
	struct show_records terminals; /* TtyInfoEntry */
	struct show_shared_memory *shared;
	size_t shared_count;
	struct index shared_by_id; /* to the tree itself: only whether it is there counts */
	struct show_memory memory; /* of all */
};

/* The store must outlive the tree. 0 or -errno, recorded; to be freed in both cases. */
int show_tree_read(struct image_store *store, struct show_tree *tree) must_check;
void show_tree_free(struct show_tree *tree);

const FileEntry *show_find_file(const struct show_tree *tree, uint32_t id);
/* The path of a regular file; NULL: not known. */
const char *show_file_path(const struct show_tree *tree, uint32_t id);
/* The ids of a thread in nested pid namespaces, the outermost first. Returns how many; 0 also if they are invalid. */
size_t show_nested_ids(const struct show_process *process, size_t thread, const uint32_t **ids);
const char *show_process_name(const struct show_process *process);
const char *show_state(const struct show_process *process); /* "running", "stopped", "zombie", "unknown" */
/* Calls `each` for every namespace; `own`: it differs from that of the criu that made the dump. */
void show_namespaces(const struct show_tree *tree, const struct show_process *process,
		     void (*each)(void *context, const char *name, uint32_t id, bool own), void *context);

/* --- A file --- */

struct show_file {
	const char *kind; /* "file", "pipe", "tcp socket" ... */
	char *what;	  /* path, addresses, counter ...: one line, bytes as in the image */
	const char *path; /* NULL: it has none */
	bool has_flags, has_position;
	uint32_t flags; /* O_* */
	uint64_t position;
	bool is_deleted;
};

struct show_file show_describe(const struct show_tree *tree, const FileEntry *file); /* free .what */
/* Calls `each` for the access mode ("read", "write", "read-write") and every other flag ("append"). */
void show_flags(uint32_t flags, void (*each)(void *context, const char *name), void *context);

/* --- An image --- */

/* All records of one image file. 0 or -errno, recorded. */
int show_image(FILE *out, const char *path, bool as_json) must_check;

/* --- Statistics --- */

/* stats-dump and stats-restore of a work directory, as far as they are there. 0 or -errno, recorded. */
int show_statistics(FILE *out, struct image_store *store, bool as_json) must_check;
/* The picture of a journey, for a terminal of this width. The times must be possible: see show_stats.c. */
void show_times(FILE *out, const JourneyTimesEntry *times, unsigned width, bool is_utf8);

/* --- Text --- */

/* Prints `text` with terminal control characters escaped. Returns the width in characters. */
unsigned show_clean(FILE *out, const char *text);

/*
 * Looks at the first character of a text with arbitrary bytes. Returns its length in bytes, 1 or more. *is_valid is
 * false for a byte that does not begin a UTF-8 character; *is_printable is false for characters that control a
 * terminal. `text` is not empty.
 */
size_t show_character(const char *text, size_t length, bool *is_valid, bool *is_printable);

void show_text(FILE *out, const struct show_tree *tree);
void show_json(FILE *out, const struct show_tree *tree);

#endif
