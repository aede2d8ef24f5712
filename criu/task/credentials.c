/*
 * credentials.c - credentials of a thread: user and group ids, capabilities, securebits, no_new_privs.
 *
 * Credentials belong to threads, not processes (credentials(7)). On restore every thread sets its own with raw system
 * calls, in this order:
 *	securebits	SECBIT_NO_SETUID_FIXUP: capabilities survive the change of ids
 *	ids
 *	capset()	only the inheritable ones; they may be more than the bounding set is going to hold
 *	ambient		needs them inheritable and permitted; securebits may forbid to raise any
 *	bounding set	needs CAP_SETPCAP, as do …
 *	securebits	the original ones, with all locks
 *	capset()	all, when nothing needs capabilities any more
 * Changed ids clear the signal that a thread gets when its parent dies: that comes last of all (identity.c).
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <string.h>
#include <sys/fsuid.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/io.h"
#include "base/log.h"
#include "image/message.h"
#include "task/part.h"

#define CAPABILITY_WORDS 2

struct asked {
	call_handle securebits;
};

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

static int credentials_look(struct snapshot *snapshot unused, struct task *task, size_t thread,
			    const struct thread_facts *facts)
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
			      task->here, task->name, task->threads[thread].here);
	return 0;
}

static void *credentials_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			     size_t thread unused, struct call_list *calls)
{
	struct asked *asked = allocate(sizeof(*asked));

	asked->securebits = add_call(calls, "ask for the securebits", SYS_prctl, PR_GET_SECUREBITS);
	return asked;
}

static int credentials_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread,
			    const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	long bits = calls_result(calls, asked->securebits);

	if (bits < 0)
		return fail(-bits, "cannot read the securebits");
	task->cores[thread]->thread_core->creds->secbits = bits;
	return 0;
}

static int check_capabilities(const struct task *task, size_t thread, const CredsEntry *creds)
{
	struct proc_status ours;
	autofree char *text = NULL;
	uint64_t lacking;

	if (read_text_at(-1, "/proc/self/status", &text) < 0 || proc_parse_status(text, &ours))
		return fail(errno, "cannot read criu's own credentials");
	proc_status_free(&ours);
	lacking = load_capabilities(creds->cap_prm, creds->n_cap_prm) & ~ours.permitted;
	if (lacking)
		return fail(EPERM, "thread %d had capabilities that criu does not have (mask %#llx)",
			    thread_shown_id(&task->threads[thread]), (unsigned long long)lacking);
	lacking = load_capabilities(creds->cap_inh, creds->n_cap_inh) & ~(ours.inheritable | ours.bounding);
	if (lacking)
		return fail(EPERM,
			    "thread %d had inheritable capabilities that criu may not have (mask %#llx)",
			    thread_shown_id(&task->threads[thread]), (unsigned long long)lacking);
	if (ours.no_new_privileges && !creds->no_new_privs && !thread)
		log_warning("process %d will have no_new_privs, because criu has it", task_shown_id(task));
	lacking = load_capabilities(creds->cap_bnd, creds->n_cap_bnd) & ~ours.bounding;
	if (lacking && !thread)
		log_warning(
			"thread %d will never be able to gain capabilities that criu cannot (bounding set, mask %#llx)",
			thread_shown_id(&task->threads[thread]), (unsigned long long)lacking);
	return 0;
}

static bool is_same_set(const uint32_t *one, size_t one_count, const uint32_t *other, size_t other_count)
{
	return load_capabilities(one, one_count) == load_capabilities(other, other_count);
}

/* Has the thread the capabilities of the first one? Then the check of the first one is valid for it, too. */
static bool has_capabilities_of_first(const struct task *task, const CredsEntry *creds)
{
	const ThreadCoreEntry *core = task->cores[0]->thread_core;
	const CredsEntry *first = core ? core->creds : NULL;

	return first && is_same_set(first->cap_prm, first->n_cap_prm, creds->cap_prm, creds->n_cap_prm) &&
	       is_same_set(first->cap_inh, first->n_cap_inh, creds->cap_inh, creds->n_cap_inh);
}

static int credentials_check(const struct snapshot *snapshot unused, const struct task *task, size_t thread)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	int result = 0;

	if (!core || !core->creds)
		return fail(EINVAL, "core-%d.img has no credentials", task->threads[thread].tid);
	if (!thread || !has_capabilities_of_first(task, core->creds))
		result = check_capabilities(task, thread, core->creds);
	if (result)
		return result;
	if (core->seccomp_mode > 0 && core->has_seccomp_mode)
		return fail(EINVAL, "thread %d had a seccomp filter, which is not supported yet",
			    thread_shown_id(&task->threads[thread]));
	return 0;
}

/* Does a newborn have these ids already, because criu has them? Then no call needs a privilege that criu may lack. */
static bool are_our_ids(const CredsEntry *creds)
{
	uid_t uid[3];
	gid_t gid[3];
	int count = getgroups(0, NULL);
	autofree gid_t *groups = allocate_array(max(count, 1), sizeof(*groups));

	if (getresuid(&uid[0], &uid[1], &uid[2]) < 0 || getresgid(&gid[0], &gid[1], &gid[2]) < 0 ||
	    getgroups(count, groups) != count || (size_t)count != creds->n_groups)
		return false;
	/* setfsuid() and setfsgid() with an invalid id change nothing, and return the current id. */
	return uid[0] == creds->uid && uid[1] == creds->euid && uid[2] == creds->suid &&
	       gid[0] == creds->gid && gid[1] == creds->egid && gid[2] == creds->sgid &&
	       (uid_t)setfsuid(-1) == creds->fsuid && (gid_t)setfsgid(-1) == creds->fsgid &&
	       (!count || !memcmp(groups, creds->groups, count * sizeof(*groups)));
}

static void make_ids(const CredsEntry *creds, struct call_list *calls)
{
	uint64_t groups = calls_bytes(calls, creds->groups, creds->n_groups * sizeof(*creds->groups));

	add_call(calls, "keep capabilities while ids change", SYS_prctl, PR_SET_SECUREBITS,
		 SECBIT_NO_SETUID_FIXUP);
	add_call(calls, "set supplementary groups", SYS_setgroups, creds->n_groups, groups);
	add_call(calls, "set group ids", SYS_setresgid, creds->gid, creds->egid, creds->sgid);
	if (creds->fsgid != creds->egid)
		add_call(calls, "set the file system's group id", SYS_setfsgid, creds->fsgid);
	add_call(calls, "set user ids", SYS_setresuid, creds->uid, creds->euid, creds->suid);
	if (creds->fsuid != creds->euid)
		add_call(calls, "set the file system's user id", SYS_setfsuid, creds->fsuid);
}

struct capabilities {
	uint64_t effective, permitted, inheritable;
};

static void set_capabilities(const struct capabilities *sets, struct call_list *calls)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[CAPABILITY_WORDS];
	uint64_t there = calls_bytes(calls, &header, sizeof(header));

	for (int word = 0; word < CAPABILITY_WORDS; word++)
		data[word] = (struct __user_cap_data_struct){
			.effective = sets->effective >> (32 * word),
			.permitted = sets->permitted >> (32 * word),
			.inheritable = sets->inheritable >> (32 * word),
		};
	add_call(calls, "set capabilities", SYS_capset, there, calls_bytes(calls, data, sizeof(data)));
}

/* The capabilities of criu, with which a newborn begins. */
static struct capabilities our_capabilities(void)
{
	struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
	struct __user_cap_data_struct data[CAPABILITY_WORDS] = { 0 };

	syscall(SYS_capget, &header, data);
	return (struct capabilities){
		.effective = data[0].effective | (uint64_t)data[1].effective << 32,
		.permitted = data[0].permitted | (uint64_t)data[1].permitted << 32,
		.inheritable = data[0].inheritable | (uint64_t)data[1].inheritable << 32,
	};
}

static void make_ambient(uint64_t ambient, struct call_list *calls)
{
	add_call(calls, "clear ambient capabilities", SYS_prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL);
	for (int capability = 0; capability < 64; capability++)
		if (ambient >> capability & 1)
			add_call(calls, "raise an ambient capability", SYS_prctl, PR_CAP_AMBIENT,
				 PR_CAP_AMBIENT_RAISE, capability);
}

static void make_bounding(uint64_t bounding, struct call_list *calls)
{
	/*
	 * Capabilities that the kernel does not know are not in criu's bounding set either: PR_CAPBSET_READ returns
	 * EINVAL.
	 */
	for (int capability = 0; capability < 64; capability++)
		if (!(bounding >> capability & 1) && prctl(PR_CAPBSET_READ, capability) == 1)
			add_call(calls, "drop a capability from the bounding set", SYS_prctl, PR_CAPBSET_DROP,
				 capability);
}

/* `securebits` are in force now. */
static void make_capabilities(const CredsEntry *creds, unsigned securebits, struct call_list *calls)
{
	struct capabilities first = our_capabilities();
	const struct capabilities last = {
		.effective = load_capabilities(creds->cap_eff, creds->n_cap_eff),
		.permitted = load_capabilities(creds->cap_prm, creds->n_cap_prm),
		.inheritable = load_capabilities(creds->cap_inh, creds->n_cap_inh),
	};

	if (first.inheritable != last.inheritable) {
		first.inheritable = last.inheritable;
		set_capabilities(&first, calls);
	}
	make_ambient(load_capabilities(creds->cap_amb, creds->n_cap_amb), calls);
	make_bounding(load_capabilities(creds->cap_bnd, creds->n_cap_bnd), calls);
	if (creds->secbits != securebits)
		add_call(calls, "set securebits", SYS_prctl, PR_SET_SECUREBITS, creds->secbits);
	set_capabilities(&last, calls);
}

static void credentials_make(const struct snapshot *snapshot unused, const struct task *task, size_t thread,
			     struct call_list *calls)
{
	const ThreadCoreEntry *core = task->cores[thread]->thread_core;
	const CredsEntry *creds = core->creds;
	unsigned securebits = prctl(PR_GET_SECUREBITS);

	if (!are_our_ids(creds)) {
		make_ids(creds, calls);
		securebits = SECBIT_NO_SETUID_FIXUP;
	}
	make_capabilities(creds, securebits, calls);
	if (creds->no_new_privs)
		add_call(calls, "set no_new_privs", SYS_prctl, PR_SET_NO_NEW_PRIVS, 1);
}

const struct task_part part_credentials = {
	.name = "credentials",
	.look = credentials_look,
	.ask = credentials_ask,
	.hear = credentials_hear,
	.check = credentials_check,
	.make = credentials_make,
};
