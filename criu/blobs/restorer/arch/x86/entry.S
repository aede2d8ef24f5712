/*
 * entry.S - the entry points of the restorer on x86-64, and the creation of a thread. No C function can do that: the
 * call returns twice, once on another stack.
 */
	.globl restorer_start, restorer_syscall
	.hidden restorer_header, restore_process, restore_thread

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

	.section .note.GNU-stack, "", @progbits
