/*
 * symbols.c - reads the dynamic symbols of a 64-bit ELF file that is in memory as it would be in a file.
 *
 * The file may come from an image and is not trusted: every position is checked before it is read. A vdso has one
 * segment, so an address in it is an offset plus a constant.
 */
#include <elf.h>
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/memory.h"
#include "restore/symbols.h"

struct file {
	const char *bytes;
	size_t size;
	uint64_t bias; /* address minus offset */
	/* offsets */
	uint64_t symbols, names, names_size, hash, gnu_hash;
};

static bool read_at(const struct file *file, uint64_t offset, void *into, size_t size)
{
	if (offset > file->size || size > file->size - offset)
		return false;
	memcpy(into, file->bytes + offset, size);
	return true;
}

static bool read_word(const struct file *file, uint64_t offset, uint32_t *word)
{
	return read_at(file, offset, word, sizeof(*word));
}

static void note_dynamic(struct file *file, const Elf64_Dyn *entry)
{
	uint64_t place = entry->d_un.d_ptr - file->bias;

	switch (entry->d_tag) {
	case DT_SYMTAB:
		file->symbols = place;
		break;
	case DT_STRTAB:
		file->names = place;
		break;
	case DT_HASH:
		file->hash = place;
		break;
	case DT_GNU_HASH:
		file->gnu_hash = place;
		break;
	case DT_STRSZ:
		file->names_size = entry->d_un.d_val;
		break;
	}
}

static bool read_headers(struct file *file)
{
	Elf64_Phdr program, dynamic = { 0 };
	bool has_segment = false;
	Elf64_Ehdr header;
	Elf64_Dyn entry;

	if (!read_at(file, 0, &header, sizeof(header)) || memcmp(header.e_ident, ELFMAG, SELFMAG) ||
	    header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_phentsize != sizeof(program))
		return false;
	for (uint64_t i = 0; i < header.e_phnum; i++) {
		if (header.e_phoff > file->size ||
		    !read_at(file, header.e_phoff + i * sizeof(program), &program, sizeof(program)))
			return false;
		if (program.p_type == PT_DYNAMIC)
			dynamic = program;
		if (program.p_type == PT_LOAD && !has_segment) {
			file->bias = program.p_vaddr - program.p_offset;
			has_segment = true;
		}
	}
	for (uint64_t at = 0; has_segment && at < dynamic.p_filesz; at += sizeof(entry)) {
		if (dynamic.p_offset > file->size ||
		    !read_at(file, dynamic.p_offset + at, &entry, sizeof(entry)))
			return false;
		if (entry.d_tag == DT_NULL)
			break;
		note_dynamic(file, &entry);
	}
	return file->symbols && file->names && (file->hash || file->gnu_hash);
}

/*
 * { buckets, first hashed symbol, words of the Bloom filter, its shift }, filter, buckets, chains: the end of one has
 * bit 0
 */
static bool count_by_gnu_hash(const struct file *file, uint64_t *count)
{
	uint32_t head[4], first, hash;
	uint64_t buckets, last = 0;

	if (file->gnu_hash > file->size || !read_at(file, file->gnu_hash, head, sizeof(head)))
		return false;
	buckets = file->gnu_hash + sizeof(head) + head[2] * 8ULL;
	for (uint64_t i = 0; i < head[0]; i++) {
		if (!read_word(file, buckets + i * 4, &first))
			return false;
		last = max(last, (uint64_t)first);
	}
	*count = head[1];
	if (last < head[1])
		return true; /* no symbol is hashed */
	do {
		if (!read_word(file, buckets + head[0] * 4ULL + (last - head[1]) * 4, &hash))
			return false;
		last++;
	} while (!(hash & 1));
	*count = last;
	return true;
}

static bool count_symbols(const struct file *file, uint64_t *count)
{
	uint32_t words[2];

	if (!file->hash)
		return count_by_gnu_hash(file, count);
	if (!read_at(file, file->hash, words, sizeof(words)))
		return false;
	*count = words[1];
	return true;
}

static bool has_name(const struct file *file, uint64_t name)
{
	return file->names < file->size && file->names_size <= file->size - file->names &&
	       name < file->names_size &&
	       memchr(file->bytes + file->names + name, '\0', file->names_size - name);
}

static bool add_symbols(const struct file *file, uint64_t count, struct symbols *symbols)
{
	Elf64_Sym symbol;

	for (uint64_t i = 0; i < count; i++) {
		if (file->symbols > file->size ||
		    !read_at(file, file->symbols + i * sizeof(symbol), &symbol, sizeof(symbol)))
			return false;
		if (ELF64_ST_TYPE(symbol.st_info) != STT_FUNC || symbol.st_shndx == SHN_UNDEF)
			continue;
		if (!has_name(file, symbol.st_name) || symbol.st_value - file->bias >= file->size)
			return false;
		*grow(&symbols->items, &symbols->count) = (struct symbol){
			.name = file->bytes + file->names + symbol.st_name,
			.offset = symbol.st_value - file->bias,
		};
	}
	return true;
}

int symbols_read(const void *elf, size_t size, struct symbols *symbols)
{
	struct file file = { .bytes = elf, .size = size };
	uint64_t count;

	*symbols = (struct symbols){ 0 };
	if (read_headers(&file) && count_symbols(&file, &count) && add_symbols(&file, count, symbols))
		return 0;
	free(symbols->items);
	*symbols = (struct symbols){ 0 };
	return fail(EINVAL, "the vdso is not a valid ELF file");
}

const char *symbol_base_name(const char *name)
{
	static const char *const prefixes[] = { "__vdso_", "__kernel_" };

	for (size_t i = 0; i < array_size(prefixes); i++)
		if (!strncmp(name, prefixes[i], strlen(prefixes[i])))
			return name + strlen(prefixes[i]);
	return name;
}

const struct symbol *symbols_find(const struct symbols *symbols, const char *name)
{
	for (size_t i = 0; i < symbols->count; i++)
		if (!strcmp(symbol_base_name(symbols->items[i].name), symbol_base_name(name)))
			return &symbols->items[i];
	return NULL;
}
