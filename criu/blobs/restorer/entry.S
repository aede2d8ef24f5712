/*
 * entry.S - the entry points of the restorer, and the creation of a thread. No C function can do that: the call returns
 * twice, once on another stack.
 */
	.section .blob.header, "a"
	.globl restorer_header
	.hidden restorer_header
restorer_header:
	.long restorer_start - restorer_header
	.long restorer_syscall - restorer_header
	.long blob_end - restorer_header
	.hidden blob_end

#if defined(__x86_64__)

	.text
restorer_start:
	lea	restorer_header(%rip), %rdi
	xor	%ebp, %ebp
	call	restore_process
	ud2

restorer_syscall:
	syscall
	ud2

/* long start_thread(struct clone_args *arguments, size_t size, char *region, struct restorer_thread *thread) */
	.globl start_thread
	.hidden start_thread
start_thread:
	mov	%rdx, %r8
	mov	%rcx, %r9
	mov	$435, %eax			/* clone3 */
	syscall
	test	%rax, %rax
	jz	1f
	ret
1:	xor	%ebp, %ebp			/* the thread: its stack is empty */
	mov	%r8, %rdi
	mov	%r9, %rsi
	call	restore_thread
	ud2

#else
#error "the restorer has no doors on this architecture"
#endif

	.section .note.GNU-stack, "", @progbits
