/*
 * writes.c - operations of a script that write to existing memory, in every way in which a page can change.
 */
#include <alloca.h>
#include <fcntl.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>
#include "script.h"

static uint64_t page_of(const struct area *area)
{
	return area->start + below((area->end - area->start) / PAGE) * PAGE;
}

static bool is_lazy(uint64_t address)
{
	return own->is_lazy[(address - ARENA) / PAGE];
}

static void write_here(void)
{
	const struct area *area = pick(is_writable);

	if (area)
		write_some(area->start, area->end);
}

static void write_row(void)
{
	const struct area *area = pick(is_writable);
	uint64_t start, length;

	if (!area)
		return;
	start = page_of(area) + below(PAGE);
	length = 1 + below(6 * PAGE);
	write_bytes(start, start + length > area->end ? area->end - start : length, own->random | 1);
}

static void write_zeros(void)
{
	const struct area *area = pick(is_writable);

	if (area)
		write_bytes(page_of(area), percent(70) ? PAGE : 8, 0);
}

/* Writes the bytes that are there already. The kernel does it, so that a guard is an error and not a fault. */
static void write_the_same(void)
{
	const struct area *area = pick(is_writable);
	struct iovec there, here;
	uint64_t address;
	char copy[64];

	if (!area)
		return;
	address = page_of(area);
	if (is_lazy(address))
		return;
	there = (struct iovec){ (void *)address, sizeof(copy) };
	here = (struct iovec){ copy, sizeof(copy) };
	note_range(address, address + sizeof(copy));
	if (process_vm_readv(getpid(), &here, 1, &there, 1, 0) == sizeof(copy))
		process_vm_writev(getpid(), &here, 1, &there, 1, 0);
}

/* Reading a page that was never written maps the zero page there. */
static void read_some(void)
{
	const struct area *area = pick(is_any);
	struct iovec there, here;
	char byte;

	for (int times = 0; area && times < 4; times++) {
		there = (struct iovec){ (void *)page_of(area), 1 };
		here = (struct iovec){ &byte, 1 };
		process_vm_readv(getpid(), &here, 1, &there, 1, 0);
	}
}

/* The kernel writes whole pages, so they are no longer subject to MADV_FREE. */
static void read_file(void)
{
	const struct area *area = pick(is_writable);
	struct iovec parts[2];
	int fd;

	if (!area)
		return;
	fd = open(file_path, O_RDONLY | O_CLOEXEC);
	for (int i = 0; i < 2; i++) {
		uint64_t page = page_of(area);

		parts[i] = (struct iovec){ (void *)page, PAGE };
		note_range(page, page + PAGE);
	}
	if (preadv(fd, parts, percent(50) ? 2 : 1, below(FILE_PAGES - 2) * PAGE) >= (ssize_t)PAGE)
		own->is_lazy[((uint64_t)parts[0].iov_base - ARENA) / PAGE] = false;
	close(fd);
}

/* Leaves bytes below the stack pointer to which the stack shrinks again. */
static void __attribute__((noinline)) go_deep(uint64_t depth)
{
	uint64_t *room = alloca(512);

	for (int i = 0; i < 64; i++)
		((volatile uint64_t *)room)[i] = own->random + i * depth;
	if (depth)
		go_deep(depth - 1);
	__asm__ volatile("" ::"r"(room) : "memory");
}

static void use_stack(void)
{
	go_deep(below(200));
}

const struct operation write_operations[] = {
	{ "writes", 30, write_here },	    { "writes a row", 8, write_row },
	{ "writes zeros", 8, write_zeros }, { "writes the same", 4, write_the_same },
	{ "reads", 5, read_some },	    { "read() into memory", 6, read_file },
	{ "a deep stack", 4, use_stack },   { 0 },
};
