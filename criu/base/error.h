/*
 * error.h - what failed, where, why, and what the user can do about it.
 *
 * A function that can fail returns 0 (or something useful that is >= 0), -errno or -REFUSED. Whoever finds the cause calls fail();
 * a caller at a border (one process, one file, one image) adds the place with fail_in(). Nobody prints.
 *
 *	if (fd < 0)
 *		return fail(errno, "cannot open %s", path);           the cause, once
 *	...
 *	return fail_in(result, "process %d (%s)", pid, comm);         the place, on the way up
 *
 * Such a function is declared with must_check (compiler.h), so that nobody forgets its result; ignore() drops one on purpose. Only
 * fail() and its kin are without: their result is for the convenience of those who return it.
 *
 * The record lives in a shared mapping: forked children, helpers and the service write and read the same one, and the
 * first failure wins. failure_report() makes this of it:
 *
 *	criu: cannot dump process 4711 (postgres)
 *	  file 12 (inotify): watch 3: no path found for inode 61313 on device 0:28: No such file or directory
 *	  try: --force-irmap                                     log: /img/dump.log
 */
#ifndef CRIU_BASE_ERROR_H
#define CRIU_BASE_ERROR_H

#include <stdbool.h>
#include <stddef.h>
#include "compiler.h"

/* Once, before the first fork. Dies if there is no memory. */
void error_init(void);

/*
 * fail(error, format, ...) records a cause and returns -error. `error` is a positive errno value; EINVAL says nothing to a
 * person, so for it and for 0 (which returns -EINVAL) strerror() is not added to the sentence. The sentence starts in lower
 * case and has no full stop. The log names the line of the source that calls fail().
 */
#define fail(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
int fail_at(const char *file, int line, int error, const char *format, ...) printf_like(4, 5);

/* Adds a place in front of the cause and returns `result` (which is < 0). */
int fail_in(int result, const char *format, ...) printf_like(2, 3);

/* Adds what the user can do about the failure that was recorded last. Kept once: the first advice wins. */
void fail_advice(const char *format, ...) printf_like(1, 2);

/*
 * A refusal is a failure of which several may stand side by side: all that a tree holds and we cannot save is told at
 * once. refuse(format, ...) records one line and returns -REFUSED; the record then counts as failed.
 *
 * No errno has the value of REFUSED: the kernel's are at most 4095. So an error of the kernel is never taken for a refusal.
 */
#define REFUSED	    4096
#define refuse(...) refuse_at(__FILE__, __LINE__, __VA_ARGS__)
int refuse_at(const char *file, int line, const char *format, ...) printf_like(3, 4);
int refusals(void); /* how many there were */

/* For loops that go on after a refusal, to find the others: 0 for a refusal, any other result as it is. */
static inline int unless_refused(int result)
{
	return result == -REFUSED ? 0 : result;
}

/*
 * An attempt is work whose failure need not be a failure of the command. What this thread records within it is kept apart from the
 * record that all processes share, so that neither touches the other.
 *
 *	struct attempt attempt;
 *
 *	attempt_begin(&attempt);
 *	if (save_statistics(dump))
 *		log_warning("stats-dump could not be written: %s", failure_text());
 *	attempt_forget(&attempt);
 *
 * Within an attempt, has_failed(), refusals(), failure_text() and failure_report() tell of the attempt alone. What fails is a line for
 * debugging in the log. An attempt ends in the function that began it, by attempt_forget() or by attempt_count(). Attempts nest: one
 * that counts is recorded in the attempt around it. A child that is forked within an attempt is in it, too, but what it records stays
 * with it. A thread that is started within one (base/thread.h), or works for somebody who is (base/helper_thread.h), records in it: the attempt
 * ends after the thread has.
 */
struct attempt {
	struct attempt *outer;
	struct failure *record; /* NULL: nothing has failed yet */
};

void attempt_begin(struct attempt *attempt);
void attempt_forget(struct attempt *attempt); /* It did not count */
void attempt_count(struct attempt *attempt);  /* What failed in it is a failure after all */

/* An attempt in one expression: the result of `work`; what failed is forgotten. */
#define attempted(work)                             \
	({                                          \
		struct attempt attempted_attempt;   \
		__typeof__(work) attempted_result;  \
                                                    \
		attempt_begin(&attempted_attempt);  \
		attempted_result = (work);          \
		attempt_forget(&attempted_attempt); \
		attempted_result;                   \
	})

/* For base/thread.c and base/helper_thread.c: the attempt of this thread, and what this thread works for. NULL: none. */
struct attempt *attempt_current(void);
void attempt_join(struct attempt *attempt);

/* What a child of ours has recorded counts as recorded by us from now on, so that we can add places to it. `child` as it sees itself. */
void failure_take_over(int child);

bool has_failed(void);
/* For others than us: a positive errno; EOPNOTSUPP stands for a refusal; 0 if nothing failed. */
int failure_errno(void);

/*
 * The sentence(s) for a person, as in the comment above; "" if nothing failed. `log` is a path or NULL. Without a
 * headline the cause is the headline: "criu: --tcp-established is not supported yet".
 */
void failure_report(char *text, size_t size, const char *headline, const char *log);

/* The cause with its places; "" if nothing failed. Valid until something fails, or the attempt ends. */
const char *failure_text(void);

/* Writes the cause to the log, unless it stands there with all its places: it may be older than the log. */
void failure_log(void);

/* For unit tests: nothing has failed yet. */
void failure_clear(void);

#endif
