/* sleeper.c - a process that sleeps until SIGTERM. All its state is a signal handler. */
#include "live.h"

int main(int argc, char **argv)
{
	live_begin(argc, argv);
	live_ready();
	live_wait_stop();
	return live_finish();
}
