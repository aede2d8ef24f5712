/*
 * header.S - what the parasite begins with: the offsets of its entry points (struct parasite_header), which are in
 * arch/NAME/entry.S.
 */
	.section .blob.header, "a"
	.globl parasite_header
	.hidden parasite_header
parasite_header:
	.long parasite_serve - parasite_header
	.long parasite_call - parasite_header
	.long parasite_bail - parasite_header
	.long parasite_work - parasite_header
	.long blob_end - parasite_header
	.hidden parasite_serve, parasite_call, parasite_bail, parasite_work, blob_end

	.section .note.GNU-stack, "", %progbits
