/*
 * opener.c - restore: opens a file with the rights of the process that has it. See opener.h.
 *
 * An open file keeps the credentials of its opener (f_cred). File systems on a disk never ask for them, those of the
 * kernel do: a write to cgroup.procs moves a process if the opener had the right to, and /proc/kallsyms shows addresses
 * if the opener had CAP_SYSLOG. Nothing shows which credentials a file has. So if the process may open the file with
 * those that it has now, it gets it with these, and never with criu's greater ones.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kinds/opener.h"

struct opening {
	const char *path;
	int flags;
	int fd; /* -1: not opened */
};

static int open_here(void *context)
{
	struct opening *opening = context;

	opening->fd = open(opening->path, opening->flags);
	return 0;
}

static bool is_of_kernel(const char *path)
{
	return !strncmp(path, "/proc/", 6) || !strncmp(path, "/sys/", 5);
}

static const CredsEntry *holder_rights(const struct file *file)
{
	const struct task *holder = file->holder;

	if (!holder || !holder->thread_count || !holder->cores[0]->thread_core)
		return NULL;
	return holder->cores[0]->thread_core->creds;
}

static uint64_t effective(const CredsEntry *rights)
{
	uint64_t set = 0;

	for (size_t i = 0; i < rights->n_cap_eff && i < 2; i++)
		set |= (uint64_t)rights->cap_eff[i] << (32 * i);
	return set;
}

bool place_of_holder(const struct file *file, struct place *place)
{
	static const gid_t none = 0;
	const CredsEntry *rights = holder_rights(file);

	if (!rights || !rights->fsuid)
		return false;
	place->uid = rights->fsuid;
	place->gid = rights->fsgid;
	place->groups = rights->groups ?: &none;
	place->group_count = rights->n_groups;
	place->capabilities = effective(rights);
	return true;
}

int open_for_holder(const struct file *file, const char *path, int flags)
{
	struct opening opening = { path, flags | O_CLOEXEC | O_NOCTTY, -1 };
	struct place place = PLACE_HERE;

	if (is_of_kernel(path) && place_of_holder(file, &place))
		ignore(attempted(run_in(&place, open_here, &opening)));
	return opening.fd >= 0 ? opening.fd : open(path, opening.flags);
}
