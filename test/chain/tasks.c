/* tasks.c - operations of a script that create tasks and threads, end them, and write to the memory of others. */
#include <fcntl.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "areas.h"
#include "script.h"

void tasks_reap(void)
{
	int pid;

	while ((pid = waitpid(-1, NULL, WNOHANG)) > 0) {
		for (int i = 0; i < SLOTS; i++)
			if (board->slots[i].state == SLOT_GONE && board->slots[i].pid == pid)
				board->slots[i].state = SLOT_FREE;
		own->children--;
	}
}

static void fork_task(void)
{
	uint64_t random = random_next(&own->random);
	uint32_t parent = own->slot, slot = 0;
	int pid;

	while (slot < SLOTS && board->slots[slot].state != SLOT_FREE)
		slot++;
	if (slot == SLOTS)
		return;
	memset(&board->slots[slot], 0, sizeof(board->slots[slot]));
	board->slots[slot].parent = parent;
	pid = fork();
	if (pid < 0)
		script_trouble("fork");
	if (!pid)
		task_begin(slot, random, 0, 0);
	board->slots[slot].pid = pid;
	board->slots[slot].state = SLOT_LIVE;
	own->children++;
}

/* Only a task without children ends, and never the root: otherwise tasks would leave the tree. */
static void end(void)
{
	struct slot *slot = &board->slots[own->slot];

	if (!own->slot || own->children)
		return;
	__atomic_store_n(&slot->state, SLOT_GONE, __ATOMIC_RELEASE);
	slot->done = slot->order;
	syscall(SYS_futex, &slot->done, FUTEX_WAKE, 1, NULL, NULL, 0);
	_exit(0);
}

/* exec: the same pid and children, but new memory. */
static void exec_again(void)
{
	char slot[12], random[24], done[12], children[12], board_path[120];
	char *arguments[] = { "script", board_path, (char *)file_path, slot, random, done, children, NULL };
	static struct areas areas;

	if (areas_read(0, &areas))
		script_trouble("maps");
	strcpy(board_path, areas_find(&areas, (uint64_t)board)->path);
	snprintf(slot, sizeof(slot), "%u", own->slot);
	snprintf(random, sizeof(random), "%llu", (unsigned long long)random_next(&own->random));
	snprintf(done, sizeof(done), "%u", own->done);
	snprintf(children, sizeof(children), "%u", own->children);
	execv("/proc/self/exe", arguments);
	script_trouble("exec");
}

/* The child has no slot, and ends before the step does. */
static void write_by_child(void)
{
	const struct area *area = pick(is_shared);
	int pid;

	if (!area)
		return;
	pid = fork();
	if (!pid) {
		write_some(area->start, area->end);
		_exit(0);
	}
	random_next(&own->random);
	if (pid < 0 || waitpid(pid, NULL, 0) != pid)
		script_trouble("a short-lived child");
}

/*
 * Writes to the arena of a task that waits, but not to pages after MADV_FREE: only that task itself can mark them as
 * written.
 */
static void write_to_another(void)
{
	static struct areas areas;
	struct slot *slot = &board->slots[below(SLOTS)];
	uint64_t address = ARENA + below(CROWDED_PAGES) * PAGE, value[8] = { random_next(&own->random) };
	struct iovec local = { value, 1 + below(sizeof(value)) }, remote = { (void *)address, local.iov_len };
	const struct area *area;
	uint8_t is_lazy = true;
	struct iovec to = { &is_lazy, 1 }, from = { &own->is_lazy[(address - ARENA) / PAGE], 1 };

	if (slot->state != SLOT_LIVE || slot == &board->slots[own->slot] || areas_read(slot->pid, &areas))
		return;
	area = areas_find(&areas, address);
	if (!area)
		return;
	if (process_vm_readv(slot->pid, &to, 1, &from, 1, 0) != 1 || is_lazy)
		return;
	note_range(address, address + local.iov_len);
	process_vm_writev(slot->pid, &local, 1, &remote, 1, 0);
}

static void wait_while(uint32_t *word, uint32_t value)
{
	while (__atomic_load_n(word, __ATOMIC_ACQUIRE) == value)
		syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void *help(void *argument)
{
	typeof(&own->helpers[0]) self = argument;

	for (;;) {
		wait_while(&self->work, self->finished);
		memset((void *)self->address, self->value, self->length);
		__atomic_store_n(&self->finished, self->work, __ATOMIC_RELEASE);
		syscall(SYS_futex, &self->finished, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	}
	return NULL;
}

static void add_thread(void)
{
	void *stack = (void *)(THREAD_STACKS + own->threads * THREAD_STACK);
	pthread_attr_t attributes;
	pthread_t thread;

	if (own->threads == THREADS)
		return;
	if (mmap(stack, THREAD_STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1,
		 0) != stack)
		script_trouble("mmap of a stack");
	memset(&own->helpers[own->threads], 0, sizeof(own->helpers[0]));
	pthread_attr_init(&attributes);
	pthread_attr_setstack(&attributes, stack, THREAD_STACK);
	if (pthread_create(&thread, &attributes, help, &own->helpers[own->threads]))
		script_trouble("a thread");
	pthread_attr_destroy(&attributes);
	own->threads++;
}

/* Only to pages that are present by then, because a fault in a helper thread would end the process. */
static void write_by_thread(void)
{
	typeof(&own->helpers[0]) helper = &own->helpers[below(THREADS)];
	const struct area *area = pick(is_writable);
	uint64_t pages = 1 + below(8), start;

	if (helper >= &own->helpers[own->threads] || !area)
		return;
	start = area->start + below((area->end - area->start) / PAGE) * PAGE;
	if (start + pages * PAGE > area->end)
		pages = (area->end - start) / PAGE;
	if (madvise((void *)start, pages * PAGE, MADV_POPULATE_WRITE))
		return;
	memset(&own->is_lazy[(start - ARENA) / PAGE], false, pages);
	note_range(start, start + pages * PAGE);
	helper->address = start;
	helper->length = pages * PAGE;
	helper->value = random_next(&own->random);
	__atomic_store_n(&helper->work, helper->work + 1, __ATOMIC_RELEASE);
	syscall(SYS_futex, &helper->work, FUTEX_WAKE_PRIVATE, 1, NULL, NULL, 0);
	wait_while(&helper->finished, helper->work - 1);
}

const struct operation task_operations[] = {
	{ "fork", 6, fork_task },
	{ "exit", 4, end },
	{ "exec", 2, exec_again },
	{ "a child writes to shared memory", 4, write_by_child },
	{ "process_vm_writev", 8, write_to_another },
	{ "a new thread", 2, add_thread },
	{ "a thread writes", 6, write_by_thread },
	{ 0 },
};
