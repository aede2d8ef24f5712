/*
 * entry.S - the entry points of the restorer on aarch64, and the creation of a thread. No C function can do that: the
 * call returns twice, once on another stack.
 */
	.globl restorer_start, restorer_syscall
	.hidden restorer_header, restore_process, restore_thread

	.text
restorer_start:
	adr	x0, restorer_header
	mov	x29, xzr
	bl	restore_process
	brk	#0

restorer_syscall:
	svc	#0
	brk	#0

/* long start_thread(struct clone_args *arguments, size_t size, char *region, struct restorer_thread *thread) */
	.globl start_thread
	.hidden start_thread
start_thread:
	mov	x8, #435			/* clone3: changes only x0, and in the child the stack pointer */
	svc	#0
	cbz	x0, 1f
	ret
1:	mov	x29, xzr			/* the thread: the first frame of its stack */
	mov	x0, x2
	mov	x1, x3
	bl	restore_thread
	brk	#0

	.section .note.GNU-stack, "", %progbits
