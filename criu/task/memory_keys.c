/*
 * memory_keys.c - the protection keys (pkeys(7)) that a process has allocated. smaps tells the key of each mapping, and
 * the registers of a thread hold its rights; restore/protection.c restores all of it.
 *
 * No call lists the allocated keys. But pkey_mprotect() returns EINVAL for a key that is not allocated, before it looks
 * up the memory. The address here is never mapped, so for an allocated key it returns ENOMEM, and nothing changes
 * (Linux 6.18). The key that the kernel itself uses for execute-only memory counts as not allocated.
 */
#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include "base/error.h"
#include "image/message.h"
#include "task/part.h"

#define NOBODYS	  (1ULL << 63) /* the kernel's half of the address space */
#define MOST_KEYS 16	       /* no architecture has more */

struct asked {
	call_handle keys[MOST_KEYS]; /* not asked for 0, which every process has */
};

static void *memory_keys_ask(const struct snapshot *snapshot unused, const struct task *task unused,
			     size_t thread unused, struct call_list *calls)
{
	struct asked *asked;

	asked = allocate(sizeof(*asked));
	for (int key = 1; key < MOST_KEYS; key++)
		asked->keys[key] = add_call(calls, "ask for a protection key", SYS_pkey_mprotect, NOBODYS,
					    PAGE_SIZE, PROT_NONE, key);
	return asked;
}

static int memory_keys_hear(const struct snapshot *snapshot unused, struct task *task, size_t thread unused,
			    const struct call_list *calls, const void *state)
{
	const struct asked *asked = state;
	uint32_t keys = 0;

	for (int key = 1; key < MOST_KEYS; key++)
		keys |= (calls_result(calls, asked->keys[key]) == -ENOMEM) << key;
	if (keys)
		message_set(task->space->mm, keys, keys);
	return 0;
}

static int memory_keys_check(const struct snapshot *snapshot unused, const struct task *task,
			     size_t thread unused)
{
	if (task->space->mm->keys & 1 || task->space->mm->keys >> MOST_KEYS)
		return fail(EINVAL, "the mm image has impossible protection keys: %#x",
			    task->space->mm->keys);
	return 0;
}

const struct task_part part_memory_keys = {
	.name = "memory keys",
	.is_of_object = true,
	.object = OBJECT_MEMORY,
	.ask = memory_keys_ask,
	.hear = memory_keys_hear,
	.check = memory_keys_check,
};
