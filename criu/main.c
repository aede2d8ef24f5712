/*
 * main.c - prepares the process, and runs the program.
 */
#include <signal.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "cli/commands.h"

int main(int argc, char **argv)
{
	descriptors_hold_standard();
	error_init();
	/* A parent that ignores SIGCHLD loses the wait status of its children: criu's own, and restored zombies. */
	signal(SIGCHLD, SIG_DFL);
	/* Exceeding the limit of file sizes is an error like any other (EFBIG). */
	signal(SIGXFSZ, SIG_IGN);
	return run_program(argc, argv, NULL);
}
