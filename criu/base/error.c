/*
 * error.c - the failure record. There is one for the program, in memory that all its processes share, and one for each
 * attempt. See error.h.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"

struct failure {
	atomic_int
		owner; /* pid of the process that failed first; 0: none yet. Later failures are only logged */
	int error;
	char text[2048];  /* the places and the cause, "place: place: cause" */
	const char *file; /* the source line that called fail(), or refuse() first */
	int line;
	bool is_in_log; /* the log has the text as it is now */
	char advice[512];
	atomic_int refusals;
	atomic_size_t refused_length;
	char refused[16384]; /* one line each */
};

/* The failure of the command. */
static struct failure *shared;
/* The innermost attempt that this thread is in. */
static _Thread_local struct attempt *current;

void error_init(void)
{
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("criu: no memory");
		_exit(1);
	}
}

/* The record for the failures of this thread. NULL: nothing has failed in it yet. */
static struct failure *get_record(void)
{
	return current ? __atomic_load_n(&current->record, __ATOMIC_ACQUIRE) : shared;
}

/* The same, created if it does not exist. Several threads may be in one attempt. */
static struct failure *make_record(void)
{
	struct failure *made, *none = NULL;

	if (!current && !shared)
		error_init();
	if (get_record())
		return get_record();
	made = allocate(sizeof(*made));
	if (!__atomic_compare_exchange_n(&current->record, &none, made, false, __ATOMIC_ACQ_REL,
					 __ATOMIC_ACQUIRE))
		free(made);
	return get_record();
}

static bool claim_record(struct failure *record)
{
	int nobody = 0;

	return atomic_compare_exchange_strong(&record->owner, &nobody, getpid());
}

static bool owns_record(const struct failure *record)
{
	return record && atomic_load(&record->owner) == getpid();
}

/* Refusals do not end the work at once, so a failure can follow. The report tells both. */
static bool has_only_refusals(const struct failure *record)
{
	return owns_record(record) && record->error == REFUSED && !record->text[0];
}

/*
 * The report goes to stderr. If the log does, too, the failure would be printed twice: it is logged only at the level
 * that prints times.
 */
static void log_failure(const char *file, int line, const char *sentence, bool will_be_reported)
{
	if (current)
		log_debug("an attempt failed (%s:%d): %s", file, line, sentence);
	else if (!will_be_reported || log_is_file() || log_level >= LOG_INFORMATION)
		log_line_at(file, line, LOG_ERROR, "%s", sentence);
}

/* `text` is a sentence of fail_at(). */
static void record_failure(int error, const char *file, int line, const char *text)
{
	struct failure *record = make_record();
	bool is_first = claim_record(record) || has_only_refusals(record);

	log_failure(file, line, text, is_first);
	if (!is_first)
		return;
	snprintf(record->text, sizeof(record->text), "%s", text);
	record->error = error;
	record->file = file;
	record->line = line;
	record->is_in_log = !current && log_is_file();
	if (error == EMFILE)
		fail_advice("a higher limit of open files (ulimit -n)");
}

int fail_at(const char *file, int line, int error, const char *format, ...)
{
	char sentence[1024];
	va_list arguments;
	size_t length;

	va_start(arguments, format);
	vsnprintf(sentence, sizeof(sentence), format, arguments);
	va_end(arguments);
	log_make_printable(sentence);
	length = strlen(sentence);
	if (error && error != EINVAL && error != REFUSED)
		snprintf(sentence + length, sizeof(sentence) - length, ": %s", strerror(error));
	record_failure(error ?: EINVAL, file, line, sentence);
	return error ? -error : -EINVAL;
}

void failure_take_over(int child)
{
	struct failure *record = get_record();

	if (record)
		atomic_compare_exchange_strong(&record->owner, &child, getpid());
}

int fail_in(int result, const char *format, ...)
{
	struct failure *record = get_record();
	char place[256], rest[sizeof(record->text)];
	va_list arguments;

	if (!owns_record(record) || !record->text[0])
		return result;
	va_start(arguments, format);
	vsnprintf(place, sizeof(place), format, arguments);
	va_end(arguments);
	log_make_printable(place);
	memcpy(rest, record->text, sizeof(rest));
	snprintf(record->text, sizeof(record->text), "%s: %.*s", place,
		 (int)(sizeof(rest) - sizeof(place) - 2), rest);
	record->is_in_log = false;
	return result;
}

void fail_advice(const char *format, ...)
{
	struct failure *record = make_record();
	va_list arguments;

	if (record->advice[0])
		return;
	va_start(arguments, format);
	vsnprintf(record->advice, sizeof(record->advice), format, arguments);
	va_end(arguments);
	log_make_printable(record->advice);
}

/* A line that does not fit the record is only counted. */
static void record_refusal(const char *file, int line_number, const char *line, int length)
{
	struct failure *record = make_record();
	char sentence[512];
	size_t at;

	claim_record(record);
	snprintf(sentence, sizeof(sentence), "%.*s", length, line);
	log_failure(file, line_number, sentence, true);
	at = atomic_fetch_add(&record->refused_length, length + 1);
	if (at + length + 1 < sizeof(record->refused)) {
		memcpy(record->refused + at, line, length);
		record->refused[at + length] = '\n';
	}
	atomic_fetch_add(&record->refusals, 1);
	if (record->error)
		return;
	record->error = REFUSED;
	record->file = file;
	record->line = line_number;
}

int refuse_at(const char *file, int line_number, const char *format, ...)
{
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	log_make_printable(line);
	record_refusal(file, line_number, line, strlen(line));
	return -REFUSED;
}

int refusals(void)
{
	struct failure *record = get_record();

	return record ? atomic_load(&record->refusals) : 0;
}

bool has_failed(void)
{
	struct failure *record = get_record();

	return record && atomic_load(&record->owner);
}

int failure_errno(void)
{
	const struct failure *record = get_record();

	if (!record)
		return 0;
	return record->error == REFUSED ? EOPNOTSUPP : record->error;
}

void failure_clear(void)
{
	struct failure *record = get_record();

	if (record)
		memset(record, 0, sizeof(*record));
}

const char *failure_text(void)
{
	const struct failure *record = get_record();

	return record ? record->text : "";
}

void failure_log(void)
{
	struct failure *record = get_record();

	if (!failure_text()[0] || record->is_in_log || !log_is_file())
		return;
	log_line_at(record->file, record->line, LOG_ERROR, "%s", record->text);
	record->is_in_log = true;
}

void failure_report(char *text, size_t size, const char *headline, const char *log)
{
	struct failure *record = get_record();
	size_t used = 0;

#define put(...)                                                                 \
	do {                                                                     \
		if (used < size)                                                 \
			used += snprintf(text + used, size - used, __VA_ARGS__); \
	} while (0)
	text[0] = '\0';
	if (!has_failed())
		return;
	put("criu: %s\n", headline ? headline : record->text);
	if (headline && record->text[0])
		put("  %s\n", record->text);
	for (char *line = record->refused, *end; *line && (end = strchr(line, '\n')); line = end + 1)
		put("  %.*s\n", (int)(end - line), line);
	if (record->advice[0])
		put("  try: %s\n", record->advice);
	if (log)
		put("  log: %s\n", log);
#undef put
}

/* ---- attempts ---- */

void attempt_begin(struct attempt *attempt)
{
	*attempt = (struct attempt){ .outer = current };
	current = attempt;
}

/* Records the failures of `inner` again, in the record outside of its attempt. */
static void record_again(const struct failure *inner)
{
	int refusals = atomic_load(&inner->refusals);

	if (inner->advice[0])
		fail_advice("%s", inner->advice);
	if (inner->text[0])
		record_failure(inner->error, inner->file, inner->line, inner->text);
	for (const char *line = inner->refused, *end; *line && (end = strchr(line, '\n')); line = end + 1) {
		record_refusal(inner->file, inner->line, line, end - line);
		refusals--;
	}
	if (refusals) /* those whose lines did not fit */
		atomic_fetch_add(&make_record()->refusals, refusals);
}

void attempt_forget(struct attempt *attempt)
{
	current = attempt->outer;
	free(attempt->record);
}

void attempt_count(struct attempt *attempt)
{
	current = attempt->outer;
	if (attempt->record)
		record_again(attempt->record);
	free(attempt->record);
}

struct attempt *attempt_current(void)
{
	return current;
}

void attempt_join(struct attempt *attempt)
{
	current = attempt;
}
