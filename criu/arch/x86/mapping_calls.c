/*
 * mapping_calls.c - system calls that may change mappings and that only x86-64 has: see kernel/mapping_watch.h. A
 * 64-bit program can also make the calls of 32-bit programs and of x32.
 */
#include <sys/syscall.h>
#include "compiler.h"
#include "kernel/mapping_watch.h"

const int arch_mapping_calls[] = {
	SYS_fork, SYS_vfork, SYS_arch_prctl,
	/*
	 * By `int $0x80`, which has its own numbers; execve is 11, like munmap. fork is missing, because its number
	 * is that of open.
	 */
	90,  /* mmap */
	91,  /* munmap */
	117, /* ipc */
	120, /* clone */
	125, /* mprotect */
	150, /* mlock */
	151, /* munlock */
	152, /* mlockall */
	153, /* munlockall */
	163, /* mremap */
	172, /* prctl */
	190, /* vfork */
	192, /* mmap2 */
	219, /* madvise */
	245, /* io_setup */
	246, /* io_destroy */
	274, /* mbind */
	358, /* execveat */
	376, /* mlock2 */
	380, /* pkey_mprotect */
	384, /* arch_prctl */
	397, /* shmat */
	398, /* shmdt */
};
const size_t arch_mapping_call_count = array_size(arch_mapping_calls);

/*
 * The numbers of x32 calls have bit 30 set. By `int $0x80`, 45 is brk and 257 is remap_file_pages; they are told from
 * recvfrom and openat, which have these numbers otherwise, by what they return.
 */
const char arch_mapping_condition[] =
	"id >= 0x40000000 || (id == 45 && ret >= 65536) || (id == 257 && ret == 0)";
