/*
 * calls.h - a list of system calls to be made inside another process, and the bytes that their pointers point to.
 *
 * Dump fills one to ask a task about itself (the parasite runs it); restore fills one a thread to make it what it was (the
 * restorer runs it). Bytes are laid out here and copied there, to `base`, before the list runs; results come back the
 * same way.
 */
#ifndef COMPEL_CALLS_H
#define COMPEL_CALLS_H

#include <stddef.h>
#include <stdint.h>
#include "compel.h"
#include "compiler.h"

/*
 * Names a call in its list: whoever adds a question keeps it, and finds the answer by it. 0 names no call, so memory that is all zeros
 * holds questions that nobody has asked.
 */
typedef size_t call_handle;

struct call_list {
	struct remote_call *calls;
	size_t count;
	const char **
		purposes; /* one a call: "set the name of the thread"; static texts, for the sentence of an error */
	size_t purpose_count;
	uint64_t base; /* where `bytes` will lie over there */
	char *bytes;
	size_t size, room;
};

void calls_init(struct call_list *list, uint64_t base);
void calls_free(struct call_list *list);
/* Adds a call with up to six arguments; the rest is 0. */
call_handle calls_add(struct call_list *list, const char *purpose, long number, const uint64_t arguments[6]);
#define call(list, purpose, number, ...) calls_add(list, purpose, number, (uint64_t[6]){ __VA_ARGS__ })
/* The restorer goes on if the call that was added last fails with this errno. */
void calls_accept(struct call_list *list, int error);
/* Room for bytes, 16-byte aligned: the address over there. `bytes` may be NULL (room for a result). */
uint64_t calls_bytes(struct call_list *list, const void *bytes, size_t size);
/* Where those bytes are here. Valid until the next calls_bytes(). */
void *calls_at(const struct call_list *list, uint64_t address);
/* What the call returned. -ENOSYS: the handle names no call. */
long calls_result(const struct call_list *list, call_handle handle) must_check;
/* The bytes that an argument of the call (0 … 5) points to. NULL: the handle names no call. */
const void *calls_answer(const struct call_list *list, call_handle handle, unsigned argument);

#endif
