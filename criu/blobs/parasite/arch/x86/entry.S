/*
 * entry.S - the entry points of the parasite on x86-64: the code that runs without a stack of its own.
 *
 * compel enters here by setting registers. `bail` relies only on the instruction pointer: the other registers can hold
 * anything when the thread is set free.
 */
#include "parasite.h"

	.globl parasite_serve, parasite_call, parasite_bail, parasite_work
	.hidden parasite_header, serve, pack_up

	.text
parasite_serve:
	lea	parasite_header(%rip), %rdi
	lea	PARASITE_CALLS(%rdi), %rsp
	call	serve
	jmp	parasite_bail

parasite_call:
	syscall
parasite_bail:
	cld
	lea	parasite_header(%rip), %rbx
	lea	PARASITE_CALLS(%rbx), %rsp
	mov	%rbx, %rdi
	call	pack_up
	mov	PARASITE_STATE + PARASITE_STATE_SYSCALL_RETURN(%rbx), %rdx
	mov	PARASITE_STATE + PARASITE_STATE_HOME_STACK(%rbx), %rsp
	cmpl	$0, PARASITE_STATE + PARASITE_STATE_STAYS(%rbx)
	jne	2f
	test	%rdx, %rdx
	jz	1f
	mov	%rbx, %rdi
	mov	$PARASITE_SIZE, %esi
	mov	$11, %eax			/* munmap: the next instruction is outside of the region */
	jmp	*%rdx
1:	add	$8, %rsp			/* no code outside can unmap the region: leave it and go home */
	mov	$15, %eax
	syscall					/* rt_sigreturn */
2:	ret					/* another thread may be here: the region stays mapped */

/*
 * Any thread enters here; %rbx points to its desk. The code uses no stack: the thread's own stack is below the way
 * home, and the region has none for it. The thread leaves by its way home, which begins with the call that marks the
 * desk as free: the desk must not be free while the thread is still in the region.
 */
parasite_work:
	mov	PARASITE_DESK_CALLS(%rbx), %r12
	mov	PARASITE_DESK_COUNT(%rbx), %r13d
	mov	PARASITE_DESK_WORD(%rbx), %r14
1:	test	%r13d, %r13d
	jz	2f
	cmpl	$DESK_TAKEN, (%r14)
	jne	2f
	mov	0(%r12), %rax			/* struct remote_call */
	mov	8(%r12), %rdi
	mov	16(%r12), %rsi
	mov	24(%r12), %rdx
	mov	32(%r12), %r10
	mov	40(%r12), %r8
	mov	48(%r12), %r9
	syscall
	mov	%rax, 56(%r12)
	add	$64, %r12
	dec	%r13d
	jmp	1b
2:	lea	parasite_header(%rip), %rdi
	add	$PARASITE_STATE + PARASITE_STATE_WORKING, %rdi
	lock decl (%rdi)
	jnz	3f
	mov	$129, %esi			/* FUTEX_WAKE | FUTEX_PRIVATE_FLAG: the last one wakes the parasite */
	mov	$1, %edx
	mov	$202, %eax			/* futex */
	syscall
3:	cmpl	$DESK_TAKEN, (%r14)
	jne	4f
	mov	%r14, %rdi
	mov	$128, %esi			/* FUTEX_WAIT_PRIVATE, until criu takes the thread back or has died */
	mov	$DESK_TAKEN, %edx
	xor	%r10d, %r10d			/* no timeout: it would lose the restart of the task's own call */
	mov	$202, %eax
	syscall
	jmp	3b
4:	mov	PARASITE_DESK_HOME(%rbx), %rsp
	ret

	.section .note.GNU-stack, "", @progbits
