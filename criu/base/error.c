/*
 * error.c - the failure record: one per program, in memory that every process of it shares. See error.h.
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

struct failure {
	atomic_int owner; /* whose failure it is; 0: none yet. The first one wins, others are only logged */
	int error;
	char text[2048];  /* the places and the cause, "place: place: cause" */
	const char *file; /* the line of the source that has found the cause */
	int line;
	bool is_in_log; /* as the text stands here */
	char advice[512];
	atomic_int refusals;
	atomic_size_t refused_length;
	char refused[16384]; /* one line each */
};

static struct failure *record;

void error_init(void)
{
	record = mmap(NULL, sizeof(*record), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (record == MAP_FAILED) {
		perror("criu: no memory");
		_exit(1);
	}
}

static bool take_record(void)
{
	int nobody = 0;

	if (!record)
		error_init();
	return atomic_compare_exchange_strong(&record->owner, &nobody, getpid());
}

static bool owns_record(void)
{
	return record && atomic_load(&record->owner) == getpid();
}

/* The report goes to stderr. Where the log does too, it says the same only to somebody who wants to see when. */
static void log_failure(const char *file, int line, const char *sentence, bool will_be_reported)
{
	if (!will_be_reported || log_is_file() || log_level >= LOG_INFORMATION)
		log_line_at(file, line, LOG_ERROR, "%s", sentence);
}

int fail_at(const char *file, int line, int error, const char *format, ...)
{
	char sentence[1024];
	va_list arguments;
	size_t length;
	bool is_first;

	va_start(arguments, format);
	vsnprintf(sentence, sizeof(sentence), format, arguments);
	va_end(arguments);
	length = strlen(sentence);
	if (error && error != EINVAL && error != REFUSED)
		snprintf(sentence + length, sizeof(sentence) - length, ": %s", strerror(error));
	is_first = take_record();
	log_failure(file, line, sentence, is_first);
	if (is_first) {
		snprintf(record->text, sizeof(record->text), "%s", sentence);
		record->error = error ? error : EINVAL;
		record->file = file;
		record->line = line;
		record->is_in_log = log_is_file();
		if (error == EMFILE)
			fail_advice("a higher limit of open files (ulimit -n)");
	}
	return error ? -error : -EINVAL;
}

int fail_in(int result, const char *format, ...)
{
	char place[256], rest[sizeof(record->text)];
	va_list arguments;

	if (!owns_record())
		return result;
	va_start(arguments, format);
	vsnprintf(place, sizeof(place), format, arguments);
	va_end(arguments);
	memcpy(rest, record->text, sizeof(rest));
	snprintf(record->text, sizeof(record->text), "%s: %.*s", place,
		 (int)(sizeof(rest) - sizeof(place) - 2), rest);
	record->is_in_log = false;
	return result;
}

void fail_advice(const char *format, ...)
{
	va_list arguments;

	if (!record || record->advice[0])
		return;
	va_start(arguments, format);
	vsnprintf(record->advice, sizeof(record->advice), format, arguments);
	va_end(arguments);
}

int refuse_at(const char *file, int line_number, const char *format, ...)
{
	char line[512];
	va_list arguments;
	size_t length, at;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	take_record();
	log_failure(file, line_number, line, true);
	length = strlen(line);
	at = atomic_fetch_add(&record->refused_length, length + 1);
	if (at + length + 1 < sizeof(record->refused)) {
		memcpy(record->refused + at, line, length);
		record->refused[at + length] = '\n';
	}
	atomic_fetch_add(&record->refusals, 1);
	if (!record->error)
		record->error = REFUSED;
	return -REFUSED;
}

int refusals(void)
{
	return record ? atomic_load(&record->refusals) : 0;
}

bool has_failed(void)
{
	return record && atomic_load(&record->owner);
}

int failure_errno(void)
{
	if (!record)
		return 0;
	return record->error == REFUSED ? EOPNOTSUPP : record->error;
}

void failure_clear(void)
{
	if (record)
		memset(record, 0, sizeof(*record));
}

const char *failure_text(void)
{
	return record ? record->text : "";
}

void failure_log(void)
{
	if (!failure_text()[0] || record->is_in_log || !log_is_file())
		return;
	log_line_at(record->file, record->line, LOG_ERROR, "%s", record->text);
	record->is_in_log = true;
}

void failure_report(char *text, size_t size, const char *headline, const char *log)
{
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
