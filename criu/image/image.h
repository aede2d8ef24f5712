/*
 * image.h - image files: a header, then protobuf records. A record can have raw bytes behind it.
 *
 * A `store` holds images: a directory, or memory for tests. An `image` is one open file of a store, buffered. Names,
 * magics and message types come from the catalog (catalog.c), one row for each kind; they are those of CRIU 4.2's
 * format.
 *
 * Images are untrusted. Every length is checked against the rest of the file before it is used. A torn or forged file
 * is an error that names the file (fail() is called here), and never a crash.
 */
#ifndef CRIU_IMAGE_IMAGE_H
#define CRIU_IMAGE_IMAGE_H

#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"
#include "image/compression.h"

/* Each has one row in catalog.c. */
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
	IMAGE_BPFMAP_DATA,
	IMAGE_PSTREE,
	IMAGE_FS,
	IMAGE_FILES,
	IMAGE_REMAP_FPATH,
	IMAGE_GHOST_FILE,
	IMAGE_MEMFD_INODE,
	IMAGE_TTY_INFO,
	IMAGE_TTY_DATA,
	IMAGE_SK_QUEUES,  /* bytes behind each record */
	IMAGE_TCP_STREAM, /* bytes behind the record */
	IMAGE_FILE_LOCKS,
	IMAGE_PAGES,	    /* raw */
	IMAGE_PACKED_PAGES, /* the same, compressed: memory/packed.h */
	IMAGE_SECCOMP,
	IMAGE_CGROUP,
	IMAGE_UTSNS,
	IMAGE_IPCNS_SHM,
	IMAGE_IPCNS_SEM, /* a record, then the values */
	IMAGE_IPCNS_MSG, /* a record, then the messages */
	IMAGE_MQUEUE,
	IMAGE_TIMENS,
	IMAGE_CPUINFO,
	IMAGE_TRACKING,
	IMAGE_HASHES, /* a record, then 16 bytes for each page */
	IMAGE_INOTIFY_EVENTS,
	IMAGE_STATS, /* stats-dump (id 0) and stats-restore (id 1) */
	IMAGE_KINDS
};

struct image_store; /* opaque */

/*
 * Opens a directory of images. For writing it is created if it is missing (0700). Files in it have mode 0600, are
 * opened beneath it, and no symbolic link is followed. The store keeps its own descriptor of the directory. 0 or
 * -errno, recorded. Opening to read does not check that the dump is complete: inventory_read() does.
 */
int image_store_open_directory(struct image_store **store, const char *path, bool for_writing) must_check;
int image_store_open_fd(struct image_store **store, int directory, bool for_writing) must_check; /* dup'ed */
int image_store_open_memory(struct image_store **store) must_check; /* for tests; its files are memfds */
void image_store_close(struct image_store *store);
int image_store_directory(const struct image_store *store);	/* its fd; -1 for memory */
int image_store_new_directory(const struct image_store *store); /* where the new images of a dump are made */
const char *image_store_name(const struct image_store *store);

struct image; /* opaque */

#define IMAGE_NAME_SIZE 64
/* The name of the file, from the catalog, in `name`, which is also returned. */
const char *image_file_name(char name[IMAGE_NAME_SIZE], enum image_kind kind, unsigned long id);

/* image_open() returns -ENOENT but does not record it: many images are optional. Other errors are recorded. */
int image_open(struct image_store *store, struct image **image, enum image_kind kind, unsigned long id)
	must_check;
int image_create(struct image_store *store, struct image **image, enum image_kind kind, unsigned long id)
	must_check;
/*
 * Closes an image that was created, or may have been; writes what is still buffered. 0 or -errno, recorded. NULL is
 * fine.
 */
int image_close(struct image *image) must_check;
/* Closes an image that was opened to read. NULL is fine. */
void image_close_read(struct image *image);
/*
 * For an image that is given up because of another failure, which is recorded already: what is buffered is dropped, and
 * closing it returns `error`. NULL is fine.
 */
void image_abandon(struct image *image, int error);
const char *image_name(const struct image *image);
uint64_t image_size(const struct image *image);
/*
 * For raw images and bulk data behind a record. Reading never moves the offset of the descriptor: use image_position()
 * and pread(). To write, call image_flush() first, then append at the offset of the descriptor.
 */
int image_fd(const struct image *image);

/* Writes one record (length and packed message). As all writes here: 0 or -errno, recorded. */
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
 * The same for very many small messages, without creating any: the integers of the fields 1 to `count` (bit N of
 * *given: field N is there). Fields with larger numbers are skipped, as by any reader that does not know them.
 */
int image_read_integers(struct image *image, const ProtobufCMessageDescriptor *descriptor, uint64_t *values,
			unsigned count, unsigned *given) must_check;
int image_read_bytes(struct image *image, void *bytes, size_t size) must_check;
int image_skip_bytes(struct image *image, uint64_t size) must_check;
uint64_t image_position(const struct image *image);

/* Reads the record of an image that has just one: opens, reads, closes. 0 or -errno; -ENOENT is not recorded. */
int image_read_single(struct image_store *store, enum image_kind kind, unsigned long id,
		      ProtobufCMessage **message) must_check;
int image_write_single(struct image_store *store, enum image_kind kind, unsigned long id,
		       const ProtobufCMessage *message) must_check;

/* Typed: CoreEntry *core; result = image_read_as(image, core_entry, &core); */
#define image_read_as(image, type, out) image_read(image, &type##__descriptor, (ProtobufCMessage **)(out))
#define image_free(message)                                                           \
	do {                                                                          \
		__typeof__(message) message_freed = (message);                        \
                                                                                      \
		if (message_freed)                                                    \
			protobuf_c_message_free_unpacked(&message_freed->base, NULL); \
	} while (0)

/*
 * Changes to complete images. A new version of an image is made beside it. When that is closed, image_store_replace()
 * syncs it and gives it the name of the old one, so that at every instant one of the two is there. A removal is durable
 * when image_store_sync() returns. 0 or -errno, recorded.
 */
int image_create_beside(struct image_store *store, struct image **image, enum image_kind kind,
			unsigned long id) must_check;
int image_store_replace(struct image_store *store, enum image_kind kind, unsigned long id) must_check;
int image_store_sync_image(struct image_store *store, enum image_kind kind, unsigned long id) must_check;
int image_store_sync(struct image_store *store) must_check; /* the directory: names made, removed, renamed */
int image_store_remove(struct image_store *store, const char *name) must_check; /* of image_store_list() */
/* A descriptor to change a pages image in place; the caller closes it. */
int image_open_to_change(struct image_store *store, enum image_kind kind, unsigned long id) must_check;

/* The names of all images. To be freed with image_names_free(), also after an error. */
struct image_names {
	char **items; /* sorted */
	size_t count;
};
int image_store_list(struct image_store *store, struct image_names *names) must_check;
void image_names_free(struct image_names *names);
/* Copies an image to a new file in `to`, which image_store_commit() will sync. */
struct copier; /* base/copy.h */
int image_store_copy(struct image_store *to, struct image_store *from, const char *name,
		     struct copier *copier) must_check;
/* Is it the name of an image of this kind? *id is its number. */
bool image_name_is(const char *name, enum image_kind kind, unsigned long *id);

/*
 * The lock of a directory of images: one writer (dump, pre-dump, dedup, flatten, untrack), or any number of readers
 * (restore, and any command that reads a parent). It is flock(2) on the directory, so the kernel releases it however
 * criu ends. -EBUSY, recorded with the owner: another process holds it. Where the file system has no locks (some
 * network file systems), criu logs a warning and goes on.
 *
 * If a crash interrupted a dump that was about to replace an older one, this completes the replacement.
 */
enum image_use { IMAGES_ARE_READ, IMAGES_ARE_WRITTEN };
int image_store_lock(struct image_store *store, enum image_use use) must_check;
void image_store_unlock(struct image_store *store); /* image_store_close() does so, too */

/* Of pages in images that will be created. Until it is set: COMPRESS_NEVER. */
void image_store_set_compression(struct image_store *store, enum compression compression);
enum compression image_store_compression(const struct image_store *store);

/*
 * Begins a dump. The caller holds the write lock (image_store_lock()). An older complete dump in the directory stays as
 * it is until the new one is complete and synced (replace.c). Images that belong to no complete dump are removed: many
 * images are optional, and old ones would become part of the new dump.
 *
 * `parent` is the path of the snapshot that the new one builds on, relative to the directory; NULL: none. 0 or -errno,
 * recorded.
 */
int image_store_begin(struct image_store *store, const char *parent) must_check;
/*
 * Syncs everything that was created, and only then gives inventory.img its name: a directory without it is no dump. All
 * images must be closed. An older dump is moved out of the way of readers, but kept.
 */
int image_store_commit(struct image_store *store, const ProtobufCMessage *inventory) must_check;
/* Has an image of this kind been created since image_store_begin()? */
bool image_store_has_created(const struct image_store *store, enum image_kind kind);
/*
 * The dump failed, before or after the commit: removes its images and brings an older dump back. Failures are logged.
 */
void image_store_withdraw(struct image_store *store);
/* The dump can no longer fail: removes the older dump. Failures are logged. */
void image_store_settle(struct image_store *store);

/* The catalog, for `criu show` and for tests. */
struct image_type {
	const char *name;    /* as `crit` prints it: "CORE" */
	const char *pattern; /* "core-%lu.img" */
	uint32_t magic;	     /* 0: raw, no header */
	enum image_header { HEADER_RAW, HEADER_BARE, HEADER_COMMON, HEADER_SERVICE } header;
	const ProtobufCMessageDescriptor *descriptor; /* NULL: raw */
	const ProtobufCMessageDescriptor *following;  /* type of the records after the first, if it differs */
};
extern const struct image_type image_types[IMAGE_KINDS];

#endif
