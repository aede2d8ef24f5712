/*
 * ghost_load.c - restore: reads and checks remap-fpath.img and ghost-file-ID.img. See ghost.h.
 *
 * The images are read from the beginning to the end twice: here, and when the content is put into the new file. Both
 * times the same function checks them.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <string.h>
#include <sys/stat.h>
#include "base/copy.h"
#include "base/error.h"
#include "base/interrupt.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "files/passing_name.h"
#include "image/message.h"
#include "model/inode.h"

#define PIECE		(64ULL << 20) /* what is copied between two looks for a signal */
#define SECOND		1000000	      /* us */
#define ATTRIBUTE_NAME	255	      /* XATTR_NAME_MAX, XATTR_SIZE_MAX, XATTR_LIST_MAX of Linux */
#define ATTRIBUTE_SIZE	65536
#define ATTRIBUTE_COUNT 65536
#define HANDLE_SIZE	128 /* MAX_HANDLE_SZ */

/* ---- content ---- */

struct reading {
	struct image *image;
	const char *path; /* of the ghost, for messages */
	struct copier copier;
	int to;
};

static int copy_range(struct reading *reading, uint64_t offset, uint64_t size)
{
	uint64_t from = image_position(reading->image);
	int result = 0;

	for (uint64_t done = 0, take; reading->to >= 0 && !result && done < size; done += take) {
		take = min(size - done, PIECE);
		result = copier_copy(&reading->copier, image_fd(reading->image), from + done, reading->to,
				     offset + done, take);
		if (result)
			return fail(-result, "cannot write the content of the deleted file %s",
				    reading->path);
		result = interrupt_check();
	}
	return result ?: image_skip_bytes(reading->image, size);
}

static int read_chunks(struct reading *reading, uint64_t size)
{
	GhostChunkEntry *chunk;
	int result;

	while ((result = image_read_as(reading->image, ghost_chunk_entry, &chunk)) > 0) {
		uint64_t offset = chunk->off, length = chunk->len;

		image_free(chunk);
		if (offset > size || length > size - offset)
			return fail(EINVAL, "%s has content behind the end of the file",
				    image_name(reading->image));
		result = copy_range(reading, offset, length);
		if (result)
			break;
	}
	return result;
}

static int set_size(const struct reading *reading, uint64_t size)
{
	int result = reading->to < 0 ? 0 : copier_size(reading->to, size);

	return result ? fail(-result, "cannot give the deleted file %s its size", reading->path) : 0;
}

static int read_content(struct reading *reading, const GhostFileEntry *entry)
{
	uint64_t rest = image_size(reading->image) - image_position(reading->image);
	uint64_t size = entry->chunks ? entry->size : rest;

	if (!S_ISREG(entry->mode))
		return rest ? fail(EINVAL, "%s has content, but is no regular file",
				   image_name(reading->image)) :
			      0;
	if (size > INT64_MAX || (entry->chunks && !entry->has_size) ||
	    (entry->has_size && entry->size != size))
		return fail(EINVAL, "%s has content of another size than the file",
			    image_name(reading->image));
	return set_size(reading, size) ?:
		       entry->chunks   ? read_chunks(reading, size) :
					 copy_range(reading, 0, rest);
}

static const char *find_mistake(const GhostFileEntry *entry)
{
	if (!ghost_is_possible(entry->mode, entry->rdev) || entry->mode & ~(S_IFMT | 07777u))
		return "an invalid mode or device";
	if (entry->uid == UINT32_MAX || entry->gid == UINT32_MAX)
		return "an invalid owner";
	if (S_ISLNK(entry->mode) &&
	    (!entry->symlnk_target || !*entry->symlnk_target || strlen(entry->symlnk_target) >= PATH_MAX))
		return "an invalid target";
	if (!inode_times_are_possible(entry->times) ||
	    (entry->atim && (uint64_t)entry->atim->tv_usec >= SECOND) ||
	    (entry->mtim && (uint64_t)entry->mtim->tv_usec >= SECOND))
		return "invalid times";
	if (entry->n_attributes > ATTRIBUTE_COUNT)
		return "too many attributes";
	for (size_t i = 0; i < entry->n_attributes; i++)
		if (!*entry->attributes[i]->name || strlen(entry->attributes[i]->name) > ATTRIBUTE_NAME ||
		    entry->attributes[i]->value.len > ATTRIBUTE_SIZE)
			return "an invalid attribute";
	return NULL;
}

static int read_entry(struct reading *reading, struct nameless *nameless)
{
	const char *mistake;
	GhostFileEntry *entry;
	int result = image_read_as(reading->image, ghost_file_entry, &entry);

	if (result <= 0)
		return result ?: fail(EINVAL, "%s is empty", image_name(reading->image));
	if (nameless->ghost && (nameless->ghost->mode ^ entry->mode) & S_IFMT) {
		image_free(entry);
		return fail(EINVAL, "%s has changed since it was checked", image_name(reading->image));
	}
	image_free(nameless->ghost);
	nameless->ghost = entry;
	mistake = find_mistake(entry);
	return mistake ? fail(EINVAL, "%s has %s", image_name(reading->image), mistake) : 0;
}

int ghost_read(const struct snapshot *snapshot, struct nameless *nameless, int to)
{
	struct reading reading = { .path = nameless->file->entry->reg->name, .to = to };
	char name[IMAGE_NAME_SIZE];
	int result = image_open(snapshot->images, &reading.image, IMAGE_GHOST_FILE, nameless->id);

	if (result)
		return result == -ENOENT ? fail(ENOENT, "%s is missing",
						image_file_name(name, IMAGE_GHOST_FILE, nameless->id)) :
					   result;
	result = read_entry(&reading, nameless) ?: read_content(&reading, nameless->ghost);
	image_close_read(reading.image);
	return result;
}

/* ---- remap-fpath.img ---- */

/* The path must have a last component, which a new file can have as its name. */
static bool has_name(const char *path)
{
	const char *last = strrchr(path, '/');

	return path[0] == '/' && last[1] && strcmp(last, "/.") && strcmp(last, "/..");
}

static int find_files(struct snapshot *snapshot, const RemapFilePathEntry *entry, struct file **file,
		      struct file **link)
{
	*file = snapshot_find_file(snapshot, entry->orig_id);
	*link = entry->remap_type == REMAP_TYPE__LINKED ? snapshot_find_file(snapshot, entry->remap_id) :
							  NULL;
	if (!*file || (*file)->kind != &file_kind_regular || !has_name((*file)->entry->reg->name))
		return fail(EINVAL, "remap-fpath.img: file %u is not a regular file with a path",
			    entry->orig_id);
	if ((*file)->nameless)
		return fail(EINVAL, "remap-fpath.img: file %u occurs twice", entry->orig_id);
	if (entry->remap_type == REMAP_TYPE__LINKED &&
	    (!*link || *link == *file || (*link)->kind != &file_kind_regular || (*link)->nameless ||
	     !has_name((*link)->entry->reg->name)))
		return fail(EINVAL, "remap-fpath.img: file %u, a link to file %u, is missing",
			    entry->remap_id, entry->orig_id);
	return 0;
}

static int add_link(struct nameless *nameless, const RemapFilePathEntry *entry, struct file *link)
{
	nameless->link = link;
	link->is_only_path = true;
	if (!entry->has_handle)
		return 0;
	if (!entry->has_handle_type || !entry->handle.len || entry->handle.len > HANDLE_SIZE)
		return fail(EINVAL, "remap-fpath.img: file %u has an invalid handle", entry->orig_id);
	nameless->handle_type = entry->handle_type;
	nameless->handle_size = entry->handle.len;
	nameless->handle = copy_bytes(entry->handle.data, entry->handle.len);
	return 0;
}

static int add_ended(struct snapshot *snapshot, const RemapFilePathEntry *entry, struct file *file)
{
	if (!entry->remap_id || entry->remap_id > INT32_MAX)
		return fail(EINVAL, "remap-fpath.img: file %u is about an invalid process", entry->orig_id);
	if (strncmp(file->entry->reg->name, "/proc/", strlen("/proc/")) != 0)
		return fail(
			EINVAL,
			"remap-fpath.img: file %u (%s) is not a file of /proc about a process that has ended",
			entry->orig_id, file->entry->reg->name);
	nameless_add_ended(snapshot, entry->remap_id, file);
	return 0;
}

/* `known`: those of the entries before, by what takes the place of the file. */
static int add_entry(struct snapshot *snapshot, const RemapFilePathEntry *entry, struct index *known)
{
	uint64_t key = (uint64_t)entry->remap_type << 32 | entry->remap_id;
	struct nameless *nameless = index_find(known, key);
	struct file *file, *link;
	int result = find_files(snapshot, entry, &file, &link);

	if (result)
		return result;
	if (entry->remap_type == REMAP_TYPE__PROCFS)
		return add_ended(snapshot, entry, file);
	if (nameless) {
		file->nameless = nameless;
		return 0;
	}
	nameless = nameless_add(snapshot, file);
	index_set(known, key, nameless);
	if (link)
		return add_link(nameless, entry, link);
	nameless->id = entry->remap_id;
	return ghost_read(snapshot, nameless, -1);
}

/* O_TMPFILE shows in the flags of the open file that made it, and of no other. */
static void find_originals(struct snapshot *snapshot)
{
	for (size_t i = 0; i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];
		struct nameless *nameless = file->nameless;

		if (nameless && nameless->ghost && S_ISREG(nameless->ghost->mode) && !nameless->original &&
		    file_is_open(file) && (file->entry->reg->flags & O_TMPFILE) == O_TMPFILE &&
		    (file->entry->reg->flags & O_ACCMODE) != O_RDONLY)
			nameless->original = file;
	}
}

int nameless_load(struct snapshot *snapshot)
{
	struct index known = { 0 };
	struct image *image;
	RemapFilePathEntry *entry;
	int result = image_open(snapshot->images, &image, IMAGE_REMAP_FPATH, 0);

	if (result)
		return result == -ENOENT ? 0 : result;
	while ((result = image_read_as(image, remap_file_path_entry, &entry)) > 0) {
		result = add_entry(snapshot, entry, &known);
		image_free(entry);
		if (result)
			break;
	}
	image_close_read(image);
	index_free(&known);
	find_originals(snapshot);
	return result;
}

int nameless_check(const struct snapshot *snapshot unused, const struct file *file)
{
	const struct nameless *nameless = file->nameless;
	const RegFileEntry *entry = file->entry->reg;
	mode_t mode = nameless->ghost ? nameless->ghost->mode : S_IFREG;
	int error;

	if (!nameless->ghost)
		return link_check(file);
	if (entry->has_mode && (entry->mode ^ mode) & S_IFMT)
		return fail(EINVAL, "ghost-file-%x.img is of another type than file %u of files.img (%s)",
			    nameless->id, file->id, entry->name);
	if (!file->is_only_path && !(entry->flags & O_PATH) && (S_ISFIFO(mode) || S_ISLNK(mode)))
		return fail(EINVAL, "files.img: file %u (%s) is neither a regular file nor a directory",
			    file->id, entry->name);
	error = -passing_name_check(entry->name);
	return error ? fail(error, "the deleted file %s cannot be made again in its directory", entry->name) :
		       0;
}
