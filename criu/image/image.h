/*
 * image.h - image files: a header, then protobuf records, sometimes with raw bytes behind a record.
 *
 * A `store` is where images live: a directory, or memory for tests. An `image` is one open file of it,
 * buffered. Names, magics and message types come from the catalog (catalog.c), one row a kind; its facts are
 * those of CRIU 4.2's format.
 *
 * Images are untrusted: every length is checked against what is left of the file before it is used, a torn or
 * forged file is an error that names it (fail() is called here), and never a crash.
 */
#ifndef CRIU_IMAGE_IMAGE_H
#define CRIU_IMAGE_IMAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

/* One row of catalog.c each. */
enum image_kind {
	IMAGE_INVENTORY,
	IMAGE_FDINFO,
	IMAGE_PAGEMAP,
	IMAGE_SHMEM_PAGEMAP,
	IMAGE_CORE,
	IMAGE_IDS,
	IMAGE_MM,
	IMAGE_PIPES_DATA,
	IMAGE_FIFO_DATA,
	IMAGE_PSTREE,
	IMAGE_FS,
	IMAGE_FILES,
	IMAGE_REMAP_FPATH,
	IMAGE_GHOST_FILE,
	IMAGE_MEMFD_INODE,
	IMAGE_TTY_INFO,
	IMAGE_TTY_DATA,
	IMAGE_FILE_LOCKS,
	IMAGE_PAGES, /* raw */
	IMAGE_SECCOMP,
	IMAGE_CGROUP,
	IMAGE_UTSNS,
	IMAGE_TIMENS,
	IMAGE_CPUINFO,
	IMAGE_TRACKING,
	IMAGE_HASHES, /* a record, then 16 bytes a page */
	IMAGE_STATS,  /* stats-dump (id 0) and stats-restore (id 1) */
	IMAGE_KINDS
};

struct image_store; /* opaque */

/*
 * Opens a directory of images. For writing it is created if missing (0700); files in it are 0600, opened
 * beneath it, no symbolic link followed. The store keeps its own descriptor of the directory. 0 or -errno,
 * recorded. Opening to read does not ask for a complete dump: inventory_read() does.
 */
int image_store_open_directory(struct image_store **store, const char *path, bool for_writing) must_check;
int image_store_open_fd(struct image_store **store, int directory, bool for_writing) must_check; /* dup'ed */
int image_store_open_memory(struct image_store **store) must_check; /* for tests; its files are memfds */
void image_store_close(struct image_store *store);
int image_store_directory(const struct image_store *store); /* its fd; -1 for memory */
const char *image_store_name(const struct image_store *store);

struct image; /* opaque */

#define IMAGE_NAME_SIZE 64
/* As the catalog calls it; `name` is returned. */
const char *image_file_name(char name[IMAGE_NAME_SIZE], enum image_kind kind, unsigned long id);

/* image_open() returns -ENOENT but does not record it: many images are optional. Other errors are recorded. */
int image_open(struct image_store *store, struct image **image, enum image_kind kind, unsigned long id)
	must_check;
int image_create(struct image_store *store, struct image **image, enum image_kind kind, unsigned long id)
	must_check;
/* Closes one that was created, or may have been: what is not written yet is. 0 or -errno, recorded. NULL is fine. */
int image_close(struct image *image) must_check;
/* Closes one that was opened to be read. NULL is fine. */
void image_close_read(struct image *image);
/* Something else has failed, which is told: what has not been written yet is not, and closing it returns `error`. NULL is fine. */
void image_abandon(struct image *image, int error);
const char *image_name(const struct image *image);
uint64_t image_size(const struct image *image);
/*
 * For raw images and bulk data behind a record. Reading never moves the descriptor's own offset: use
 * image_position() and pread(). Writing: image_flush() first, then append at the descriptor's offset.
 */
int image_fd(const struct image *image);

/* Writes one record (length + packed message). Like all that writes here: 0 or -errno, recorded. */
int image_write(struct image *image, const ProtobufCMessage *message) must_check;
int image_write_bytes(struct image *image, const void *bytes, size_t size) must_check;
int image_flush(struct image *image) must_check;

/*
 * Reads the next record into *message (to be freed with protobuf_c_message_free_unpacked(message, NULL)).
 * 1: a record; 0: the end of the image, *message is NULL; -errno, recorded: torn or forged.
 * `descriptor` must be the catalog's for this place of the image: asking for another is a bug (assert).
 */
int image_read(struct image *image, const ProtobufCMessageDescriptor *descriptor, ProtobufCMessage **message)
	must_check;
/*
 * The same for messages of which there are very many, without making one: the integers of the fields 1 to `count` (bit N of *given:
 * field N is there). Fields behind them are skipped, as by any reader who does not know them.
 */
int image_read_integers(struct image *image, const ProtobufCMessageDescriptor *descriptor, uint64_t *values,
			unsigned count, unsigned *given) must_check;
int image_read_bytes(struct image *image, void *bytes, size_t size) must_check;
int image_skip_bytes(struct image *image, uint64_t size) must_check;
uint64_t image_position(const struct image *image);

/* The record of an image that has just one: opens, reads, closes. 0 or -errno; -ENOENT is not recorded. */
int image_read_single(struct image_store *store, enum image_kind kind, unsigned long id,
		      ProtobufCMessage **message) must_check;
int image_write_single(struct image_store *store, enum image_kind kind, unsigned long id,
		       const ProtobufCMessage *message) must_check;

/* Typed helpers:   CoreEntry *core; result = image_read_as(image, core_entry, &core); */
#define image_read_as(image, type, out) image_read(image, &type##__descriptor, (ProtobufCMessage **)(out))
#define image_free(message)                                                       \
	do {                                                                      \
		if (message)                                                      \
			protobuf_c_message_free_unpacked(&(message)->base, NULL); \
	} while (0)

/*
 * Changing images that are complete. A new version of an image is made beside it; when that is closed, image_store_replace()
 * brings it to the disk and puts it in the old one's place: at every instant there is the one or the other. What
 * is removed is gone when image_store_sync() returns. 0 or -errno, recorded.
 */
int image_create_beside(struct image_store *store, struct image **image, enum image_kind kind,
			unsigned long id) must_check;
int image_store_replace(struct image_store *store, enum image_kind kind, unsigned long id) must_check;
int image_store_sync_image(struct image_store *store, enum image_kind kind, unsigned long id) must_check;
int image_store_sync(struct image_store *store) must_check; /* names: made, removed, renamed */
int image_store_remove(struct image_store *store, const char *name) must_check; /* of image_store_list() */
/* A descriptor to change a pages image in place; the caller closes it. */
int image_open_to_change(struct image_store *store, enum image_kind kind, unsigned long id) must_check;

/* What there is, by name. To be freed with image_names_free(), also after an error. */
struct image_names {
	char **items; /* sorted */
	size_t count;
};
int image_store_list(struct image_store *store, struct image_names *names) must_check;
void image_names_free(struct image_names *names);
/* A new file of that name in `to`, which image_store_commit() will bring to the disk. */
struct copier; /* base/copy.h */
int image_store_copy(struct image_store *to, struct image_store *from, const char *name,
		     struct copier *copier) must_check;
/* Is it the name of such an image? Of which? */
bool image_name_is(const char *name, enum image_kind kind, unsigned long *id);

/*
 * Who uses a directory of images says so: one writer (dump, pre-dump, dedup, flatten, untrack), or any number of readers (restore, and
 * whoever reads a parent). The lock is flock(2) on the directory; the kernel gives it back when criu ends, however it ends. -EBUSY,
 * recorded: somebody else has it, and who. Where the file system has no locks (some network file systems), a line in the log says so.
 *
 * A crash may have interrupted a dump that was about to replace an older one: that is brought to its end here.
 */
enum image_use { IMAGES_ARE_READ, IMAGES_ARE_WRITTEN };
int image_store_lock(struct image_store *store, enum image_use use) must_check;
void image_store_unlock(struct image_store *store); /* image_store_close() does so, too */

/*
 * A dump, from its begin to its end. The caller has the directory to itself (image_store_lock()). If it holds an older dump that is
 * complete, that one stays as it is until the new one is complete and on the disk (replace.c). Images that belong to no
 * complete dump are removed: many images are optional, and old ones would become part of the new dump.
 *
 * `parent` leads to the snapshot that the new one builds on, relative to the directory; NULL: to none. 0 or -errno, recorded.
 */
int image_store_begin(struct image_store *store, const char *parent) must_check;
/*
 * Puts everything that was created on the disk, and only then does inventory.img get its name: a directory without it is no dump.
 * All images are closed by then. An older dump is kept aside, out of the way of readers.
 */
int image_store_commit(struct image_store *store, const ProtobufCMessage *inventory) must_check;
/* The dump failed, before or after the commit: its images go, and an older dump is what it was. Failures are logged. */
void image_store_withdraw(struct image_store *store);
/* It cannot fail any more: an older dump goes for good. Failures are logged. */
void image_store_settle(struct image_store *store);

/* The catalog, for `criu show` and for tests. */
struct image_type {
	const char *name;    /* as `crit` prints it: "CORE" */
	const char *pattern; /* "core-%lu.img" */
	uint32_t magic;	     /* 0: raw, no header */
	enum image_header { HEADER_RAW, HEADER_BARE, HEADER_COMMON, HEADER_SERVICE } header;
	const ProtobufCMessageDescriptor *descriptor; /* NULL: raw */
	const ProtobufCMessageDescriptor *following;  /* of records after the first, where they are others */
};
extern const struct image_type image_types[IMAGE_KINDS];

#endif
