/*
 * tables.c - segments that a process has given itself (modify_ldt(2)). The format has no place for them.
 */
#include <sys/syscall.h>
#include "arch/arch.h"

const char arch_tables_name[] = "its own segments (modify_ldt)";

/* The answer is the number of bytes that were read: 0, there are none. */
call_handle arch_ask_for_tables(struct call_list *calls)
{
	return add_call(calls, "ask for a table of segments", SYS_modify_ldt, 0, calls_bytes(calls, NULL, 8),
			8);
}
