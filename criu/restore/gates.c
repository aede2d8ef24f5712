/*
 * gates.c - see gates.h. Gates are in shared memory, because the users of a descriptor table need not share their
 * memory.
 */
#include <errno.h>
#include <sys/mman.h>
#include "base/error.h"
#include "futex.h"
#include "restore/baton.h"
#include "restore/gates.h"

struct gate {
	uint32_t arrived; /* futex: of all rounds */
	uint32_t opened;  /* futex: the last round that is done */
	int log;
	int executables[]; /* one a user */
};

static size_t size_of_gate(const struct object *object)
{
	size_t size = sizeof(struct gate) + object->user_count * sizeof(int);

	return object->user_count > 1 ? round_up(size, sizeof(uint64_t)) : 0;
}

/*
 * Gives a task the gates of the objects that it shares. The leader of an object comes before its other users: it gets a
 * new gate at `cursor`, and they get the leader's. Returns the place for the next gate.
 */
static char *give_gates(struct task *task, char *cursor)
{
	struct newborn *newborn = task->newborn;

	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++) {
		const struct object *object = task_object(task, kind);
		struct newborn *leader = object->leader->newborn;

		if (object->user_count == 1)
			continue;
		if (leader == newborn) {
			newborn->gates[kind] = (void *)cursor;
			cursor += size_of_gate(object);
		}
		newborn->gates[kind] = leader->gates[kind];
		newborn->user_number[kind] = leader->users_known[kind]++;
	}
	return cursor;
}

int gates_make(struct snapshot *snapshot)
{
	struct task *task;
	size_t size = 0;
	char *memory;

	for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
		for_each_leader (task, snapshot, kind)
			size += size_of_gate(task_object(task, kind));
	if (!size)
		return 0;
	memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (memory == MAP_FAILED)
		return fail(errno, "no memory for criu to share with the restored processes");
	for_each_task (task, snapshot)
		memory = give_gates(task, memory);
	return 0;
}

static void await_word(const struct task *task, uint32_t *futex, uint32_t wanted)
{
	uint32_t now;

	if (__atomic_load_n(futex, __ATOMIC_ACQUIRE) >= wanted)
		return;
	baton_give(task);
	while ((now = __atomic_load_n(futex, __ATOMIC_ACQUIRE)) < wanted)
		sys_futex(futex, FUTEX_WAIT, now, NULL, NULL, 0);
	baton_take(task);
}

void gate_arrive(const struct task *task, enum object_kind kind)
{
	struct gate *gate = task->newborn->gates[kind];

	if (!gate || task_leads(task, kind))
		return;
	__atomic_fetch_add(&gate->arrived, 1, __ATOMIC_RELEASE);
	futex_wake(&gate->arrived);
}

void gate_await_users(const struct task *task, enum object_kind kind, uint32_t round)
{
	struct gate *gate = task->newborn->gates[kind];

	if (gate && task_leads(task, kind))
		await_word(task, &gate->arrived, round * (task_object(task, kind)->user_count - 1));
}

void gate_open(const struct task *task, enum object_kind kind, uint32_t round)
{
	struct gate *gate = task->newborn->gates[kind];

	if (!gate || !task_leads(task, kind))
		return;
	__atomic_store_n(&gate->opened, round, __ATOMIC_RELEASE);
	futex_wake(&gate->opened);
}

void gate_await_leader(const struct task *task, enum object_kind kind, uint32_t round)
{
	struct gate *gate = task->newborn->gates[kind];

	if (gate && !task_leads(task, kind))
		await_word(task, &gate->opened, round);
}

int *gate_log(const struct task *task)
{
	struct gate *gate = task->newborn->gates[OBJECT_DESCRIPTORS];

	return gate ? &gate->log : NULL;
}

int *gate_executable(const struct task *task)
{
	struct gate *gate = task->newborn->gates[OBJECT_DESCRIPTORS];

	return gate ? &gate->executables[task->newborn->user_number[OBJECT_DESCRIPTORS]] : NULL;
}
