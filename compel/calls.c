/*
 * calls.c - builds lists of system calls for another process. See calls.h.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "arch.h"
#include "base/error.h"
#include "base/memory.h"
#include "calls.h"

void calls_init(struct call_list *list, uint64_t base)
{
	*list = (struct call_list){ .base = base };
}

void calls_free(struct call_list *list)
{
	free(list->calls);
	free(list->purposes);
	free(list->bytes);
	calls_init(list, 0);
}

call_handle calls_add(struct call_list *list, const char *purpose, long number, const uint64_t arguments[6])
{
	struct remote_call *added = grow(&list->calls, &list->count);

	*grow(&list->purposes, &list->purpose_count) = purpose;
	added->number = number;
	memcpy(added->arguments, arguments, sizeof(added->arguments));
	return list->count;
}

void calls_accept(struct call_list *list, int error)
{
	list->calls[list->count - 1].result = -error;
}

uint64_t calls_bytes(struct call_list *list, const void *bytes, size_t size)
{
	size_t at = round_up(list->size, 16UL);

	if (at + size >= list->capacity) {
		list->capacity = max(2 * list->capacity, round_up(at + size + 1, PAGE_SIZE));
		list->bytes = reallocate_array(list->bytes, list->capacity, 1);
	}
	memset(list->bytes + list->size, 0, at - list->size);
	if (bytes)
		memcpy(list->bytes + at, bytes, size);
	else
		memset(list->bytes + at, 0, size);
	list->size = at + size;
	return list->base + at;
}

void *calls_at(const struct call_list *list, uint64_t address)
{
	return list->bytes + (address - list->base);
}

int calls_check_abi(enum call_abi abi, const struct victim *victim)
{
	if (abi == victim->abi)
		return 0;
	return fail(0, "it runs %s code: %s system calls cannot be made in it", arch_abi_name(victim->abi),
		    arch_abi_name(abi));
}

int calls_make(struct call_list *list, struct victim *victim, size_t thread)
{
	int result = calls_check_abi(list->abi, victim);

	if (!result && list->size)
		result = victim_write(victim, list->base, list->bytes, list->size);
	if (!result)
		result = victim_call_thread(victim, thread, list->calls, list->count);
	if (!result && list->size)
		result = victim_read(victim, list->base, list->bytes, list->size);
	return result;
}

long calls_result(const struct call_list *list, call_handle handle)
{
	return handle ? list->calls[handle - 1].result : -ENOSYS;
}

const void *calls_answer(const struct call_list *list, call_handle handle, unsigned argument)
{
	return handle ? calls_at(list, list->calls[handle - 1].arguments[argument]) : NULL;
}
