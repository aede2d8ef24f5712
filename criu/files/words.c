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
#include "files/devices.h"
#include "files/words.h"

/* New versions of <linux/magic.h> have all of them, but not that of every distribution. */
static const struct {
	unsigned magic;
	const char *words;
	const char *remedy; /* why it is lost, and what the user can do; NULL: nothing to say */
} file_systems[] = {
	{ 0x19800202, "a POSIX message queue", NULL },
	{ 0x5345434d, "secret memory (memfd_secret())",
	  "nobody but the process can read it: use memfd_create() for what has to be saved" },
	{ 0x50494446, "a pidfd", NULL }, /* Linux 6.9; before, an anon_inode */
	{ 0x444d4142, "a DMA buffer (dma-buf)", "its memory belongs to a driver: close it first" },
	{ 0xcafe4a11, "a pinned BPF object", NULL },
};

static const char pin[] =
	"it is gone when no process has it: pin it (bpftool), close it, and open it again afterwards";
static const char machine[] =
	"save the machine with the program that runs it (QEMU: savevm) and end it first";

/* The name behind "anon_inode:", without brackets; "*" at the end matches anything. */
static const struct {
	const char *name, *words, *remedy;
} anonymous_inodes[] = {
	{ "inotify", "an inotify", NULL },
	{ "fanotify", "an fanotify", NULL },
	{ "pidfd", "a pidfd", NULL },
	{ "io_uring", "an io_uring", NULL },
	{ "userfaultfd", "a userfaultfd",
	  "who waits for its pages would wait for ever: unregister its memory and close it first" },
	{ "perf_event", "a perf event", "its counts and samples would be lost: end the measurement first" },
	{ "bpf-map", "a BPF map", pin },
	{ "bpf-prog", "a BPF program", pin },
	{ "bpf*", "a BPF object", pin },
	{ "btf", "BPF type information", "load it again afterwards: close it first" },
	{ "landlock-ruleset", "a Landlock ruleset",
	  "nothing shows its rules: close it once landlock_restrict_self() has been called" },
	{ "seccomp notify", "a listener of seccomp notifications",
	  "calls that wait for its answer would fail: end the processes that it listens to first" },
	{ "fscontext", "a file system that is being configured (fsopen())", "mount it, or close it, first" },
	{ "kvm-vcpu*", "a processor of a KVM machine", machine },
	{ "kvm*", "a part of a KVM machine", machine },
	{ "sync_file", "a fence of a graphics driver", "wait for it, and close it first" },
	{ "vfio*", "a VFIO object", "the device would stop: give it back first" },
};

static bool is_named(const char *pattern, const char *name, size_t length)
{
	size_t size = strlen(pattern);

	if (pattern[size - 1] == '*')
		return length >= size - 1 && !strncmp(pattern, name, size - 1);
	return length == size && !strncmp(pattern, name, size);
}

static char *anonymous_in_words(const char *link, const char **remedy)
{
	const char *name = strchr(link, ':') + 1;
	size_t length;

	name += *name == '[';
	length = strcspn(name, "]");
	for (size_t i = 0; i < array_size(anonymous_inodes); i++)
		if (is_named(anonymous_inodes[i].name, name, length)) {
			*remedy = anonymous_inodes[i].remedy;
			return copy_text(anonymous_inodes[i].words);
		}
	return format_text("a kernel object (%.*s)", (int)length, name);
}

const char *file_system_in_words(const struct seen_file *seen, const char **remedy)
{
	autofree char *path = seen_file_place(seen);
	struct statfs found;

	if (statfs(path, &found) < 0)
		return NULL;
	for (size_t i = 0; i < array_size(file_systems); i++)
		if ((unsigned)found.f_type == file_systems[i].magic) {
			*remedy = file_systems[i].remedy;
			return file_systems[i].words;
		}
	return NULL;
}

/* Sets *words; NULL: it is a file, with nothing more to say. *remedy is set, perhaps to NULL. */
static int find_words(const struct seen_file *seen, char **words, const char **remedy)
{
	bool is_opened = seen->fd >= 0 && !(seen->info.flags & O_PATH);
	const char *known;

	*words = NULL;
	*remedy = NULL;
	if (!strncmp(seen->link, "socket:[", 8) && is_opened) {
		autoclose int fd = files_borrow(seen);

		if (fd < 0)
			return fd;
		*words = socket_in_words(fd);
		return 0;
	}
	known = file_system_in_words(seen, remedy);
	if (known)
		*words = copy_text(known);
	else if (is_opened && !strncmp(seen->link, "anon_inode:", 11))
		*words = anonymous_in_words(seen->link, remedy);
	else if (is_opened && is_device(&seen->stat) && !device_can_reopen(&seen->stat, seen->info.flags)) {
		*words = device_in_words(&seen->stat);
		*remedy = device_remedy(&seen->stat);
	}
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
	const char *remedy;
	int result = find_words(seen, &words, &remedy);

	if (result)
		return result;
	if (words)
		return refuse("process %d (%s): %s (%s) is %s, which is not supported yet%s%s",
			      seen->holder.here, seen->holder.name, place, seen->link, words,
			      remedy ? ": " : "", remedy ?: "");
	return refuse("process %d (%s): %s (%s): %s", seen->holder.here, seen->holder.name, place, seen->link,
		      why);
}
