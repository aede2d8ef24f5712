/*
 * entry.S - the entry points of the parasite on aarch64: the code that runs without a stack of its own.
 *
 * compel enters here by setting registers. `bail` relies on nothing but the instruction pointer: the other registers
 * can hold anything when the thread is set free.
 *
 * A way home begins with two words: the address of code of the task's own that makes rt_sigreturn, and padding. Behind
 * them, at an address that is a multiple of 16, lies the signal frame. So a thread that goes home has the first word in
 * x30 and the stack pointer at the frame. All jumps into code of the task are `ret`: any other may have to meet a
 * landing pad (BTI).
 */
#include "parasite.h"

#define CALL_FUTEX	  98
#define CALL_RT_SIGRETURN 139
#define CALL_MUNMAP	  215

	.globl parasite_serve, parasite_call, parasite_bail, parasite_work
	.hidden parasite_header, serve, pack_up

	.text
parasite_serve:
	adr	x0, parasite_header
	add	sp, x0, #PARASITE_CALLS
	mov	x29, xzr
	bl	serve
	b	parasite_bail

parasite_call:
	svc	#0
parasite_bail:
	adr	x19, parasite_header
	add	sp, x19, #PARASITE_CALLS
	mov	x29, xzr
	mov	x0, x19
	bl	pack_up
	add	x1, x19, #PARASITE_STATE
	ldr	x2, [x1, #PARASITE_STATE_SYSCALL_RETURN]
	ldr	x3, [x1, #PARASITE_STATE_HOME_STACK]
	ldr	w4, [x1, #PARASITE_STATE_STAYS]
	ldr	x30, [x3], #16
	mov	sp, x3
	cbnz	w4, 2f
	cbz	x2, 1f
	mov	x0, x19
	mov	x1, #PARASITE_SIZE
	mov	x8, #CALL_MUNMAP		/* the instruction behind the call is the task's, and returns to x30 */
	ret	x2
1:	mov	x8, #CALL_RT_SIGRETURN		/* no code outside can unmap the region: leave it and go home */
	svc	#0
2:	ret					/* another thread may be here: the region stays mapped */

/*
 * Any thread enters here; x19 points to its desk. The code uses no stack: the thread's own stack is below the way home,
 * and the region has none for it. The thread leaves by its way home, which begins with the call that marks the desk as
 * free: the desk must not be free while the thread is still in the region.
 */
parasite_work:
	ldr	x20, [x19, #PARASITE_DESK_CALLS]
	ldr	w21, [x19, #PARASITE_DESK_COUNT]
	ldr	x22, [x19, #PARASITE_DESK_WORD]
1:	cbz	w21, 2f
	ldar	w9, [x22]
	cmp	w9, #DESK_TAKEN
	b.ne	2f
	ldr	x8, [x20]			/* struct remote_call */
	ldp	x0, x1, [x20, #8]
	ldp	x2, x3, [x20, #24]
	ldp	x4, x5, [x20, #40]
	svc	#0
	str	x0, [x20, #56]
	add	x20, x20, #64
	sub	w21, w21, #1
	b	1b
2:	adr	x0, parasite_header
	add	x0, x0, #PARASITE_STATE
	add	x0, x0, #PARASITE_STATE_WORKING
3:	ldaxr	w9, [x0]
	sub	w9, w9, #1
	stlxr	w10, w9, [x0]
	cbnz	w10, 3b
	cbnz	w9, 4f
	mov	x1, #129			/* FUTEX_WAKE | FUTEX_PRIVATE_FLAG: the last one tells the parasite */
	mov	x2, #1
	mov	x8, #CALL_FUTEX
	svc	#0
4:	ldar	w9, [x22]
	cmp	w9, #DESK_TAKEN
	b.ne	5f
	mov	x0, x22
	mov	x1, #128			/* FUTEX_WAIT_PRIVATE, until criu takes the thread back or has died */
	mov	x2, #DESK_TAKEN
	mov	x3, xzr				/* no timeout: it would lose the restart of the task's own call */
	mov	x8, #CALL_FUTEX
	svc	#0
	b	4b
5:	ldr	x3, [x19, #PARASITE_DESK_HOME]
	ldr	x30, [x3], #16
	mov	sp, x3
	ret

	.section .note.GNU-stack, "", %progbits
