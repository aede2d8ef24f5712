/*
 * credentials.c - who a thread is: user and group ids, capabilities, securebits, no_new_privs.
 *
 * Credentials belong to threads, not processes (credentials(7)). On restore every thread sets its own with raw system calls,
 * and the order matters: capabilities survive the change of uid through SECBIT_NO_SETUID_FIXUP, the bounding set and
 * securebits need CAP_SETPCAP, and capset() comes when nothing needs capabilities any more.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "base/io.h"
#include "image/message.h"
#include "task/part.h"

#define ASK_SECUREBITS	 "ask for the securebits"
#define CAPABILITY_WORDS 2

static void store_capabilities(uint32_t **words, size_t *count, uint64_t set)
{
	*count = CAPABILITY_WORDS;
	*words = allocate_array(CAPABILITY_WORDS, sizeof(**words));
	(*words)[0] = set;
	(*words)[1] = set >> 32;
}

static uint64_t load_capabilities(const uint32_t *words, size_t count)
{
	return (count > 0 ? words[0] : 0) | (count > 1 ? (uint64_t)words[1] << 32 : 0);
}

static int look(struct task *task, size_t thread, const struct thread_facts *facts)
{
	const struct proc_status *status = &facts->status;
	CredsEntry *creds = message_new(CredsEntry, creds_entry);

	task->cores[thread]->thread_core->creds = creds;
	creds->uid = status->uid[0];
	creds->euid = status->uid[1];
	creds->suid = status->uid[2];
	creds->fsuid = status->uid[3];
	creds->gid = status->gid[0];
	creds->egid = status->gid[1];
	creds->sgid = status->gid[2];
	creds->fsgid = status->gid[3];
	store_capabilities(&creds->cap_inh, &creds->n_cap_inh, status->inheritable);
	store_capabilities(&creds->cap_prm, &creds->n_cap_prm, status->permitted);
	store_capabilities(&creds->cap_eff, &creds->n_cap_eff, status->effective);
	store_capabilities(&creds->cap_bnd, &creds->n_cap_bnd, status->bounding);
	store_capabilities(&creds->cap_amb, &creds->n_cap_amb, status->ambient);
	if (status->group_count) {
		creds->n_groups = status->group_count;
		creds->groups = copy_bytes(status->groups, status->group_count * sizeof(*status->groups));
	}
	if (status->no_new_privileges)
		message_set(creds, no_new_privs, 1);
	if (status->seccomp)
		return refuse("process %d (%s): thread %d has a seccomp filter, which is not supported yet",
			      task->pid, task->name, task->threads[thread]);
	return 0;
}

static void ask(const struct task *task unused, size_t thread unused, struct call_list *calls)
{
	call(calls, ASK_SECUREBITS, SYS_prctl, PR_GET_SECUREBITS);
}

static int hear(struct task *task, size_t thread, const struct call_list *calls)
{
	long bits = calls_result(calls, ASK_SECUREBITS);

	if (bits < 0)
		return fail(-bits, "cannot %s", ASK_SECUREBITS);
	task->cores[thread]->thread_core->creds->secbits = bits;
	return 0;
}

static int check(const struct task *task, size_t thread)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	struct proc_status ours;
	autofree char *text = NULL;
	uint64_t lacking;

	if (!core || !core->creds)
		return fail(EINVAL, "the image has no credentials of thread %d", task->threads[thread]);
	if (read_text_at(-1, "/proc/self/status", &text) < 0 || proc_parse_status(text, &ours))
		return fail(errno, "cannot read our own credentials");
	proc_status_free(&ours);
	lacking = load_capabilities(core->creds->cap_prm, core->creds->n_cap_prm) & ~ours.permitted;
	if (lacking)
		return fail(EPERM, "thread %d had capabilities that criu does not have (mask %#llx)",
			    task->threads[thread], (unsigned long long)lacking);
	if (core->seccomp_mode > 0 && core->has_seccomp_mode)
		return fail(EINVAL, "thread %d had a seccomp filter, which is not supported yet",
			    task->threads[thread]);
	return 0;
}

static void make_ids(const CredsEntry *creds, struct call_list *calls)
{
	uint64_t groups = calls_bytes(calls, creds->groups, creds->n_groups * sizeof(*creds->groups));

	call(calls, "keep capabilities while ids change", SYS_prctl, PR_SET_SECUREBITS,
	     SECBIT_NO_SETUID_FIXUP);
	call(calls, "set supplementary groups", SYS_setgroups, creds->n_groups, groups);
	call(calls, "set group ids", SYS_setresgid, creds->gid, creds->egid, creds->sgid);
	if (creds->fsgid != creds->egid)
		call(calls, "set the file system's group id", SYS_setfsgid, creds->fsgid);
	call(calls, "set user ids", SYS_setresuid, creds->uid, creds->euid, creds->suid);
	if (creds->fsuid != creds->euid)
		call(calls, "set the file system's user id", SYS_setfsuid, creds->fsuid);
}

static void make_capabilities(const CredsEntry *creds, struct call_list *calls)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[CAPABILITY_WORDS] = { 0 };
	uint64_t bounding = load_capabilities(creds->cap_bnd, creds->n_cap_bnd);
	uint64_t ambient = load_capabilities(creds->cap_amb, creds->n_cap_amb);
	uint64_t sets[3] = { load_capabilities(creds->cap_eff, creds->n_cap_eff),
			     load_capabilities(creds->cap_prm, creds->n_cap_prm),
			     load_capabilities(creds->cap_inh, creds->n_cap_inh) };

	for (int capability = 0; capability < 64; capability++) {
		/* Those the kernel does not know are not in our own bounding set either: PR_CAPBSET_READ says EINVAL. */
		if (!(bounding >> capability & 1) && prctl(PR_CAPBSET_READ, capability) == 1)
			call(calls, "drop a capability from the bounding set", SYS_prctl, PR_CAPBSET_DROP,
			     capability);
	}
	call(calls, "set securebits", SYS_prctl, PR_SET_SECUREBITS, creds->secbits);
	for (int word = 0; word < CAPABILITY_WORDS; word++) {
		data[word].effective = sets[0] >> (32 * word);
		data[word].permitted = sets[1] >> (32 * word);
		data[word].inheritable = sets[2] >> (32 * word);
	}
	{
		uint64_t there = calls_bytes(calls, &header, sizeof(header));

		call(calls, "set capabilities", SYS_capset, there, calls_bytes(calls, data, sizeof(data)));
	}
	call(calls, "clear ambient capabilities", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL);
	for (int capability = 0; capability < 64; capability++)
		if (ambient >> capability & 1)
			call(calls, "raise an ambient capability", SYS_prctl, PR_CAP_AMBIENT,
			     PR_CAP_AMBIENT_RAISE, capability);
}

static void make(const struct task *task, size_t thread, struct call_list *calls)
{
	const CredsEntry *creds = task->cores[thread]->thread_core->creds;

	make_ids(creds, calls);
	make_capabilities(creds, calls);
	if (creds->no_new_privs)
		call(calls, "set no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
}

const struct task_part part_credentials = {
	.name = "credentials",
	.look = look,
	.ask = ask,
	.hear = hear,
	.check = check,
	.make = make,
};
