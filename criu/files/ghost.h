/*
 * ghost.h - files that their path does not lead to.
 *
 * A ghost is a file without any name: it was deleted, replaced, or never had one (O_TMPFILE). ghost-file-ID.img has its
 * content, owner, mode, times and attributes. A restore makes a new file under the old path, opens it, and removes the
 * name at once (passing_name.h). All open files, mappings and executables of one inode have one ghost.
 *
 * A link remains if the path was deleted, and another link leads to the file (link_remap.c).
 *
 * Both are a `struct nameless`. Files (struct file) point to it, in a dump from describe() on, in a restore from load()
 * on. It belongs to the snapshot. remap-fpath.img tells which files have one.
 */
#ifndef CRIU_FILES_GHOST_H
#define CRIU_FILES_GHOST_H

#include "files/kind.h"
#include "ghost-file.pb-c.h"
#include "remap-file-path.pb-c.h"

/* "/proc/self/fd/" and a number */
#define NAMELESS_PATH_SIZE 32

struct nameless {
	struct file *file;     /* the first that has it: files.img has its path there */
	uint32_t id;	       /* of ghost-file-ID.img; 0: no ghost, a link remains */
	GhostFileEntry *ghost; /* NULL: a link remains */

	bool is_refused; /* dump */
	char *content;	 /* dump: of a small ghost, until it is written; NULL: nothing is held */
	size_t content_size;

	/* A link remains. */
	struct file *link; /* the regular file with its path; dump: NULL, if none is made */
	int handle_type;
	uint8_t *handle; /* of struct file_handle; NULL: none */
	size_t handle_size;
	bool is_made;	   /* dump: criu has made the name */
	char *other;	   /* dump: another path that leads to the file; NULL: none was found */
	struct stat inode; /* restore: what was opened */

	/* Restore. */
	int fd;		       /* O_PATH; -1: not made yet */
	struct file *original; /* the open file that O_TMPFILE gave; NULL: none */
	int original_fd;       /* until it is taken */
};

/* A process that has ended, about which files of /proc are open: PROCFS in remap-fpath.img. */
struct ended_process {
	pid_t pid;
	uint32_t file; /* the first */
};

/* The state of a snapshot. */
struct nameless_files {
	struct nameless **items;
	size_t count;
	struct index by_inode; /* dump: those of each inode */
	uint32_t ghosts;       /* dump: the last id */
	struct index mounts;   /* dump: those that are known to be in a mount tree */
	uint64_t held;	       /* dump: bytes of contents */
	struct ended_process *ended;
	size_t ended_count;
	struct index ended_by_pid; /* of what is not NULL */
};

/* ---- ghost.c ---- */

struct nameless_files *nameless_files_of(const struct snapshot *snapshot);
struct nameless *nameless_add(struct snapshot *snapshot, struct file *file);
/* Once for each pid: another call for it does nothing. */
void nameless_add_ended(struct snapshot *snapshot, pid_t pid, struct file *file);
/* The path of a link in /proc without " (deleted)"; to be freed. */
char *nameless_path(const char *link);
bool ghost_is_possible(mode_t mode, uint64_t device);

/* Was it deleted on NFS or FUSE, so that it has a name as long as it is open? The second: could it be? */
bool ghost_has_hidden_name(const struct seen_file *seen);
bool ghost_system_hides(int fd);

/* ---- dump ---- */

/* Is the inode known? Then the file has the same `struct nameless`. */
bool nameless_find(struct snapshot *snapshot, struct file *file);
/* ghost_dump.c. Describes a deleted file, of which nothing is known yet; or refuses it. */
int ghost_describe(struct snapshot *snapshot, struct file *file) must_check;
/* link_remap.c. Finds other paths for files that were deleted, while other links remain. Refuses those without. */
int links_find(struct snapshot *snapshot) must_check;
/* Another link to a file, in the directory of a deleted one; NULL: there is none. To be freed. */
char *link_beside(const char *deleted, const struct stat *file);
/* Makes the names that --link-remap asks for; the second removes them again. */
int links_make(struct snapshot *snapshot) must_check;
void links_remove(struct snapshot *snapshot);
/* Are there more data in deleted files than the images can have? Refuses. */
int ghosts_judge(struct snapshot *snapshot) must_check;
/* Writes remap-fpath.img and ghost-file-ID.img. The processes must be frozen. */
int nameless_save(struct snapshot *snapshot) must_check;
/* Writes those images of small ghosts whose content is held. The processes may run. */
int nameless_save_held(struct snapshot *snapshot) must_check;

/* ---- restore ---- */

/* ghost_load.c. Reads and checks remap-fpath.img and the beginnings of ghost-file-ID.img. */
int nameless_load(struct snapshot *snapshot) must_check;
/* Takes the place of check() of a regular file. */
int nameless_check(const struct snapshot *snapshot, const struct file *file) must_check;
int link_check(const struct file *file) must_check;
/* The content. `to`: its new file; -1: only checks the image. */
int ghost_read(const struct snapshot *snapshot, struct nameless *nameless, int to) must_check;
/*
 * ghost_make.c. Makes all of them, before any file is opened: a restored file that watches their directory must not
 * see their names.
 */
int nameless_make(struct snapshot *snapshot) must_check;
/*
 * *path is where a regular file can be opened now: the path in the images, or one that leads to the ghost,
 * which is made now, if that has not been done yet. In criu, until ghosts_finish().
 */
int nameless_reach(struct snapshot *snapshot, const struct file *file, char buffer[NAMELESS_PATH_SIZE],
		   const char **path) must_check;
/* Opens it; the core sets position and flags. */
int nameless_open(struct snapshot *snapshot, struct file *file) must_check;
/* link_remap.c. Opens the link (O_PATH), and gives it the name that the process had opened. */
int link_open(const struct nameless *nameless) must_check;
/* All files are open: sets owner, mode, times and attributes, which could have prevented that. */
int ghosts_finish(struct snapshot *snapshot) must_check;
/* The processes are going to run: removes the names that --link-remap had made. */
void links_release(struct snapshot *snapshot);
void nameless_close(struct snapshot *snapshot);
size_t nameless_keeps(const struct snapshot *snapshot);

#endif
