/*
 * descriptors.c - see descriptors.h. Nothing here fails: a limit that could not be raised shows when it is reached.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
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
	struct stat list;
	DIR *open;
	size_t count = 0;

	if (stat("/proc/self/fd", &list) == 0 && list.st_size > 0)
		return list.st_size; /* since Linux 6.2 */
	open = opendir("/proc/self/fd");
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

static int compare_numbers(const void *left, const void *right)
{
	return *(const int *)left - *(const int *)right;
}

void descriptors_sort(int *numbers, size_t count)
{
	qsort(numbers, count, sizeof(*numbers), compare_numbers);
}

void descriptors_close(int *numbers, size_t count)
{
	descriptors_sort(numbers, count);
	for (size_t i = 0, next; i < count; i = next) {
		next = i + 1;
		while (next < count && numbers[next] == numbers[next - 1] + 1)
			next++;
		if (next == i + 1)
			close(numbers[i]);
		else
			syscall(SYS_close_range, numbers[i], numbers[next - 1], 0);
	}
}

int descriptors_close_others(int *numbers, size_t count)
{
	unsigned next = 0;
	int result = 0;

	descriptors_sort(numbers, count);
	for (size_t i = 0; !result && i < count; i++) {
		if (numbers[i] > (int)next)
			result = syscall(SYS_close_range, next, numbers[i] - 1, 0);
		next = numbers[i] + 1;
	}
	return result < 0 || syscall(SYS_close_range, next, ~0U, 0) < 0 ? -errno : 0;
}

static bool is_among(int number, const int *numbers, size_t count)
{
	for (size_t i = 0; i < count; i++)
		if (numbers[i] == number)
			return true;
	return false;
}

void descriptors_let_go(const int *kept, size_t count)
{
	autofree int *all = allocate_array(count + STDERR_FILENO + 1, sizeof(*all));
	int null = open("/dev/null", O_RDWR);

	for (size_t i = 0; i < count; i++)
		all[i] = kept[i];
	for (int fd = 0; fd <= STDERR_FILENO; fd++) {
		if (!is_among(fd, kept, count))
			dup2(null, fd);
		all[count + fd] = fd;
	}
	ignore(descriptors_close_others(all, count + STDERR_FILENO + 1));
}

bool pidfd_has_ended(int pidfd)
{
	struct pollfd process = { .fd = pidfd, .events = POLLIN };

	return poll(&process, 1, 0) != 0;
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
