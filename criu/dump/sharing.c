/*
 * sharing.c - which processes have memory, a descriptor table, directories or signal actions in common
 * (model/objects.h).
 *
 * kcmp() is an order, not only an equality: in a sorted array those that share stand side by side. n log n
 * comparisons, not n².
 */
#include <errno.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "dump/dump.h"
#include "kernel/proc.h"
#include "model/births.h"

#define FIRST_ID (DUMP_OWN_ID + 1)

struct user {
	struct task *task;
	uint32_t number; /* of the task in the order of the snapshot */
};

struct comparison {
	enum object_kind kind;
	int error;
};

static int compare_users(const void *left, const void *right, void *context)
{
	const struct user *a = left, *b = right;
	struct comparison *comparison = context;
	long by_kernel = syscall(SYS_kcmp, a->task->here, b->task->here,
				 object_types[comparison->kind].kcmp_type, 0, 0);

	if (by_kernel < 0)
		comparison->error = errno;
	return by_kernel <= 0 ? 0 : by_kernel == 1 ? -1 : 1;
}

static void share_among(const struct user *users, size_t count, enum object_kind kind)
{
	const struct user *leader = &users[0];

	for (size_t i = 1; i < count; i++)
		if (users[i].number < leader->number)
			leader = &users[i];
	for (size_t i = 0; i < count; i++)
		if (&users[i] != leader)
			task_share_object(users[i].task, kind, leader->task);
}

static int find_kind(struct user *users, size_t count, enum object_kind kind)
{
	struct comparison comparison = { .kind = kind };
	size_t first = 0;

	qsort_r(users, count, sizeof(*users), compare_users, &comparison);
	for (size_t i = 1; i <= count && !comparison.error; i++) {
		if (i < count && !compare_users(&users[i - 1], &users[i], &comparison))
			continue;
		if (!comparison.error)
			share_among(&users[first], i - first, kind);
		first = i;
	}
	return comparison.error ? fail(comparison.error, "cannot compare processes with kcmp()") : 0;
}

int dump_find_shared(struct dump *dump)
{
	autofree struct user *users = allocate_array(dump->snapshot.task_count, sizeof(*users));
	uint32_t number = FIRST_ID;
	struct task *task;
	size_t count = 0;
	int result = 0;

	for_each_task (task, &dump->snapshot) {
		if (task->state != TASK_DEAD) {
			for (enum object_kind kind = 0; kind < OBJECT_KINDS; kind++)
				task_object(task, kind)->id = number;
			users[count++] = (struct user){ task, number };
		}
		number++;
	}
	for (enum object_kind kind = 0; !result && kind < OBJECT_KINDS; kind++)
		result = find_kind(users, count, kind);
	return result;
}

/*
 * The root may share objects with its parent, which is not in the tree: a child of vfork() does so until it runs a
 * program. What it shares with other processes outside of the tree is not looked for. If kcmp() is not permitted for
 * the parent, nothing is refused.
 */
static int check_parent(const struct dump *dump)
{
	const struct task *root = dump->snapshot.root;
	struct proc_stat stat;
	int result = proc_read_stat(root->proc, &stat);

	for (size_t i = 0; !result && i < OBJECT_KINDS; i++)
		if (syscall(SYS_kcmp, root->here, stat.parent, object_types[i].kcmp_type, 0, 0) == 0)
			refuse("process %d (%s) shares its %s with process %d, its parent, which is not part of the tree",
			       root->here, root->name, object_types[i].name, stat.parent);
	return result;
}

int dump_check_sharing(struct dump *dump)
{
	const struct task *task;

	births_plan(&dump->snapshot);
	for_each_task (task, &dump->snapshot) {
		autofree char *obstacle = births_obstacle(&dump->snapshot, task);

		if (obstacle)
			refuse("%s", obstacle);
	}
	return check_parent(dump);
}
