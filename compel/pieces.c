/*
 * pieces.c - reads and writes many pieces of a process's memory with few system calls.
 *
 * For each call the kernel looks the process up and checks whether it may be traced. That takes longer than the few
 * bytes of a piece.
 */
#include <errno.h>
#include <sys/uio.h>
#include "base/error.h"
#include "internal.h"

#define BATCH 256 /* the kernel takes 1,024 */

/* The number of pieces that were transferred completely. Less than `count`: the next one failed, and errno says why. */
static size_t transfer(pid_t pid, const struct memory_piece *pieces, size_t count, bool is_write)
{
	struct iovec here[BATCH], there[BATCH];
	ssize_t got;
	size_t done = 0;

	for (size_t i = 0; i < count; i++) {
		here[i] = (struct iovec){ pieces[i].bytes, pieces[i].size };
		there[i] = (struct iovec){ (void *)pieces[i].address, pieces[i].size };
	}
	got = is_write ? process_vm_writev(pid, here, count, there, count, 0) :
			 process_vm_readv(pid, here, count, there, count, 0);
	if (got >= 0)
		errno = EFAULT;
	for (; done < count && got >= (ssize_t)pieces[done].size; done++)
		got -= (ssize_t)pieces[done].size;
	return done;
}

static size_t transfer_all(pid_t pid, const struct memory_piece *pieces, size_t count, bool is_write)
{
	size_t done = 0;

	while (done < count) {
		size_t batch = min(count - done, (size_t)BATCH);
		size_t got = transfer(pid, pieces + done, batch, is_write);

		done += got;
		if (got < batch)
			break;
	}
	return done;
}

size_t pieces_read(const struct victim *victim, const struct memory_piece *pieces, size_t count)
{
	return transfer_all(victim->pid, pieces, count, false);
}

int pieces_write(const struct victim *victim, const struct memory_piece *pieces, size_t count)
{
	size_t done = transfer_all(victim->pid, pieces, count, true);

	if (done == count)
		return 0;
	return fail(errno, "cannot write %zu bytes at %lx of process %d", pieces[done].size,
		    (unsigned long)pieces[done].address, victim->pid);
}
