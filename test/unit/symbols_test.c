/*
 * symbols_test.c - finds the functions in an ELF file: in this kernel's own vdso, and in damaged copies of it.
 *
 * Every copy is at the end of readable memory, so that a read behind it is noticed.
 */
#include "unit.h"
#include <elf.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/memory.h"
#include "restore/symbols.h"

#define ROUNDS 200000

/* Its size follows from the section headers, which are at its end. */
static size_t vdso(const char **bytes)
{
	const Elf64_Ehdr *header = (const void *)(uintptr_t)getauxval(AT_SYSINFO_EHDR);

	if (!header)
		skip();
	*bytes = (const char *)header;
	return header->e_shoff + header->e_shnum * sizeof(Elf64_Shdr);
}

/* A copy whose last byte is the last one that can be read. */
static char *copy_to_edge(const char *bytes, size_t size)
{
	size_t room = round_up(size, PAGE_SIZE);
	char *memory = mmap(NULL, room + PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
			    0);

	assert_true(memory != MAP_FAILED);
	assert_int_equal(mprotect(memory + room, PAGE_SIZE, PROT_NONE), 0);
	memcpy(memory + room - size, bytes, size);
	return memory + room - size;
}

static void free_copy(char *copy, size_t size)
{
	size_t room = round_up(size, PAGE_SIZE);

	munmap(copy - (room - size), room + PAGE_SIZE);
}

/* All symbols that are found are inside the file. */
static void assert_sane(const char *bytes, size_t size, struct symbols *symbols)
{
	for (size_t i = 0; i < symbols->count; i++) {
		const char *name = symbols->items[i].name;

		assert_true(symbols->items[i].offset < size);
		assert_true(name >= bytes && name + strlen(name) < bytes + size);
	}
	free(symbols->items);
}

static void read_anything(const char *bytes, size_t size)
{
	struct symbols symbols;

	failure_clear();
	if (!symbols_read(bytes, size, &symbols))
		assert_sane(bytes, size, &symbols);
	else
		assert_true(has_failed() && !symbols.items && !symbols.count);
	failure_clear();
}

static void finds_functions(void **state unused)
{
	struct symbols symbols;
	const char *bytes;
	size_t size = vdso(&bytes);

	assert_int_equal(symbols_read(bytes, size, &symbols), 0);
	assert_non_null(symbols_find(&symbols, "clock_gettime"));
	assert_ptr_equal(symbols_find(&symbols, "clock_gettime"),
			 symbols_find(&symbols, "__vdso_clock_gettime"));
	assert_non_null(symbols_find(&symbols, "__vdso_getcpu"));
	assert_null(symbols_find(&symbols, "no_such_function"));
	assert_sane(bytes, size, &symbols);
}

static void survives_other_files(void **state unused)
{
	char zeros[4096] = { 0 }, text[] = "\177ELF and nothing else";

	read_anything(zeros, sizeof(zeros));
	read_anything(zeros, 0);
	read_anything(text, sizeof(text));
}

static void survives_truncation(void **state unused)
{
	const char *bytes;
	size_t size = vdso(&bytes);

	for (size_t part = 0; part < size; part += 1 + part / 16) {
		char *copy = copy_to_edge(bytes, part);

		read_anything(copy, part);
		free_copy(copy, part);
	}
}

static uint32_t next_random(uint32_t *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void survives_noise(void **state unused)
{
	static const unsigned char favourites[] = { 0, 1, 0x7f, 0x80, 0xff };
	uint32_t seed = 1;
	const char *bytes;
	size_t size = vdso(&bytes), headers = min(size, (size_t)2048);
	char *copy = copy_to_edge(bytes, size);

	for (int round = 0; round < ROUNDS; round++) {
		uint32_t changes = 1 + next_random(&seed) % 8;

		while (changes--)
			copy[next_random(&seed) % headers] =
				favourites[next_random(&seed) % sizeof(favourites)];
		read_anything(copy, size);
		memcpy(copy, bytes, headers);
	}
	free_copy(copy, size);
}

/* Newer kernels may leave out the older hash table. */
static void counts_by_gnu_hash(void **state unused)
{
	struct symbols by_hash, by_gnu_hash;
	const char *bytes;
	size_t size = vdso(&bytes);
	char *copy = copy_to_edge(bytes, size);
	bool has_both = false;

	for (size_t at = 0; at + sizeof(Elf64_Dyn) < size; at += 8) {
		Elf64_Dyn *entry = (void *)(copy + at);

		/* among the tags: DT_HASH, its neighbours DT_STRTAB or DT_GNU_HASH */
		if (entry->d_tag == DT_HASH && entry->d_un.d_ptr < size && entry[1].d_tag == DT_GNU_HASH) {
			entry->d_tag = DT_DEBUG;
			has_both = true;
		}
	}
	if (!has_both) {
		free_copy(copy, size);
		skip();
	}
	assert_int_equal(symbols_read(bytes, size, &by_hash), 0);
	assert_int_equal(symbols_read(copy, size, &by_gnu_hash), 0);
	assert_int_equal(by_hash.count, by_gnu_hash.count);
	free(by_hash.items);
	free(by_gnu_hash.items);
	free_copy(copy, size);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(finds_functions),     cmocka_unit_test(survives_other_files),
		cmocka_unit_test(survives_truncation), cmocka_unit_test(survives_noise),
		cmocka_unit_test(counts_by_gnu_hash),
	};

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
