/*
 * log.c - writes the log. Each line is one write(), so that processes that share the log do not mix their lines.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"

int log_level = LOG_WARNING;

static int log_fd = STDERR_FILENO;
static char log_name[PATH_MAX]; /* "" while the log is stderr */
static struct timespec started;

static int open_log(int directory, const char *path, int how)
{
	int fd;

	clock_gettime(CLOCK_MONOTONIC, &started);
	if (!path)
		return 0;
	if (strlen(path) >= sizeof(log_name))
		return fail(ENAMETOOLONG, "cannot open the log %s", path);
	fd = openat(directory, path, O_WRONLY | O_CREAT | how | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(errno, "cannot open the log %s", path);
	strcpy(log_name, path);
	log_fd = fd;
	return 0;
}

int log_open(int directory, const char *path)
{
	return open_log(directory, path, O_TRUNC);
}

int log_open_to_append(int directory, const char *path)
{
	return open_log(directory, path, 0);
}

int log_per_process(void)
{
	autofree char *name = NULL;
	char own[64];
	int fd;

	if (!log_name[0])
		return 0;
	/* The log may have been opened relative to a directory, so its path comes from its descriptor. */
	snprintf(own, sizeof(own), "/proc/self/fd/%d", log_fd);
	if (log_name[0] == '/')
		name = format_text("%s.%d", log_name, getpid());
	else {
		char where[PATH_MAX];
		ssize_t length = readlink(own, where, sizeof(where) - 1);

		if (length < 0)
			return fail(errno, "cannot find the path of the log");
		where[length] = '\0';
		name = format_text("%s.%d", where, getpid());
	}
	fd = open(name, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
	if (fd < 0)
		return fail(errno, "cannot open the log %s", name);
	close(log_fd);
	log_fd = fd;
	return 0;
}

bool log_is_file(void)
{
	return log_name[0];
}

int log_descriptor(void)
{
	return log_fd;
}

void log_move(int fd)
{
	log_fd = fd;
}

void log_close(void)
{
	if (log_fd > STDERR_FILENO)
		close(log_fd);
	log_fd = STDERR_FILENO;
	log_name[0] = '\0';
}

static int put_time(char *line, size_t size)
{
	struct timespec now;
	long microseconds;

	clock_gettime(CLOCK_MONOTONIC, &now);
	microseconds = (now.tv_sec - started.tv_sec) * 1000000L + (now.tv_nsec - started.tv_nsec) / 1000;
	return snprintf(line, size, "(%02ld.%06ld) ", microseconds / 1000000, microseconds % 1000000);
}

void log_make_printable(char *text)
{
	for (; *text; text++)
		if ((unsigned char)*text < ' ' || *text == 0x7f)
			*text = *text == '\n' || *text == '\t' ? ' ' : '?';
}

static void write_line(const char *start, const char *format, va_list arguments)
{
	char line[4096];
	int length = 0, saved = errno;

	if (log_is_file() || log_level >= LOG_INFORMATION)
		length = put_time(line, sizeof(line));
	length += snprintf(line + length, sizeof(line) - length, "%s", start);
	length += vsnprintf(line + length, sizeof(line) - length, format, arguments);
	if (length > (int)sizeof(line) - 2)
		length = sizeof(line) - 2;
	line[length] = '\0';
	log_make_printable(line);
	line[length++] = '\n';
	if (write(log_fd, line, length) < 0) { /* a log that cannot be written must not stop a dump */
	}
	errno = saved;
}

void log_line(int level, const char *format, ...)
{
	va_list arguments;

	if (level > log_level)
		return;
	va_start(arguments, format);
	write_line("", format, arguments);
	va_end(arguments);
}

void log_line_at(const char *file, int line, int level, const char *format, ...)
{
	char start[256];
	va_list arguments;

	if (level > log_level)
		return;
	snprintf(start, sizeof(start), "%s (%s:%d): ", level == LOG_ERROR ? "Error" : "Warn ", file, line);
	va_start(arguments, format);
	write_line(start, format, arguments);
	va_end(arguments);
}
