/*
 * log.h - the log: what was done, for whoever wants to know why.
 *
 * Levels are those of `criu -v`: 1 errors, 2 warnings (default), 3 information and timestamps, 4 everything.
 * Lines begin with the time since the start, "(00.012345)", from level 3 on. Before log_open() lines at the
 * default level or below go to stderr.
 */
#ifndef CRIU_BASE_LOG_H
#define CRIU_BASE_LOG_H

#include "compiler.h"

enum log_level { LOG_ERROR = 1, LOG_WARNING = 2, LOG_INFORMATION = 3, LOG_EVERYTHING = 4 };

extern int log_level; /* one of the two mutable globals of the program; the other is the failure record */

/* path NULL: stderr. Relative to `directory` (an fd, or AT_FDCWD). 0 or -errno, recorded. */
int log_open(int directory, const char *path);
/* From here on this process writes to PATH.pid (--log-pid), if log_open() was given a path. */
int log_per_process(void);
int log_descriptor(void); /* for the blobs and for children that rearrange their descriptors */
void log_move(int fd);	  /* the log's descriptor was dup'ed to `fd` */
void log_close(void);

void log_line(int level, const char *format, ...) printf_like(2, 3);

#define log_error(...)	 log_line(LOG_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_WARNING, __VA_ARGS__)
#define log_info(...)	 log_line(LOG_INFORMATION, __VA_ARGS__)
/* The level is looked at first: a line that nobody reads is not formatted. */
#define log_debug(...)                                         \
	do {                                                   \
		if (log_level >= LOG_EVERYTHING)               \
			log_line(LOG_EVERYTHING, __VA_ARGS__); \
	} while (0)

#endif
