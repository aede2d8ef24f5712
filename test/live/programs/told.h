/*
 * told.h - a child tells its parent, through a pipe that both have, that it has come to a certain point.
 */
#ifndef TEST_TOLD_H
#define TEST_TOLD_H

#include <errno.h>
#include <unistd.h>

#include "live.h"

static int told[2]; /* the program makes this pipe */

static void tell(void)
{
	live_check(write(told[1], "x", 1) == 1, "write: %m");
}

static void hear(void)
{
	char byte;
	ssize_t got;

	do
		got = read(told[0], &byte, 1);
	while (got < 0 && errno == EINTR);
	live_check(got == 1, "read: %m");
}

#endif
