/*
 * header.S - what the restorer begins with: the offsets of its entry points (struct restorer_header), which are in
 * arch/NAME/entry.S.
 */
	.section .blob.header, "a"
	.globl restorer_header
	.hidden restorer_header
restorer_header:
	.long restorer_start - restorer_header
	.long restorer_syscall - restorer_header
	.long blob_end - restorer_header
	.hidden restorer_start, restorer_syscall, blob_end

	.section .note.GNU-stack, "", %progbits
