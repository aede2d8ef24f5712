/*
 * external.c - files from outside of the tree, which the user names (--external, --inherit-fd): asks the table of
 * model/external.h about each file, once, before its kind sees it. The kinds find the answer in file->external.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "model/external.h"

#define MOST_ADVISED 5

/* ---- dump ---- */

struct external_key external_key_of_terminal(const struct seen_file *seen)
{
	return (struct external_key){ EXTERNAL_TTY, { seen->stat.st_rdev, seen->stat.st_dev }, NULL };
}

bool external_key_of_file(const struct seen_file *seen, struct external_key *key)
{
	mode_t mode = seen->stat.st_mode;

	if (seen->fd < 0 || seen->link[0] != '/' || seen->info.mount < 0 ||
	    !(S_ISREG(mode) || S_ISDIR(mode) || S_ISCHR(mode) || S_ISBLK(mode)))
		return false;
	*key = (struct external_key){ EXTERNAL_FILE, { seen->info.mount, seen->stat.st_ino }, NULL };
	return true;
}

const struct file_kind *files_find_external(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	struct external_key key;

	if (!externals_any(snapshot->externals) || seen->fd < 0)
		return NULL;
	if (file_kind_terminal.recognizes(snapshot, seen)) {
		key = external_key_of_terminal(seen);
		file->external = externals_find(snapshot->externals, EXTERNAL_SAVED, &key);
		if (file->external)
			return &file_kind_terminal;
	}
	if (external_key_of_file(seen, &key))
		file->external = externals_find(snapshot->externals, EXTERNAL_SAVED, &key);
	return file->external ? &file_kind_regular : NULL;
}

bool file_is_named(struct snapshot *snapshot, const struct external_key *key)
{
	return externals_find(snapshot->externals, EXTERNAL_SAVED, key);
}

/* Keys of files and terminals; each once. */
struct keys {
	struct external_key *items;
	size_t count;
};

/* The options that would have helped. */
struct advised {
	struct keys keys;
	bool on_terminal; /* --shell-job would do, too */
};

static void clear_advised(void *state)
{
	free(((struct advised *)state)->keys.items);
}

static const struct state_type advised_type = { sizeof(struct advised), clear_advised };

static void add_key(struct keys *keys, const struct external_key *key)
{
	for (size_t i = 0; i < keys->count; i++)
		if (keys->items[i].type == key->type &&
		    !memcmp(keys->items[i].numbers, key->numbers, sizeof(key->numbers)))
			return;
	if (keys->count <= MOST_ADVISED)
		*grow(&keys->items, &keys->count) = *key;
}

/* "--external A --external B": to be freed. An advice has not room for many. */
static char *options_for(const struct keys *keys, const char *option)
{
	char *all = NULL;

	for (size_t i = 0; i < keys->count; i++) {
		autofree char *before = all, *name = external_key_text(&keys->items[i]);

		all = i == MOST_ADVISED ?
			      format_text("%s …", before) :
			      format_text("%s%s%s%s", before ?: "", before ? " " : "", option, name);
	}
	return all;
}

void file_advise_external(const struct snapshot *snapshot, const struct seen_file *seen)
{
	struct advised *advised = snapshot_state(snapshot, &advised_type);
	struct external_key key;

	if (seen->fd < 0)
		return;
	if (file_kind_terminal.recognizes(snapshot, seen))
		key = external_key_of_terminal(seen);
	else if (!external_key_of_file(seen, &key))
		return;
	add_key(&advised->keys, &key);
}

void file_advise_shell_job(const struct snapshot *snapshot, const struct seen_file *seen)
{
	struct advised *advised = snapshot_state(snapshot, &advised_type);

	advised->on_terminal = true;
	file_advise_external(snapshot, seen);
}

void files_give_advice(const struct snapshot *snapshot)
{
	const struct advised *advised = snapshot_state(snapshot, &advised_type);
	autofree char *dump = options_for(&advised->keys, "--external "),
		      *restore = options_for(&advised->keys, "--inherit-fd fd[N]:");

	if (!dump)
		return;
	fail_advice("%s%s, and %s for the restore",
		    advised->on_terminal ?
			    "--shell-job (-j), to restore it on the terminal where criu restore runs; or " :
			    "",
		    dump, restore);
}

/* ---- restore ---- */

void files_find_inherited(struct snapshot *snapshot)
{
	struct externals *externals = snapshot->externals;
	struct external_key key;

	if (!externals_any(externals))
		return;
	for (size_t i = 0; i < snapshot->file_count; i++) {
		struct file *file = snapshot->files[i];

		/* A file that is only mapped, executed or a directory of a process is always found by its path. */
		if (!file_is_open(file) || !file->kind->external_key ||
		    !file->kind->external_key(snapshot, file, &key))
			continue;
		file->external = externals_find(externals, EXTERNAL_INHERITED, &key);
		file->is_shared_outside = file->external &&
					  (key.type == EXTERNAL_PATH || key.type == EXTERNAL_TTY ||
					   key.type == EXTERNAL_SOCKET);
	}
	externals->is_complete = true;
	externals_warn(externals, EXTERNAL_INHERITED);
}

int file_check(struct snapshot *snapshot, struct file *file)
{
	struct stat found;

	if (!file->external)
		return file->kind->check(snapshot, file);
	if (fstat(file->external->fd, &found) < 0)
		return fail(errno, "--inherit-fd %s: cannot stat the descriptor", file->external->text);
	return file->kind->check_external(snapshot, file, &found);
}

/* Those that only --external names: the others would have been found in another way. */
static bool is_lacking(const struct snapshot *snapshot, const struct file *file, struct external_key *key)
{
	return file_is_open(file) && !file->external && file->kind->external_key &&
	       file->kind->external_key(snapshot, file, key) &&
	       (key->type == EXTERNAL_FILE || key->type == EXTERNAL_TTY);
}

int file_lacks_external(const struct snapshot *snapshot, const struct external_key *key)
{
	autofree char *name = external_key_text(key), *options = NULL;
	struct keys keys = { 0 };
	struct external_key other;

	add_key(&keys, key);
	for (size_t i = 0; i < snapshot->file_count; i++)
		if (is_lacking(snapshot, snapshot->files[i], &other))
			add_key(&keys, &other);
	options = options_for(&keys, "--inherit-fd fd[N]:");
	free(keys.items);
	fail_advice("%s", options);
	return fail(ENOENT, "%s is from outside of the processes, and no descriptor was given for it", name);
}

int file_is_wrong_external(const struct file *file, const char *wanted)
{
	return fail(EINVAL, "--inherit-fd %s: descriptor %d is not %s", file->external->text,
		    file->external->fd, wanted);
}

int file_open_external_again(const struct file *file, int flags)
{
	char path[32];
	int fd;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", file->external->fd);
	/* This path is a link, whatever it leads to. */
	fd = open(path, (flags_to_reopen(flags) & ~O_NOFOLLOW) | O_NOCTTY | O_CLOEXEC);
	return fd < 0 ? fail(errno, "--inherit-fd %s: cannot open the file again", file->external->text) : fd;
}

int file_share_external(const struct file *file)
{
	int fd = fcntl(file->external->fd, F_DUPFD_CLOEXEC, 0);

	return fd < 0 ? fail(errno, "--inherit-fd %s: cannot copy the descriptor", file->external->text) : fd;
}

int file_open(struct snapshot *snapshot, struct file *file)
{
	int fd;

	if (file->external)
		log_info("file %u is %s", file->id, file->external->text);
	fd = file->external ? file->kind->open_external(snapshot, file) : file->kind->open(snapshot, file);
	return fd < 0 ? fail_in(fd, "file %u of files.img (%s)", file->id, file->kind->name) : fd;
}
