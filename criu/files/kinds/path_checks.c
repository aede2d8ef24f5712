/*
 * path_checks.c - dump: finds files that a restore could not open again by their path. See path_checks.h.
 *
 * A path may be there and lead elsewhere: another mount hides the one of the file, or that mount is in no tree of
 * mounts any more. And a process may keep a file open longer than anybody may open it.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/proc_text.h"
#include "files/kind.h"
#include "files/kinds/path_checks.h"
#include "files/words.h"

/* ---- mounts ---- */

/* The mount of a path, or of the nearest directory above it that exists; -1: not known (before Linux 5.8). */
static int mount_at(const char *path)
{
	autofree char *part = copy_text(path);
	struct statx found;

	while (statx(AT_FDCWD, *part ? part : "/", AT_SYMLINK_NOFOLLOW, STATX_MNT_ID, &found) < 0) {
		char *slash = strrchr(part, '/');

		if (!slash)
			return -1;
		*slash = '\0';
	}
	return found.stx_mask & STATX_MNT_ID ? (int)found.stx_mnt_id : -1;
}

/* What is mapped or executed has no fdinfo. */
static int mount_of(const struct seen_file *seen)
{
	struct statx found;

	if (seen->info.mount >= 0)
		return seen->info.mount;
	if (statx(seen->holder.proc, seen->place, 0, STATX_MNT_ID, &found) < 0)
		return -1;
	return found.stx_mask & STATX_MNT_ID ? (int)found.stx_mnt_id : -1;
}

static bool is_there(const struct seen_file *seen)
{
	struct stat found;

	return seen->is_at_path || (lstat(seen->link, &found) == 0 && found.st_ino == seen->stat.st_ino &&
				    found.st_dev == seen->stat.st_dev);
}

struct mount_line {
	char *point, *type;
};

/* In the text of mountinfo, of which it takes the line apart. */
static bool find_mount(char *text, int id, struct mount_line *mount)
{
	for (char *line = text, *next; line && *line; line = next) {
		char *separator = strstr(line, " - ");
		int number = -1;

		next = strchrnul(line, '\n');
		next += *next == '\n';
		if (!separator || separator > next || sscanf(line, "%d", &number) != 1 || number != id)
			continue;
		next[-1] = '\0';
		separator += 3;
		for (int skipped = 0; skipped < 4; skipped++)
			proc_text_word(&line);
		mount->point = proc_text_word(&line);
		mount->type = proc_text_word(&separator);
		return mount->point && mount->type;
	}
	return false;
}

static int refuse_mount(const struct seen_file *seen, int mount, int above)
{
	autofree char *text = NULL, *again = NULL, *why = NULL;
	struct mount_line hidden, hider;
	ssize_t length = read_text_at(-1, "/proc/self/mountinfo", &text);

	if (length < 0)
		return fail(-length, "cannot read /proc/self/mountinfo");
	again = copy_text(text);
	if (!find_mount(text, mount, &hidden))
		return refuse_file(
			seen,
			"it is in a detached mount, or in one of another mount namespace, which is not supported yet: attach or close it first");
	if (!find_mount(again, above, &hider))
		return refuse_file(seen, "its path does not lead into its mount");
	why = format_text("the %s that is mounted on %s hides its mount, the %s on %s", hider.type,
			  hider.point, hidden.type, hidden.point);
	fail_advice("umount %s", hider.point);
	return refuse_file(seen, why);
}

int path_check_mount(const struct snapshot *snapshot, const struct seen_file *seen)
{
	int mount, above;

	if (is_there(seen))
		return 0;
	mount = mount_of(seen);
	above = mount_at(seen->link);
	if (mount < 0 || above < 0 || mount == above)
		return 0;
	file_advise_external(snapshot, seen);
	return refuse_mount(seen, mount, above);
}

/* ---- opening ---- */

static bool is_written(const struct seen_file *seen)
{
	return (seen->info.flags & O_ACCMODE) != O_RDONLY;
}

static int permissions(const struct seen_file *seen)
{
	switch (seen->info.flags & O_ACCMODE) {
	case O_RDONLY:
		return R_OK;
	case O_WRONLY:
		return W_OK;
	default:
		return R_OK | W_OK; /* 3, for ioctl(), needs both, too */
	}
}

/* Why criu itself could not open the file; NULL: it could. To be freed. */
static char *why_not_opened(const struct seen_file *seen)
{
	if (faccessat(AT_FDCWD, seen->link, permissions(seen), AT_EACCESS) < 0)
		return format_text("a restore could not open it again: %s", strerror(errno));
	/* It can be open for other writes only since before it had this attribute. */
	if (seen->only_appends && is_written(seen) && !(seen->info.flags & O_APPEND))
		return copy_text("a restore could not open it again: it has become append-only (chattr +a)");
	return NULL;
}

/* If the processes live on, the images may be meant for another machine: dump/foresee.c. */
static int check_permissions(const struct snapshot *snapshot, const struct seen_file *seen)
{
	autofree char *why = why_not_opened(seen);

	if (!why)
		return 0;
	if (!snapshot->policy.leave_running && !snapshot->policy.leave_stopped)
		return refuse_file(seen, why);
	log_warning("process %d (%s): descriptor %d (%s): %s", seen->holder.here, seen->holder.name, seen->fd,
		    seen->link, why);
	return 0;
}

/*
 * A descriptor of /proc/pressure/NAME, or of NAME.pressure of a cgroup, to which a process has written has a trigger
 * (Linux 5.2). Nothing shows it.
 */
static bool may_have_trigger(const struct seen_file *seen)
{
	static const char suffix[] = ".pressure", prefix[] = "/proc/pressure/";
	size_t length = strlen(seen->link);

	if (!is_written(seen) || !S_ISREG(seen->stat.st_mode))
		return false;
	return !strncmp(seen->link, prefix, sizeof(prefix) - 1) ||
	       (length > sizeof(suffix) && !strncmp(seen->link, "/sys/fs/cgroup/", 15) &&
		!strcmp(seen->link + length - sizeof(suffix) + 1, suffix));
}

/* Files of the kernel seem to be empty. Some of them can only be read from the start on. */
static int check_position(const struct seen_file *seen)
{
	autoclose int fd = -1;

	if (!S_ISREG(seen->stat.st_mode) || seen->stat.st_size || !seen->info.position)
		return 0;
	fd = files_borrow(seen);
	if (fd < 0)
		return fd;
	if (lseek(fd, 0, SEEK_CUR) >= 0 || errno != ESPIPE)
		return 0;
	return refuse_file(seen, "it was read in part, and the kernel does not let anybody continue there");
}

int path_check_opening(const struct snapshot *snapshot, const struct seen_file *seen)
{
	if (seen->fd < 0 || !seen->is_at_path || seen->info.flags & O_PATH)
		return 0;
	if (may_have_trigger(seen))
		return refuse_file(
			seen,
			"it may have a trigger of pressure stall information, which the kernel does not show; close it first");
	return check_position(seen) ?: check_permissions(snapshot, seen);
}
