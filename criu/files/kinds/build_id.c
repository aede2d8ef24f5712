/*
 * build_id.c - finds the note NT_GNU_BUILD_ID among the program headers of an ELF file.
 *
 * The file is untrusted, and need not be ELF: anything unexpected means "no build id".
 */
#include <elf.h>
#include <string.h>
#include <unistd.h>
#include "compiler.h"
#include "files/kinds/build_id.h"

#define MOST_HEADERS 64
#define MOST_NOTES   4096

static size_t search_notes(const char *notes, size_t size, uint32_t words[BUILD_ID_WORDS])
{
	for (size_t at = 0; at + sizeof(Elf64_Nhdr) <= size;) {
		const Elf64_Nhdr *note = (const void *)(notes + at);
		size_t name = at + sizeof(*note);
		size_t content = name + round_up((size_t)note->n_namesz, 4UL);

		if (content > size || note->n_descsz > size - content)
			return 0;
		if (note->n_type == NT_GNU_BUILD_ID && note->n_namesz == 4 &&
		    !memcmp(notes + name, "GNU", 4) && note->n_descsz <= BUILD_ID_WORDS * sizeof(uint32_t)) {
			memset(words, 0, BUILD_ID_WORDS * sizeof(uint32_t));
			memcpy(words, notes + content, note->n_descsz);
			return (note->n_descsz + 3) / 4;
		}
		at = content + round_up((size_t)note->n_descsz, 4UL);
	}
	return 0;
}

size_t build_id_read(int fd, uint32_t words[BUILD_ID_WORDS])
{
	Elf64_Phdr programs[MOST_HEADERS];
	char notes[MOST_NOTES];
	Elf64_Ehdr header;
	size_t found = 0;

	if (pread(fd, &header, sizeof(header), 0) != sizeof(header) ||
	    memcmp(header.e_ident, ELFMAG, SELFMAG) || header.e_ident[EI_CLASS] != ELFCLASS64 ||
	    header.e_phentsize != sizeof(Elf64_Phdr) || header.e_phnum > MOST_HEADERS)
		return 0;
	if (pread(fd, programs, header.e_phnum * sizeof(*programs), header.e_phoff) !=
	    (ssize_t)(header.e_phnum * sizeof(*programs)))
		return 0;
	for (int i = 0; i < header.e_phnum && !found; i++) {
		ssize_t size = min(programs[i].p_filesz, sizeof(notes));

		if (programs[i].p_type == PT_NOTE && pread(fd, notes, size, programs[i].p_offset) == size)
			found = search_notes(notes, size, words);
	}
	return found;
}
