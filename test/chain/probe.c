/* probe.c - does this kernel support what a tracker needs? Asks the kernel itself, not criu. */
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "driver.h"

#define PAGEMAP_SOFT_DIRTY     (1UL << 55)
#define FEATURE_WP_ASYNC       (1UL << 15) /* Linux 6.7, as is PAGEMAP_SCAN */
#define FEATURE_WP_UNPOPULATED (1UL << 13)

static bool is_soft_dirty(const char *page)
{
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	uint64_t entry = 0;

	if (pread(fd, &entry, sizeof(entry), (uintptr_t)page / PAGE * sizeof(entry)) < 0)
		entry = 0;
	close(fd);
	return entry & PAGEMAP_SOFT_DIRTY;
}

static const char *probe_soft_dirty(void)
{
	char *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
	bool works;

	*(volatile char *)page = 1;
	works = write(fd, "4", 1) == 1 && !is_soft_dirty(page);
	close(fd);
	*(volatile char *)page = 2;
	return works && is_soft_dirty(page) ? NULL :
					      "this kernel has no soft-dirty bits (CONFIG_MEM_SOFT_DIRTY)";
}

static const char *probe_written(void)
{
	struct uffdio_api api = { .api = UFFD_API, .features = FEATURE_WP_ASYNC | FEATURE_WP_UNPOPULATED };
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC);
	bool works = fd >= 0 && !ioctl(fd, UFFDIO_API, &api);

	if (fd >= 0)
		close(fd);
	return works ? NULL :
		       "this kernel has no asynchronous write protection (userfaultfd WP_ASYNC, Linux 6.7)";
}

const char *probe_tracker(const char *tracker)
{
	if (!strcmp(tracker, "soft-dirty"))
		return probe_soft_dirty();
	return strcmp(tracker, "written") ? NULL : probe_written();
}
