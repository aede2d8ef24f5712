/*
 * counter.c - the program that scripts/quickstart saves and restores: it counts, and writes to its output and a file.
 *
 * Usage: counter FILE. It never reads FILE, so after a restore the number can only come from its memory.
 */
#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int file;

	for (int fd = 3; fd < 1024; fd++) /* descriptors that the script has inherited do not belong here */
		close(fd);
	file = open(argc > 1 ? argv[1] : "/dev/null", O_WRONLY | O_CREAT | O_TRUNC, 0600);
	for (int number = 1; file >= 0; number++) {
		char text[32];
		int length = snprintf(text, sizeof(text), "%d\n", number);

		printf("    process %d counts: %d\n", getpid(), number);
		fflush(stdout);
		if (pwrite(file, text, length, 0) != length)
			return 1;
		usleep(300000);
	}
	return 1;
}
