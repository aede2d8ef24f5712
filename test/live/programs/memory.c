/* memory.c - one process with every kind of private memory. It checks content, protection and growth. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "live.h"

#define PAGE 4096UL
#define MIB  (1UL << 20)

static uint64_t bss[MIB / 8];
static uint64_t data[1024] = { 1, 2, 3 };
static char *plain, *sparse, *zeroes, *untouched, *readable, *hidden, *moved, *fixed, *private_file,
	*shared_file, *stripes;
static int (*code)(void);
static char *heap_blocks[200];
static char *heap_end;

static char *map(size_t size, int flags)
{
	char *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | flags, -1, 0);

	live_check(memory != MAP_FAILED, "mmap: %m");
	return memory;
}

static void set_up_anonymous(void)
{
	plain = map(4 * MIB, 0);
	live_fill(plain, 4 * MIB, 1);
	sparse = map(16 * MIB, MAP_NORESERVE);
	for (size_t at = 0; at < 16 * MIB; at += 16 * PAGE)
		live_fill(sparse + at, PAGE, at);
	zeroes = map(MIB, 0);
	memset(zeroes, 1, MIB);
	memset(zeroes, 0, MIB);
	untouched = map(MIB, 0);
	readable = map(MIB, 0);
	live_fill(readable, MIB, 2);
	mprotect(readable, MIB, PROT_READ);
	hidden = map(MIB, 0);
	live_fill(hidden, MIB, 3);
	mprotect(hidden, MIB, PROT_NONE);
	moved = mremap(map(MIB, 0), MIB, 2 * MIB, MREMAP_MAYMOVE);
	live_fill(moved, 2 * MIB, 4);
	fixed = mmap((void *)0x200000000, MIB, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	live_check(fixed == (void *)0x200000000, "mmap at a fixed address: %m");
	live_fill(fixed, MIB, 5);
	stripes = map(64 * PAGE, 0);
	live_fill(stripes, 64 * PAGE, 6);
	for (int page = 1; page < 64; page += 2)
		mprotect(stripes + page * PAGE, PAGE, PROT_READ);
}

static void set_up_code(void)
{
	static const unsigned char return_42[] = { 0xb8, 42, 0, 0, 0, 0xc3 };
	char *memory = map(PAGE, 0);

	memcpy(memory, return_42, sizeof(return_42));
	mprotect(memory, PAGE, PROT_READ | PROT_EXEC);
	code = (int (*)(void))memory;
}

static char *map_file(const char *name, int flags)
{
	char path[4096], *content = malloc(32 * PAGE);

	live_path(path, sizeof(path), name);
	int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
	live_fill(content, 32 * PAGE, 100);
	live_check(write(fd, content, 32 * PAGE) == 32 * PAGE, "%s: %m", path);
	char *memory = mmap(NULL, 24 * PAGE, PROT_READ | PROT_WRITE, flags, fd, 8 * PAGE);
	live_check(memory != MAP_FAILED, "mmap of %s: %m", path);
	close(fd);
	free(content);
	return memory;
}

/* Pages of the private file: 0 mod 3 as in the file, 1 mod 3 rewritten, 2 mod 3 rewritten with zeros. */
static void set_up_files(void)
{
	private_file = map_file("private.data", MAP_PRIVATE);
	for (int page = 1; page < 24; page += 3) {
		live_fill(private_file + page * PAGE, PAGE, 7);
		if (page + 1 < 24)
			memset(private_file + (page + 1) * PAGE, 0, PAGE);
	}
	shared_file = map_file("shared.data", MAP_SHARED);
}

static void set_up_heap(void)
{
	for (int i = 0; i < 200; i++) {
		heap_blocks[i] = malloc(1000 + 8 * i);
		live_fill(heap_blocks[i], 1000 + 8 * i, i);
	}
	heap_end = sbrk(0);
	live_fill(bss + 1024, sizeof(bss) / 2, 8);
	live_fill(data, sizeof(data), 9);
}

static void check_zeros(const char *memory, size_t size, const char *what)
{
	for (size_t i = 0; i < size; i += 8)
		live_check(*(uint64_t *)(memory + i) == 0, "%s is not zero at %zu", what, i);
}

static void compare_file_pages(const char *memory, int first, int step, const char *what)
{
	for (int page = first; page < 24; page += step)
		live_compare(memory + page * PAGE, PAGE, 100 + (8 + page) * PAGE / 8, what);
}

static void verify(void)
{
	live_compare(plain, 4 * MIB, 1, "plain memory");
	for (size_t at = 0; at < 16 * MIB; at += 16 * PAGE) {
		live_compare(sparse + at, PAGE, at, "sparse memory");
		check_zeros(sparse + at + 7 * PAGE, 8, "a hole of sparse memory");
	}
	check_zeros(zeroes, MIB, "memory written with zeros");
	check_zeros(untouched, 16 * PAGE, "untouched memory");
	live_compare(readable, MIB, 2, "read-only memory");
	live_compare(moved, 2 * MIB, 4, "memory moved by mremap");
	live_compare(fixed, MIB, 5, "memory at a fixed address");
	live_compare(stripes, 64 * PAGE, 6, "memory of alternating protection");
	live_check(code() == 42, "the code in memory does not return 42");
	compare_file_pages(private_file, 0, 3, "private file mapping, page not changed");
	for (int page = 1; page < 24; page += 3) {
		live_compare(private_file + page * PAGE, PAGE, 7, "private file mapping, page changed");
		if (page + 1 < 24)
			check_zeros(private_file + (page + 1) * PAGE, PAGE,
				    "private file mapping, page zeroed");
	}
	compare_file_pages(shared_file, 0, 1, "shared file mapping");
	for (int i = 0; i < 200; i++)
		live_compare(heap_blocks[i], 1000 + 8 * i, i, "heap");
	live_compare(bss + 1024, sizeof(bss) / 2, 8, "bss");
	check_zeros((char *)bss, 1024, "the untouched part of bss");
	live_compare(data, sizeof(data), 9, "data");
	live_check(sbrk(0) == heap_end, "the heap's end moved");
}

/* A system call tests the access, so that a wrong protection gives an error code and not a crash. */
static bool is_readable(void *address)
{
	char byte;
	struct iovec local = { &byte, 1 }, remote = { address, 1 };
	int pipes[2];

	live_check(pipe(pipes) == 0, "pipe: %m");
	bool result = write(pipes[1], remote.iov_base, local.iov_len) == 1;
	close(pipes[0]);
	close(pipes[1]);
	return result;
}

static bool is_writable(char *address)
{
	int fd = open("/dev/zero", O_RDONLY);
	char saved = *address;
	bool result = read(fd, address, 1) == 1;

	if (result)
		*address = saved;
	close(fd);
	return result;
}

static void verify_protections(void)
{
	live_check(!is_readable(hidden), "memory of PROT_NONE can be read");
	mprotect(hidden, MIB, PROT_READ);
	live_compare(hidden, MIB, 3, "memory that was PROT_NONE");
	live_check(!is_writable(readable), "read-only memory can be written");
	for (int page = 0; page < 64; page++)
		live_check(is_writable(stripes + page * PAGE) == (page % 2 == 0), "page %d: wrong protection",
			   page);
}

static void grow_heap(void)
{
	for (int i = 0; i < 200; i++) {
		heap_blocks[i] = realloc(heap_blocks[i], 20000);
		live_compare(heap_blocks[i], 1000 + 8 * i, i, "heap after growing");
		live_fill(heap_blocks[i], 20000, i);
	}
	live_check((char *)sbrk(0) > heap_end, "the heap did not grow");
	live_check(sbrk(MIB) != (void *)-1, "sbrk: %m");
}

/* File mappings are still of the file: a write to the shared one reaches the file, one to the private one does not. */
static void write_through(const char *name, char *memory, bool shared)
{
	char path[4096];
	uint64_t value = 0;

	live_path(path, sizeof(path), name);
	*(uint64_t *)memory = 12345;
	int fd = open(path, O_RDONLY);
	live_check(pread(fd, &value, 8, 8 * PAGE) == 8, "%s: %m", path);
	live_check((value == 12345) == shared, "%s: a write to the mapping %s the file", name,
		   shared ? "did not reach" : "reached");
	close(fd);
}

static void with_deep_stack(void)
{
	uint64_t on_stack[MIB / 2 / 8];

	live_fill(on_stack, sizeof(on_stack), 10);
	live_ready();
	while (!live_stopping()) {
		verify();
		live_compare(on_stack, sizeof(on_stack), 10, "stack");
		live_sleep(0.02);
	}
	verify();
	live_compare(on_stack, sizeof(on_stack), 10, "stack");
}

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	set_up_anonymous();
	set_up_code();
	set_up_files();
	set_up_heap();
	with_deep_stack();
	verify_protections();
	grow_heap();
	write_through("shared.data", shared_file, true);
	write_through("private.data", private_file, false);
	return live_finish();
}
