/*
 * unix_path.c - the paths of unix sockets.
 *
 * bind() creates a file at the path, and the socket remembers the path as it was given. From then on only the file
 * counts: it may be moved or deleted, and the socket can be reached wherever the file is.
 *
 * A restore must not touch what is at the path until nothing can fail any more, and the path must not be missing for a
 * moment. So it binds sockets in a new directory, one for all of a place, which is the root directory meanwhile:
 *
 *	/run/.criu-Qx81Zb/		new; beside the place where the file has to be (or in /tmp, if it was deleted)
 *	chroot(), bind("/run/a/x")	creates /run/.criu-Qx81Zb/run/a/x
 *	/run/.criu-Qx81Zb-0.socket	the file moves here; the directory is removed after the last one
 *	/run/x				in the last step of the restore, the file moves here
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/ghost.h"
#include "image/message.h"
#include "kernel/place.h"
#include "kernel/proc.h"
#include "sockets/unix_steps.h"

/* <linux/un.h>, which also defines what <sys/un.h> defines */
#ifndef SIOCUNIXFILE
#define SIOCUNIXFILE (SIOCPROTOPRIVATE + 0)
#endif

/*
 * A datagram socket is asked to connect: if a socket of another type is there, that fails (EPROTOTYPE); and if it is
 * one of datagrams, nothing is sent to it. It may be connected to another one, and accept nobody (EPERM).
 */
static bool is_reached_through(int file)
{
	autoclose int probe = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct sockaddr_un address = { .sun_family = AF_UNIX };

	snprintf(address.sun_path, sizeof(address.sun_path), "/proc/self/fd/%d", file);
	return probe >= 0 && (connect(probe, (struct sockaddr *)&address, sizeof(address)) == 0 ||
			      errno == EPROTOTYPE || errno == EPERM);
}

bool unix_is_reached(const char *path)
{
	autoclose int file = open(path, O_PATH | O_CLOEXEC);

	return file >= 0 && is_reached_through(file);
}

/* ---- dump ---- */

bool unix_is_bound(const struct seen_file *seen)
{
	autoclose int fd = attempted(files_borrow(seen));
	autoclose int file = fd < 0 ? -1 : ioctl(fd, SIOCUNIXFILE);

	return file >= 0 && is_reached_through(file);
}

static bool leads_to(const char *path, const struct stat *file)
{
	struct stat found;

	return stat(path, &found) == 0 && found.st_ino == file->st_ino && found.st_dev == file->st_dev;
}

/* The directory from which the name leads to the file; NULL: none that is known. To be freed. */
static char *find_directory(const struct seen_file *seen, const char *name, const char *path,
			    const struct stat *file)
{
	size_t length = strlen(path), end = strlen(name);
	autofree char *current = NULL, *joined = NULL;

	if (length > end + 1 && path[length - end - 1] == '/' && !strcmp(path + length - end, name))
		return format_text("%.*s", (int)(length - end - 1), path);
	if (!seen->holder.session || read_link_at(seen->holder.proc, "cwd", &current) < 0)
		return NULL;
	joined = format_text("%s/%s", current, name);
	return leads_to(joined, file) ? steal_pointer(&current) : NULL;
}

/* Does the bound name still lead to the file? */
static bool is_at_name(const struct seen_file *seen, UnixSkEntry *entry, const char *path,
		       const struct stat *file)
{
	autofree char *name = format_text("%.*s", (int)entry->name.len, entry->name.data);

	if (name[0] == '/')
		return leads_to(name, file);
	entry->name_dir = find_directory(seen, name, path, file);
	return entry->name_dir;
}

/* Servers bind a temporary name, give the file another one by link(), and remove the first. NULL: no path is known. */
static char *find_link(const char *path, const struct stat *file)
{
	autofree char *deleted = proc_link_path(path);

	return leads_to(path, file) ? copy_text(path) : link_beside(deleted, file);
}

int unix_describe_path(struct file *file, int fd)
{
	const struct seen_file *seen = file->seen;
	UnixSkEntry *entry = file->entry->usk;
	autoclose int bound = ioctl(fd, SIOCUNIXFILE);
	autofree char *place = NULL, *path = NULL;
	struct stat found;

	if (bound < 0 || fstat(bound, &found) < 0)
		return fail(errno, "cannot open the path of a unix socket");
	entry->file_perms = message_new(FilePermsEntry, file_perms_entry);
	entry->file_perms->mode = found.st_mode;
	entry->file_perms->uid = found.st_uid;
	entry->file_perms->gid = found.st_gid;
	place = format_text("/proc/self/fd/%d", bound);
	if (read_link_at(AT_FDCWD, place, &path) < 0)
		return fail(errno, "cannot read the path of a unix socket");
	if (found.st_nlink && is_at_name(seen, entry, path, &found))
		return 0;
	message_set(entry, deleted, true);
	if (!found.st_nlink)
		return 0;
	entry->path = find_link(path, &found);
	if (!entry->path)
		return refuse(
			"process %d (%s): descriptor %d (%s) is bound to a file that no path leads to (%s)",
			seen->holder.here, seen->holder.name, seen->fd, seen->link, path);
	return 0;
}

/* ---- restore: the place ---- */

char *unix_place_of(const UnixSkEntry *entry)
{
	if (!unix_has_path(entry))
		return NULL;
	if (entry->path)
		return copy_text(entry->path);
	if (entry->deleted)
		return NULL;
	if (entry->name_dir && entry->name.data[0] != '/')
		return format_text("%s/%.*s", entry->name_dir, (int)entry->name.len, entry->name.data);
	return format_text("%.*s", (int)entry->name.len, entry->name.data);
}

/* The part of the path before its last component, with the '/'. */
static size_t directory_length(const char *path)
{
	const char *last = strrchr(path, '/');

	return last ? last - path + 1 : 0;
}

static int fail_for_owner(struct unix_facts *facts, const struct unix_fact *fact, const struct file *file,
			  const char *what)
{
	autofree char *holder = fact ? unix_holder_in_words(facts, fact->inode) : copy_text("a process");

	fail_advice("end that process before the restore");
	return fail(EADDRINUSE, "file %u of files.img: %s already has a unix socket at %s", file->id, holder,
		    what);
}

static int check_abstract(struct unix_facts *facts, const struct file *file, const struct unix_name *name)
{
	const struct unix_fact *fact = unix_fact_of_name(facts, file->entry->usk->type, name->bytes,
							 name->size);
	autofree char *words = NULL;

	if (!fact || unix_await_end(facts, fact->inode))
		return 0;
	words = format_text("@%.*s", (int)name->size - 1, name->bytes + 1);
	return fail_for_owner(facts, fact, file, words);
}

static int check_socket(struct unix_facts *facts, const struct file *file, const struct unix_name *name,
			const struct stat *found)
{
	const struct unix_fact *fact;

	if (!unix_is_reached(name->place))
		return 0; /* nobody is there: the dump has left it */
	fact = unix_fact_of_file(facts, found->st_dev, found->st_ino);
	return fact && unix_await_end(facts, fact->inode) ? 0 :
							    fail_for_owner(facts, fact, file, name->place);
}

int unix_check_place(struct unix_facts *facts, const struct file *file, struct unix_name *name)
{
	autofree char *directory = NULL;
	struct stat found;

	if (name->size && !name->bytes[0])
		return check_abstract(facts, file, name);
	if (!name->place)
		return 0;
	directory = format_text("%.*s", (int)directory_length(name->place), name->place);
	if (stat(directory, &found) < 0)
		return fail(errno, "file %u of files.img: cannot create the unix socket %s", file->id,
			    name->place);
	name->is_free = lstat(name->place, &found) < 0;
	if (name->is_free)
		return errno == ENOENT ? 0 :
					 fail(errno, "file %u of files.img: cannot create the unix socket %s",
					      file->id, name->place);
	if (!S_ISSOCK(found.st_mode)) {
		fail_advice("move it away");
		return fail(EEXIST, "file %u of files.img: cannot create the unix socket %s", file->id,
			    name->place);
	}
	return check_socket(facts, file, name, &found);
}

/* ---- restore: bind ---- */

/* The temporary directory for all names in one place, and the directories of a bound name inside of it. */
struct nest {
	char path[PATH_MAX];
	size_t place;		  /* length of the path of its own directory, with the last '/' */
	size_t top;		  /* length of the path of the temporary directory; 0: there is none */
	size_t number;		  /* of sockets that were taken out of it */
	char *made[LONGEST_NAME]; /* paths of the directories that were made in it */
	size_t count;
};

static int nest_enter(struct nest *nest, const char *name, size_t length, bool is_last)
{
	size_t end = strlen(nest->path);

	if (!length || (length == 1 && name[0] == '.'))
		return 0;
	if (length == 2 && name[0] == '.' && name[1] == '.') {
		if (end > nest->top)
			*strrchr(nest->path, '/') = '\0';
		return 0;
	}
	if (end + length + 2 > sizeof(nest->path))
		return -ENAMETOOLONG;
	snprintf(nest->path + end, sizeof(nest->path) - end, "/%.*s", (int)length, name);
	if (is_last)
		return 0;
	if (mkdir(nest->path, 0700) == 0)
		nest->made[nest->count++] = copy_text(nest->path);
	else if (errno != EEXIST)
		return -errno;
	return 0;
}

static void nest_end(struct nest *nest)
{
	if (nest->top)
		rmdir(nest->path);
	nest->top = 0;
}

/* Neighbours are often in one directory. */
static int nest_begin(struct nest *nest, const struct unix_name *name)
{
	const char *place = name->place ?: "/tmp/";
	size_t length = directory_length(place);

	if (nest->top && nest->place == length && !memcmp(nest->path, place, length))
		return 0;
	nest_end(nest);
	snprintf(nest->path, sizeof(nest->path), "%.*s.criu-XXXXXX", (int)length, place);
	if (!mkdtemp(nest->path))
		return -errno;
	nest->place = length;
	nest->top = strlen(nest->path);
	nest->number = nest->count = 0;
	return 0;
}

/* Makes the directories for the name. Then nest->path is the path of the file. */
static int nest_make(struct nest *nest, const struct unix_name *name)
{
	size_t end;
	int result = nest_begin(nest, name);

	for (size_t at = 0; !result && at < name->size && name->bytes[at]; at = end + 1) {
		const char *bytes = (const char *)name->bytes + at;

		end = at + strcspn(bytes, "/");
		result = nest_enter(nest, bytes, end - at, end >= name->size || !name->bytes[end]);
	}
	return result;
}

static void nest_clear(struct nest *nest)
{
	while (nest->count) {
		rmdir(nest->made[--nest->count]);
		free(nest->made[nest->count]);
	}
	nest->path[nest->top] = '\0';
}

static int bind_to(int fd, const struct unix_name *name)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	size_t size = min(name->size, sizeof(address.sun_path));

	memcpy(address.sun_path, name->bytes, size);
	return bind(fd, (struct sockaddr *)&address, offsetof(struct sockaddr_un, sun_path) + size) < 0 ?
		       -errno :
		       0;
}

/* In a process of its own, whose root directory may change. */
static int bind_inside(int fd, const struct unix_name *name, struct nest *nest)
{
	autoclose int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	autofree char *top = format_text("%.*s", (int)nest->top, nest->path);
	int result;

	if (root < 0 || chroot(top) < 0 || chdir("/") < 0)
		return -errno;
	result = bind_to(fd, name);
	if (fchdir(root) < 0 || chroot(".") < 0)
		return -errno;
	return result;
}

/* Moves the file out of the temporary directory. */
static int take_out(struct unix_name *name, struct nest *nest)
{
	name->target = open(nest->path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (name->target < 0) {
		int error = errno;

		unlink(nest->path);
		return -error;
	}
	if (!name->place)
		return unlink(nest->path) < 0 ? -errno : 0;
	name->file = format_text("%.*s-%zu.socket", (int)nest->top, nest->path, nest->number++);
	if (rename(nest->path, name->file) == 0)
		return 0;
	unlink(nest->path);
	free(steal_pointer(&name->file));
	return -errno;
}

static int bind_path(struct unix_binding *binding, struct nest *nest)
{
	int result = nest_make(nest, binding->name);

	if (!result)
		result = bind_inside(binding->fd, binding->name, nest) ?: take_out(binding->name, nest);
	if (nest->top)
		nest_clear(nest);
	return result;
}

static int bind_all(void *argument)
{
	struct unix_bindings *bindings = argument;
	struct nest nest = { 0 };
	int result = 0;

	umask(0077); /* nobody else may connect to them before unix_finish_name() */
	for (size_t i = 0; !result && i < bindings->count; i++) {
		struct unix_binding *binding = &bindings->items[i];
		const struct unix_name *name = binding->name;
		bool is_abstract = !name->bytes[0];

		result = is_abstract ? bind_to(binding->fd, name) : bind_path(binding, &nest);
		if (result)
			fail(-result, "cannot bind a unix socket to %s%.*s", is_abstract ? "@" : "",
			     (int)name->size - is_abstract, name->bytes + is_abstract);
	}
	nest_end(&nest);
	return result;
}

int unix_bind_all(struct unix_bindings *bindings)
{
	const struct place place = PLACE_HERE;

	return bindings->count ? run_in(&place, bind_all, bindings) : 0;
}

socklen_t unix_address(const struct unix_name *name, struct sockaddr_un *address)
{
	size_t size = min(name->size, sizeof(address->sun_path));

	*address = (struct sockaddr_un){ .sun_family = AF_UNIX };
	if (name->target < 0)
		memcpy(address->sun_path, name->bytes, size);
	else
		size = snprintf(address->sun_path, sizeof(address->sun_path), "/proc/self/fd/%d",
				name->target);
	return offsetof(struct sockaddr_un, sun_path) + size;
}

int unix_finish_name(struct unix_name *name, const FilePermsEntry *rights)
{
	char path[32];
	struct stat now;

	if (name->target < 0 || !rights)
		return 0;
	snprintf(path, sizeof(path), "/proc/self/fd/%d", name->target);
	if (stat(path, &now) < 0)
		return fail(errno, "cannot stat the file of a unix socket");
	if ((now.st_uid != rights->uid || now.st_gid != rights->gid) &&
	    chown(path, rights->uid, rights->gid) < 0)
		return fail(errno, "cannot give the file of a unix socket to user %u", rights->uid);
	if (chmod(path, rights->mode & 07777) < 0)
		return fail(errno, "cannot set the mode of the file of a unix socket");
	return 0;
}

void unix_publish(struct unix_name *name)
{
	int result = -1;

	if (!name->file)
		return;
	if (name->is_free)
		result = renameat2(AT_FDCWD, name->file, AT_FDCWD, name->place, RENAME_NOREPLACE);
	if (!name->is_free || (result < 0 && errno == EINVAL)) /* some file systems cannot do that */
		result = rename(name->file, name->place);
	if (result < 0) {
		log_warning("the unix socket %s is %s: it cannot be moved (%s)", name->place, name->file,
			    strerror(errno));
	}
	free(steal_pointer(&name->file));
}

void unix_forget_name(struct unix_name *name)
{
	if (name->file)
		unlink(name->file);
	if (name->target >= 0)
		close(steal_fd(&name->target));
	free(steal_pointer(&name->file));
	free(steal_pointer(&name->place));
}
