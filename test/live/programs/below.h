/*
 * below.h - for programs that watch files: files and directories below the directory of the test.
 */
#ifndef TEST_BELOW_H
#define TEST_BELOW_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

/* The path of a name below it. Four of them can be in use. */
static const char *path(const char *format, ...)
{
	static char buffers[4][PATH_MAX];
	static int next;
	char *buffer = buffers[next++ % 4];
	int used = snprintf(buffer, PATH_MAX, "%s/", live_directory);
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(buffer + used, PATH_MAX - used, format, arguments);
	va_end(arguments);
	return buffer;
}

static void make_directory(const char *name)
{
	live_check(mkdir(path("%s", name), 0700) == 0 || errno == EEXIST, "mkdir %s: %m", name);
}

static void touch(const char *name)
{
	int file = open(path("%s", name), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);

	live_check(file >= 0, "create %s: %m", name);
	close(file);
}

static void append(const char *name)
{
	int file = open(path("%s", name), O_WRONLY | O_APPEND | O_CLOEXEC);

	live_check(file >= 0 && write(file, "x", 1) == 1, "write %s: %m", name);
	close(file);
}

#endif
