/*
 * io_uring_rights.c - what the thread of the kernel of a ring (IORING_SETUP_SQPOLL) may do.
 *
 * It keeps the credentials of the thread that has made the ring, all of them: files belong to the effective ids, but a
 * message (SCM_CREDENTIALS) tells the real ones, and may tell the saved ones.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/kinds/io_uring.h"
#include "kernel/place.h"
#include "kernel/uring.h"

#define MOST_GROUPS 65536u /* NGROUPS_MAX */

static uint64_t set_of(const uint32_t *words, size_t count)
{
	return (count > 0 ? words[0] : 0) | (count > 1 ? (uint64_t)words[1] << 32 : 0);
}

static uint64_t effective(const CredsEntry *rights)
{
	return set_of(rights->cap_eff, rights->n_cap_eff);
}

static uint64_t permitted(const CredsEntry *rights)
{
	return set_of(rights->cap_prm, rights->n_cap_prm);
}

/* ---- dump ---- */

static bool are_ids_of(const struct uring_rights *rights, const CredsEntry *task)
{
	return rights->real_uid == task->uid && rights->uid == task->euid &&
	       rights->saved_uid == task->suid && rights->fsuid == task->fsuid &&
	       rights->real_gid == task->gid && rights->gid == task->egid &&
	       rights->saved_gid == task->sgid && rights->fsgid == task->fsgid && task->euid == task->fsuid &&
	       task->egid == task->fsgid;
}

static bool are_rights_of(const struct uring_rights *rights, const CredsEntry *task)
{
	return are_ids_of(rights, task) && rights->capabilities == effective(task) &&
	       rights->permitted == permitted(task) && rights->group_count == task->n_groups &&
	       (!task->n_groups ||
		!memcmp(rights->groups, task->groups, task->n_groups * sizeof(*task->groups)));
}

int io_uring_check_rights(const struct seen_file *seen, const struct uring_reader *reader,
			  const struct uring_facts *facts, const struct task *owner)
{
	const CredsEntry *creds = owner->cores[0]->thread_core->creds;
	struct uring_rights rights = { .groups = allocate_array(creds->n_groups + 1, sizeof(gid_t)),
				       .group_count = min(creds->n_groups, (size_t)MOST_GROUPS) };
	int result = uring_read_rights(reader, facts, &rights);

	if (!result && !are_rights_of(&rights, creds))
		result = refuse(
			"process %d (%s): descriptor %d is an io_uring whose thread of the kernel has other "
			"credentials than process %d: not supported yet",
			seen->holder.here, seen->holder.name, seen->fd, owner->here);
	free(rights.groups);
	return result;
}

/* ---- restore ---- */

struct making {
	struct uring *uring;
	const CredsEntry *rights;
};

static int set_capabilities(uint64_t effective, uint64_t permitted)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct sets[2] = {
		{ .effective = (uint32_t)effective, .permitted = (uint32_t)permitted },
		{ .effective = (uint32_t)(effective >> 32), .permitted = (uint32_t)(permitted >> 32) },
	};

	return syscall(SYS_capset, &header, sets) ?
		       fail(errno, "cannot take the capabilities of the thread of an io_uring") :
		       0;
}

/* Raw calls, because libc would change all threads. Capabilities survive the change of ids, and come last. */
static int make_here(void *context)
{
	const struct making *making = context;
	const CredsEntry *rights = making->rights;
	int bits = prctl(PR_GET_SECUREBITS);

	if (bits < 0 || prctl(PR_SET_SECUREBITS, (unsigned)bits | SECBIT_NO_SETUID_FIXUP))
		return fail(errno, "cannot prepare the credentials of the thread of an io_uring");
	if (syscall(SYS_setresgid, rights->gid, rights->egid, rights->sgid) ||
	    syscall(SYS_setresuid, rights->uid, rights->euid, rights->suid))
		return fail(errno, "cannot take the ids of the thread of an io_uring");
	return set_capabilities(effective(rights), permitted(rights)) ?: uring_create(making->uring);
}

int io_uring_create_as(struct uring *uring, const struct task *owner)
{
	const CredsEntry *rights = owner->cores[0]->thread_core->creds;
	struct making making = { uring, rights };
	struct place place = PLACE_HERE;
	gid_t none = 0;

	place.groups = rights->groups ?: &none;
	place.group_count = rights->n_groups;
	place.pid = getpid();
	place.shares_directories = true;
	return run_in(&place, make_here, &making);
}
