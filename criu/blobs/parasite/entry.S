/*
 * entry.S - the doors of the parasite: its header, and the code that runs without a stack of its own.
 *
 * compel enters here by setting registers. `bail` relies on nothing but the instruction pointer: whoever set the thread
 * free may have left anything in the other registers.
 */
#include "parasite.h"

	.section .blob.header, "a"
	.globl parasite_header
	.hidden parasite_header
parasite_header:
	.long parasite_serve - parasite_header
	.long parasite_call - parasite_header
	.long parasite_bail - parasite_header
	.long blob_end - parasite_header
	.hidden blob_end

#if defined(__x86_64__)

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
	test	%rdx, %rdx
	jz	1f
	mov	%rbx, %rdi
	mov	$PARASITE_SIZE, %esi
	mov	$11, %eax			/* munmap: the next instruction is not ours any more */
	jmp	*%rdx
1:	add	$8, %rsp			/* no way to unmap ourselves from outside: leave the region, go home */
	mov	$15, %eax
	syscall					/* rt_sigreturn */

#else
#error "the parasite has no doors on this architecture"
#endif

	.section .note.GNU-stack, "", @progbits
