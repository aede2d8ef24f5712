/*
 * descriptors.c - see descriptors.h. Nothing here fails: a limit that could not be raised shows when it is reached.
 */
#include <dirent.h>
#include <fcntl.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/memory.h"

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

size_t descriptors_allow(size_t wanted)
{
	struct rlimit limit, more = { wanted, wanted };

	/* fs.nr_open is the upper bound for every process. */
	if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur >= wanted ||
	    setrlimit(RLIMIT_NOFILE, &more) == 0)
		return wanted;
	return limit.rlim_cur;
}

size_t descriptors_most(void)
{
	struct rlimit limit;

	return getrlimit(RLIMIT_NOFILE, &limit) < 0 ? 0 : limit.rlim_cur;
}

size_t descriptors_count(void)
{
	DIR *open = opendir("/proc/self/fd");
	size_t count = 0;

	while (open && readdir(open))
		count++;
	if (open)
		closedir(open);
	return count > 3 ? count - 3 : 0; /* . and .. and the directory itself */
}

void descriptors_reserve(size_t count)
{
	autoclose int any = open("/", O_PATH | O_CLOEXEC);
	autoclose int last unused = count ? fcntl(any, F_DUPFD_CLOEXEC, count - 1) : -1;
}

void descriptors_hold_standard(void)
{
	int fd;

	do
		fd = open("/", O_PATH | O_CLOEXEC);
	while (fd >= 0 && fd <= STDERR_FILENO);
	if (fd >= 0)
		close(fd);
}
