/*
 * error.h - what failed, where, why, and what the user can do about it.
 *
 * A function that can fail returns 0 (or another useful value >= 0), -errno or -REFUSED. The function that finds the
 * cause calls fail(). A caller that knows the place (a process, a file, an image) adds it with fail_in(). No function
 * prints.
 *
 *	if (fd < 0)
 *		return fail(errno, "cannot open %s", path);           the cause, once
 *	...
 *	return fail_in(result, "process %d (%s)", pid, comm);         the place, on the way up
 *
 * Such a function is declared with must_check (compiler.h), so that no caller forgets its result; ignore() drops a
 * result on purpose. Only fail() and its relatives have no must_check: they return a value so that the caller can
 * return it.
 *
 * The record lives in a shared mapping. Forked children, helper threads and the service write to the same record, and
 * the first failure wins. failure_report() turns it into this:
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

/* To be called once, before the first fork. Ends criu if there is no memory. */
void error_init(void);

/*
 * fail(error, format, ...) records a cause and returns -error. `error` is a positive errno value. strerror() is
 * appended to the sentence, except for EINVAL (its text helps nobody) and for 0 (which returns -EINVAL). The sentence
 * starts in lower case and has no full stop. The log names the source line that calls fail().
 */
#define fail(...) fail_at(__FILE__, __LINE__, __VA_ARGS__)
int fail_at(const char *file, int line, int error, const char *format, ...) printf_like(4, 5);

/* Adds a place in front of the cause and returns `result` (which is < 0). */
int fail_in(int result, const char *format, ...) printf_like(2, 3);

/* Adds what the user can do about the failure that was recorded last. Only the first advice is kept. */
void fail_advice(const char *format, ...) printf_like(1, 2);

/*
 * A refusal is a failure that can be recorded several times: everything in the tree that criu cannot save is reported
 * at once. refuse(format, ...) records one line and returns -REFUSED; the record then counts as failed.
 *
 * REFUSED is no errno: the kernel's end at 4095. So an error of the kernel is never taken for a refusal.
 */
#define REFUSED	    4096
#define refuse(...) refuse_at(__FILE__, __LINE__, __VA_ARGS__)
int refuse_at(const char *file, int line, const char *format, ...) printf_like(3, 4);
int refusals(void); /* the number of refusals so far */

/* For loops that continue after a refusal to find the others: 0 for a refusal, any other result unchanged. */
static inline int unless_refused(int result)
{
	return result == -REFUSED ? 0 : result;
}

/*
 * An attempt is work whose failure does not have to fail the command. What this thread records within it goes to a
 * record of the attempt and not to the shared one, so neither changes the other.
 *
 *	struct attempt attempt;
 *
 *	attempt_begin(&attempt);
 *	if (save_statistics(dump))
 *		log_warning("stats-dump could not be written: %s", failure_text());
 *	attempt_forget(&attempt);
 *
 * Within an attempt, has_failed(), refusals(), failure_text() and failure_report() tell of the attempt alone. A failure
 * in it is a debug line in the log. An attempt ends in the function that began it, by attempt_forget() or
 * attempt_count(). Attempts nest: one that counts is recorded in the attempt around it. A child that is forked within
 * an attempt is in it, too, but what the child records is lost to the parent. A thread that is started within an
 * attempt (base/thread.h), or helps a thread that is in one (base/helper_thread.h), records in it: the attempt must end
 * after the work of that thread.
 */
struct attempt {
	struct attempt *outer;
	struct failure *record; /* NULL: nothing has failed yet */
};

void attempt_begin(struct attempt *attempt);
void attempt_forget(struct attempt *attempt); /* drops its failures */
void attempt_count(struct attempt *attempt);  /* its failures become failures of what is around it */

/* An attempt in one expression. Its value is the result of `work`; failures are dropped. */
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

/* For base/thread.c and base/helper_thread.c: the attempt of this thread, and the attempt it joins. NULL: none. */
struct attempt *attempt_current(void);
void attempt_join(struct attempt *attempt);

/*
 * From now on the failure that a child of criu has recorded belongs to this process, which can add places to it.
 * `child` is the pid that the child itself sees.
 */
void failure_take_over(int child);

bool has_failed(void);
/* For the service and its clients: a positive errno; EOPNOTSUPP stands for a refusal; 0 if nothing failed. */
int failure_errno(void);

/*
 * The report for the user, as in the comment above; "" if nothing failed. `log` is a path or NULL. Without a headline
 * the cause becomes the headline: "criu: --tcp-established is not supported yet".
 */
void failure_report(char *text, size_t size, const char *headline, const char *log);

/* The cause with its places; "" if nothing failed. Valid until something fails, or the attempt ends. */
const char *failure_text(void);

/*
 * Writes the cause to the log, unless the log has it already with all its places. A failure may be older than the log.
 */
void failure_log(void);

/* For unit tests: nothing has failed yet. */
void failure_clear(void);

#endif
