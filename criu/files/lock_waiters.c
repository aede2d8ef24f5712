/*
 * lock_waiters.c - dump: processes outside of the tree that wait for a lock of the tree, from /proc/locks. See lock.h.
 *
 * If the tree ends, such a process gets the lock, and the tree could not be restored. /proc/locks has each lock in the
 * same words as the fdinfo of its descriptor, and then whoever waits for it:
 *
 *	7: POSIX  ADVISORY  WRITE 4711 fe:00:10953813 0 99
 *	7: -> POSIX  ADVISORY  WRITE 4712 fe:00:10953813 0 9
 *
 * It does not tell who waits for a lock of an open file description (F_OFD_SETLKW): those have -1.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/error.h"
#include "base/index.h"
#include "base/io.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "files/lock.h"

/* The text behind "7: ". */
static const char *behind_number(const char *text)
{
	const char *colon = strstr(text, ": ");

	return colon ? colon + 2 + strspn(colon + 2, " ") : text;
}

uint64_t lock_line_hash(const char *text)
{
	uint64_t hash = 0;

	for (const char *letter = behind_number(text); *letter && *letter != '\n'; letter++)
		hash = index_mix(hash, (unsigned char)*letter);
	return hash;
}

static void tell_waiter(const struct snapshot *snapshot, const struct file_lock *lock, pid_t waiter)
{
	autofree char *path = format_text("/proc/%d/comm", waiter), *name = NULL, *sentence = NULL;

	if (read_text_at(AT_FDCWD, path, &name) < 0)
		return; /* it has ended */
	name[strcspn(name, "\n")] = '\0';
	sentence = format_text(
		"process %d (%s): descriptor %d (%s): process %d (%s), which is not in the tree, waits for its lock",
		lock->task->here, lock->task->name, lock->fd, lock->file->seen->link, waiter, name);
	if (snapshot->policy.leave_running || snapshot->policy.leave_stopped) {
		log_warning("%s", sentence);
		return;
	}
	refuse("%s: it would get the lock, and the tree could not be restored", sentence);
	fail_advice("end that process first; or --leave-running");
}

void locks_check_waiters(const struct snapshot *snapshot, const struct file_lock *locks, size_t count)
{
	const struct file_lock *holder = NULL;
	autofree char *text = NULL;
	struct index by_line = { 0 };

	if (!count || read_text_at(AT_FDCWD, "/proc/locks", &text) < 0)
		return;
	for (size_t i = 0; i < count; i++)
		index_set(&by_line, locks[i].line, (void *)&locks[i]);
	for (const char *line = text; *line; line = strchrnul(line, '\n'), line += *line == '\n') {
		const char *words = behind_number(line);
		pid_t waiter;

		if (strncmp(words, "-> ", 3))
			holder = index_find(&by_line, lock_line_hash(line));
		else if (holder && sscanf(words, "-> %*s %*s %*s %d", &waiter) == 1 && waiter > 0 &&
			 !snapshot_find_task_here(snapshot, waiter))
			tell_waiter(snapshot, holder, waiter);
	}
	index_free(&by_line);
}
