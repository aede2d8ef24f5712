/* stack.c - stacks that grow after the restore: the main stack, a thread's, and an area of MAP_GROWSDOWN. */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

#include "live.h"

#define PAGE 4096UL

static char *growing;

static unsigned long deep(unsigned long depth)
{
	volatile char frame[1024];

	frame[0] = (char)depth;
	frame[1023] = frame[0];
	return depth ? deep(depth - 1) + (unsigned char)frame[1023] % 2 : 1;
}

static void *grow_in_thread(void *nothing)
{
	while (!live_stopping())
		live_sleep(0.01);
	deep(6000);
	return NULL;
}

/* The kernel keeps a gap below a growing area, so its address is far from all other mappings. */
static void set_up_growing(void)
{
	growing = mmap((void *)0x20000000, 8 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_GROWSDOWN | MAP_FIXED_NOREPLACE, -1, 0);
	live_check(growing != MAP_FAILED, "mmap: %m");
	live_fill(growing, 8 * PAGE, 1);
	for (int page = 1; page < 16; page++)
		live_fill(growing - page * PAGE, PAGE, page + 1);
}

static void verify(int pages)
{
	live_compare(growing, 8 * PAGE, 1, "the area that grows");
	for (int page = 1; page < pages; page++)
		live_compare(growing - page * PAGE, PAGE, page + 1, "the part that the area grew by");
}

int main(int argc, char **argv)
{
	pthread_t thread;

	live_begin(argc, argv);
	set_up_growing();
	pthread_create(&thread, NULL, grow_in_thread, NULL);
	live_ready();
	while (!live_stopping()) {
		verify(16);
		live_sleep(0.01);
	}
	for (int page = 16; page < 64; page++)
		live_fill(growing - page * PAGE, PAGE, page + 1);
	verify(64);
	deep(6000);
	pthread_join(thread, NULL);
	return live_finish();
}
