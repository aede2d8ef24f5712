/*
 * log.h - the log: what criu did, and why.
 *
 * Levels are those of `criu -v`: 1 errors, 2 warnings (default), 3 information and timestamps, 4 everything.
 *
 *	(00.012345) Error (criu/dump/look.c:123): process 4711 (sh): …
 *	(00.012345) Warn  (criu/files/kinds/pipe.c:50): no process of the tree holds …
 *	(00.012345) freeze the processes
 *
 * Programs parse this form, which is CRIU 4.2's: they look for "Error" and "Warn". The time counts from the start of
 * criu. It is left out below level 3 if the log is stderr. Before log_open() all lines go to stderr.
 */
#ifndef CRIU_BASE_LOG_H
#define CRIU_BASE_LOG_H

#include <stdbool.h>
#include "compiler.h"

enum log_level { LOG_ERROR = 1, LOG_WARNING = 2, LOG_INFORMATION = 3, LOG_EVERYTHING = 4 };

extern int log_level; /* one of the two mutable globals of the program; the other is the failure record */

/* path NULL: stderr. Relative to `directory` (an fd, or AT_FDCWD). 0 or -errno, recorded. */
int log_open(int directory, const char *path) must_check;
/* Keeps the old content: another criu may be writing to it. */
int log_open_to_append(int directory, const char *path) must_check;
/* From here on, this process logs to PATH.pid (--log-pid), if log_open() got a path. */
int log_per_process(void) must_check;
bool log_is_file(void);	  /* false: it is stderr */
int log_descriptor(void); /* for the blobs and for children that rearrange their descriptors */
void log_move(int fd);	  /* the descriptor of the log is now `fd` */
void log_close(void);

void log_line(int level, const char *format, ...) printf_like(2, 3);
/* An error or a warning, with the source line that reports it. */
void log_line_at(const char *file, int line, int level, const char *format, ...) printf_like(4, 5);

#define log_error(...)	 log_line_at(__FILE__, __LINE__, LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line_at(__FILE__, __LINE__, LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_INFORMATION, __VA_ARGS__)
/* The level is checked first, so a line that is not wanted is not formatted. */
#define log_debug(...)                                         \
	do {                                                   \
		if (log_level >= LOG_EVERYTHING)               \
			log_line(LOG_EVERYTHING, __VA_ARGS__); \
	} while (0)

/* Names of processes and files may have anything: no control characters reach a terminal, and one call is one line. */
void log_make_printable(char *text);

#endif
