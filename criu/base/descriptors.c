/*
 * descriptors.c - see descriptors.h. Failures are none: a limit that stays as it is shows when it is reached.
 */
#include "base/descriptors.h"

void descriptors_unlimit(struct rlimit *before)
{
	struct rlimit most;

	if (getrlimit(RLIMIT_NOFILE, before) < 0)
		*before = (struct rlimit){ 0 };
	most = (struct rlimit){ before->rlim_max, before->rlim_max };
	setrlimit(RLIMIT_NOFILE, &most);
}

void descriptors_limit(const struct rlimit *before)
{
	if (before->rlim_max)
		setrlimit(RLIMIT_NOFILE, before);
}
