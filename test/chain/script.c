/*
 * script.c - a task of the script: it does random operations on its memory, as many as the driver orders, and waits in
 * between. Only the seed determines the operations.
 *
 * usage: script BOARD FILE SLOT RANDOM DONE CHILDREN
 *
 * Linked statically and run without address randomization, so that two runs of a seed are alike.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "script.h"

struct board *board;
const char *file_path;
static sigjmp_buf after_fault;
static const struct operation *current;
static const struct operation *const tables[] = { memory_operations, write_operations, task_operations };

void script_trouble(const char *what)
{
	snprintf(board->trouble, sizeof(board->trouble), "%s: %s", what, strerror(errno));
	_exit(3);
}

uint64_t below(uint64_t limit)
{
	return random_below(&own->random, limit);
}

bool percent(unsigned int chance)
{
	return random_percent(&own->random, chance);
}

void note_range(uint64_t start, uint64_t end)
{
	struct log_entry *entry = &board->log[board->log_count];

	if (board->log_count == LOG_SIZE)
		return;
	*entry = (struct log_entry){ .step = board->step, .slot = own->slot, .start = start, .end = end };
	snprintf(entry->operation, sizeof(entry->operation), "%s", current->name);
	board->log_count++;
}

static void on_fault(int signal)
{
	siglongjmp(after_fault, signal);
}

/* Overwrites whole pages that are subject to MADV_FREE: only then is all of their content certain. */
static void settle_lazy(uint64_t start, uint64_t end)
{
	for (uint64_t page = start & -PAGE; page < end; page += PAGE) {
		uint64_t index = (page - ARENA) / PAGE;

		if (index >= ARENA_PAGES || !own->is_lazy[index])
			continue;
		memset((void *)page, index | 1, PAGE);
		own->is_lazy[index] = false;
	}
}

void write_bytes(uint64_t address, uint64_t length, uint64_t value)
{
	note_range(address, address + length);
	if (sigsetjmp(after_fault, 1))
		return;
	settle_lazy(address, address + length);
	for (uint64_t i = 0; i < length; i++)
		((volatile uint8_t *)address)[i] = value ? (value * (i / 8 + 1)) >> (i % 8 * 8) : 0;
}

bool is_any(const struct area *area)
{
	return area;
}

bool is_writable(const struct area *area)
{
	return area->protection & PROT_WRITE;
}

bool is_shared(const struct area *area)
{
	return area->is_shared;
}

bool is_anonymous(const struct area *area)
{
	return !area->is_shared && !area->inode;
}

const struct area *pick(bool (*fits)(const struct area *))
{
	static struct areas areas;
	size_t count = 0;

	if (areas_read(0, &areas))
		script_trouble("maps");
	areas_join(&areas);
	for (size_t i = 0; i < areas.count; i++) {
		const struct area *area = &areas.items[i];

		if (area->start >= ARENA && area->start < ARENA + ARENA_PAGES * PAGE && fits(area))
			areas.items[count++] = *area;
	}
	return count ? &areas.items[below(count)] : NULL;
}

void write_some(uint64_t start, uint64_t end)
{
	for (uint64_t times = 1 + below(4); times; times--) {
		uint64_t page = start + below((end - start) / PAGE) * PAGE;

		if (percent(50))
			write_bytes(page, PAGE, own->random | 1);
		else
			write_bytes(page + below(PAGE - 64), 1 + below(64), own->random | 1);
	}
}

static unsigned int count_weights(void)
{
	unsigned int sum = 0;

	for (size_t table = 0; table < sizeof(tables) / sizeof(*tables); table++)
		for (const struct operation *one = tables[table]; one->name; one++)
			sum += one->weight;
	return sum;
}

static void do_step(void)
{
	static unsigned int sum;
	unsigned int choice;

	if (!sum)
		sum = count_weights();
	board->step++;
	choice = below(sum);
	for (size_t table = 0; table < sizeof(tables) / sizeof(*tables); table++)
		for (const struct operation *one = tables[table]; one->name; one++) {
			current = one;
			if (choice < one->weight)
				return one->run();
			choice -= one->weight;
		}
}

/* The state tells how far the task is, the board how far it has to go. They fit together after a restore, too. */
static _Noreturn void obey(void)
{
	struct slot *slot = &board->slots[own->slot];

	for (;;) {
		while (__atomic_load_n(&slot->order, __ATOMIC_ACQUIRE) == own->done) {
			if (slot->done != own->done) {
				__atomic_store_n(&slot->done, own->done, __ATOMIC_RELEASE);
				syscall(SYS_futex, &slot->done, FUTEX_WAKE, 1, NULL, NULL, 0);
			}
			syscall(SYS_futex, &slot->order, FUTEX_WAIT, own->done, NULL, NULL, 0);
		}
		tasks_reap();
		own->done++; /* before the step, which may not return */
		do_step();
	}
}

void task_begin(uint32_t slot, uint64_t random, uint32_t done, uint32_t children)
{
	own->slot = slot;
	own->random = random;
	own->done = done;
	own->children = children;
	own->threads = 0;
	board->slots[slot].pid = getpid();
	obey();
}

static void make_state(void)
{
	char *room;

	if (mmap((void *)STATE, sizeof(struct state), PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0) != (void *)STATE)
		script_trouble("mmap of the state");
	/* libc allocates from this memory and so never moves the end of the heap, which belongs to the script. */
	room = malloc(64 << 10);
	free(room);
	own->heap_start = ((uint64_t)sbrk(0) + PAGE - 1) & -PAGE;
}

int main(int argc, char **argv)
{
	struct sigaction action = { .sa_handler = on_fault };
	int fd = argc == 7 ? open(argv[1], O_RDWR | O_CLOEXEC) : -1;

	board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (board == MAP_FAILED)
		return 2;
	close(fd);
	file_path = argv[2];
	sigaction(SIGSEGV, &action, NULL);
	sigaction(SIGBUS, &action, NULL);
	make_state();
	task_begin(strtoul(argv[3], NULL, 10), strtoull(argv[4], NULL, 10), strtoul(argv[5], NULL, 10),
		   strtoul(argv[6], NULL, 10));
}
