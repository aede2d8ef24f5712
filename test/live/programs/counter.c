/* counter.c - the smallest program: counts in a local and a global variable, which must stay equal. */
#include "live.h"

static volatile unsigned long global;

int main(int argc, char **argv)
{
	volatile unsigned long local = 0;

	live_begin(argc, argv);
	live_ready();
	while (!live_stopping() || global <= 10) {
		local++;
		global++;
		live_check(local == global, "counted %lu and %lu", local, global);
		live_sleep(0.0005);
	}
	return live_finish();
}
