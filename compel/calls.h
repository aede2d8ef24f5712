/*
 * calls.h - a list of system calls to make inside another process, with the bytes that their pointers point to.
 *
 * Dump fills a list to ask a task about itself (the parasite runs it). Restore fills a list for each thread to restore
 * its state (the restorer runs it). The bytes are laid out here and copied there, to `base`, before the list runs;
 * results come back the same way.
 */
#ifndef COMPEL_CALLS_H
#define COMPEL_CALLS_H

#include <stddef.h>
#include <stdint.h>
#include "compel.h"
#include "compiler.h"

/*
 * Identifies a call in its list. The code that adds a question keeps the handle, and finds the answer with it. 0 is no
 * call, so zeroed memory means that no question was asked.
 */
typedef size_t call_handle;

struct call_list {
	enum call_abi abi; /* of the numbers and bytes: today all lists have criu's own, CALL_ABI_64 */
	struct remote_call *calls;
	size_t count;
	const char **
		purposes; /* one for each call: "set the name of the thread"; static texts, for error messages */
	size_t purpose_count;
	uint64_t base; /* the address of `bytes` in the other process */
	char *bytes;
	size_t size, capacity;
};

void calls_init(struct call_list *list, uint64_t base);
void calls_free(struct call_list *list);
/* Adds a call with up to six arguments; the rest is 0. */
call_handle calls_add(struct call_list *list, const char *purpose, long number, const uint64_t arguments[6]);
#define add_call(list, purpose, number, ...) calls_add(list, purpose, number, (uint64_t[6]){ __VA_ARGS__ })
/* The restorer continues if the call that was added last fails with this errno. */
void calls_accept(struct call_list *list, int error);
/*
 * Reserves space for bytes, 16-byte aligned, and returns their address in the other process. `bytes` may be NULL (space
 * for a result).
 */
uint64_t calls_bytes(struct call_list *list, const void *bytes, size_t size);
/* The local address of those bytes. Valid until the next calls_bytes(). */
void *calls_at(const struct call_list *list, uint64_t address);
/* Fails, with the names of both, if calls of this ABI cannot be made in the process. */
int calls_check_abi(enum call_abi abi, const struct victim *victim) must_check;
/* Makes all calls of the list in one thread of an infected process; their bytes go there and come back. */
int calls_make(struct call_list *list, struct victim *victim, size_t thread) must_check;
/* The result of the call. -ENOSYS: the handle is no call. */
long calls_result(const struct call_list *list, call_handle handle) must_check;
/* The bytes that argument 0 … 5 of the call points to. NULL: the handle is no call. */
const void *calls_answer(const struct call_list *list, call_handle handle, unsigned argument);

#endif
