/*
 * words.c - describes a file in words. See words.h.
 *
 * Some files have a link in /proc that looks like a path: message queues and secret memory are in internal file systems
 * of the kernel. The type of the file system tells what they are.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/words.h"

/* New versions of <linux/magic.h> have all of them, but not that of every distribution. */
static const struct {
	unsigned magic;
	const char *words;
} file_systems[] = {
	{ 0x19800202, "a POSIX message queue" },
	{ 0x5345434d, "secret memory (memfd_secret())" },
	{ 0x50494446, "a pidfd" }, /* Linux 6.9; before, an anon_inode */
	{ 0x444d4142, "a DMA buffer (dma-buf)" },
	{ 0x6e736673, "a namespace" },
	{ 0xcafe4a11, "a pinned BPF object" },
};

/* The name behind "anon_inode:", without brackets; "*" at the end matches anything. */
static const struct {
	const char *name, *words;
} anonymous_inodes[] = {
	{ "inotify", "an inotify" },
	{ "fanotify", "a fanotify" },
	{ "pidfd", "a pidfd" },
	{ "io_uring", "an io_uring" },
	{ "userfaultfd", "a userfaultfd" },
	{ "perf_event", "a perf event" },
	{ "bpf-map", "a BPF map" },
	{ "bpf-prog", "a BPF program" },
	{ "bpf*", "a BPF object" },
	{ "btf", "BPF type information" },
	{ "landlock-ruleset", "a Landlock ruleset" },
	{ "seccomp notify", "a listener of seccomp notifications" },
	{ "fscontext", "a file system that is being configured (fsopen())" },
	{ "kvm-vcpu*", "a processor of a KVM machine" },
	{ "kvm*", "a part of a KVM machine" },
	{ "sync_file", "a fence of a graphics driver" },
	{ "vfio*", "a VFIO object" },
};

static bool is_named(const char *pattern, const char *name, size_t length)
{
	size_t size = strlen(pattern);

	if (pattern[size - 1] == '*')
		return length >= size - 1 && !strncmp(pattern, name, size - 1);
	return length == size && !strncmp(pattern, name, size);
}

static char *anonymous_in_words(const char *link)
{
	const char *name = strchr(link, ':') + 1;
	size_t length;

	name += *name == '[';
	length = strcspn(name, "]");
	for (size_t i = 0; i < array_size(anonymous_inodes); i++)
		if (is_named(anonymous_inodes[i].name, name, length))
			return copy_text(anonymous_inodes[i].words);
	return format_text("a kernel object (%.*s)", (int)length, name);
}

static const char *file_system_in_words(const struct seen_file *seen)
{
	autofree char *path = format_text("/proc/self/fd/%d/%s", seen->holder.proc, seen->place);
	struct statfs found;

	if (statfs(path, &found) < 0)
		return NULL;
	for (size_t i = 0; i < array_size(file_systems); i++)
		if ((unsigned)found.f_type == file_systems[i].magic)
			return file_systems[i].words;
	return NULL;
}

static char *device_in_words(const struct stat *stat)
{
	return format_text("%s device %u:%u", S_ISCHR(stat->st_mode) ? "the character" : "the block",
			   major(stat->st_rdev), minor(stat->st_rdev));
}

/* Sets *words; NULL: it is a file, with nothing more to say. */
static int find_words(const struct seen_file *seen, char **words)
{
	bool is_opened = seen->fd >= 0 && !(seen->info.flags & O_PATH);
	const char *known;

	*words = NULL;
	if (!strncmp(seen->link, "socket:[", 8) && is_opened) {
		autoclose int fd = files_borrow(seen);

		if (fd < 0)
			return fd;
		*words = socket_in_words(fd);
		return 0;
	}
	known = file_system_in_words(seen);
	if (known)
		*words = copy_text(known);
	else if (!strncmp(seen->link, "anon_inode:", 11))
		*words = anonymous_in_words(seen->link);
	else if (S_ISCHR(seen->stat.st_mode) || S_ISBLK(seen->stat.st_mode))
		*words = device_in_words(&seen->stat);
	else if (S_ISLNK(seen->stat.st_mode))
		*words = copy_text("a symbolic link (O_PATH)");
	else if (S_ISSOCK(seen->stat.st_mode))
		*words = copy_text("the path of a socket (O_PATH)");
	return 0;
}

static char *name_place(const struct seen_file *seen)
{
	unsigned long long start;
	int fd;

	if (sscanf(seen->place, "fd/%d", &fd) == 1)
		return format_text("descriptor %d", fd);
	if (sscanf(seen->place, "map_files/%llx", &start) == 1)
		return format_text("its memory at %#llx", start);
	return copy_text(!strcmp(seen->place, "exe") ? "its executable" :
			 !strcmp(seen->place, "cwd") ? "its working directory" :
						       "its root directory");
}

int refuse_file(const struct seen_file *seen, const char *why)
{
	autofree char *place = name_place(seen), *words = NULL;
	int result = find_words(seen, &words);

	if (result)
		return result;
	if (words)
		return refuse("process %d (%s): %s (%s) is %s, which is not supported yet", seen->holder.here,
			      seen->holder.name, place, seen->link, words);
	return refuse("process %d (%s): %s (%s): %s", seen->holder.here, seen->holder.name, place, seen->link,
		      why);
}
