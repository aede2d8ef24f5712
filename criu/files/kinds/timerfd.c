/*
 * timerfd.c - timerfd(2): a timer, and the number of its unread expirations.
 *
 * The remaining time continues after a restore. A timer on a clock of real time with an absolute time
 * (TFD_TIMER_ABSTIME) is set to that time again, even if it has passed meanwhile.
 */
#include <errno.h>
#include <inttypes.h>
#include <linux/ioctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel_constants.h"

#define SECOND	     1000000000ULL
#define MOST_SECONDS (INT64_MAX / SECOND) /* KTIME_MAX of Linux */

static bool timerfd_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return !strcmp(seen->link, "anon_inode:[timerfd]");
}

static bool is_of_real_time(const TimerfdEntry *entry)
{
	return entry->settime_flags & TFD_TIMER_ABSTIME &&
	       (entry->clockid == CLOCK_REALTIME || entry->clockid == CLOCK_REALTIME_ALARM);
}

static int timerfd_fdinfo(struct snapshot *snapshot unused, struct file *file, const char *key,
			  const char *value)
{
	TimerfdEntry *entry = file->entry->tfd;
	bool is_understood = true;

	if (!strcmp(key, "clockid"))
		is_understood = sscanf(value, "%u", &entry->clockid) == 1;
	else if (!strcmp(key, "ticks"))
		is_understood = sscanf(value, "%" SCNu64, &entry->ticks) == 1;
	else if (!strcmp(key, "settime flags"))
		is_understood = sscanf(value, "%o", &entry->settime_flags) == 1;
	else if (!strcmp(key, "it_value"))
		is_understood = sscanf(value, "(%" SCNu64 ", %" SCNu64 ")", &entry->vsec, &entry->vnsec) == 2;
	else if (!strcmp(key, "it_interval"))
		is_understood = sscanf(value, "(%" SCNu64 ", %" SCNu64 ")", &entry->isec, &entry->insec) == 2;
	return is_understood ? 0 : fail(EINVAL, "cannot understand the fdinfo of a timerfd: %s", key);
}

static const char *const fdinfo_needs[] = { "clockid",	"ticks",       "settime flags",
					    "it_value", "it_interval", NULL };

static bool is_running(const TimerfdEntry *entry)
{
	return entry->vsec || entry->vnsec;
}

/*
 * No time is left, and no expiration is counted: the timer is not running, or it is just expiring. Between the two, the
 * kernel runs the timer's handler, on a CPU that may be late. If it was running when it was looked at before, it has
 * expired.
 */
static void count_expiring(TimerfdEntry *entry, bool was_running)
{
	if (was_running && !is_running(entry) && !entry->ticks)
		entry->ticks = 1;
}

/*
 * After it has expired, a periodic timer stops until it is read: then the kernel counts the missed expirations. Reading
 * fdinfo does not have this effect; timerfd_gettime() has it, and takes no expirations away.
 */
static int timerfd_describe(struct snapshot *snapshot, struct file *file)
{
	TimerfdEntry *entry = file->entry->tfd;
	autoclose int fd = files_borrow(file->seen);
	bool was_running = is_running(entry);
	struct itimerspec left;
	struct timespec now;
	int result;

	if (fd < 0)
		return fd;
	if (timerfd_gettime(fd, &left) < 0)
		return fail(errno, "cannot read the timer of descriptor %d", file->seen->fd);
	result = fdinfo_read_again(snapshot, file);
	count_expiring(entry, was_running);
	if (result || !is_of_real_time(entry) || !is_running(entry))
		return result;
	clock_gettime(CLOCK_REALTIME, &now);
	message_set(entry, expires_sec, now.tv_sec + entry->vsec + (now.tv_nsec + entry->vnsec) / SECOND);
	message_set(entry, expires_nsec, (now.tv_nsec + entry->vnsec) % SECOND);
	return 0;
}

/* A last look, some time later, at those that seem not to run: has one expired? */
static int timerfd_judge(struct snapshot *snapshot)
{
	const struct file_list *list = files_of_kind(snapshot, &file_kind_timerfd);
	int result = 0;

	for (size_t i = 0; !result && i < list->count; i++) {
		const TimerfdEntry *entry = list->items[i]->entry->tfd;

		if (!is_running(entry) && !entry->ticks)
			result = fdinfo_read_again(snapshot, list->items[i]);
	}
	return result;
}

/* ---- restore ---- */

static int timerfd_check(struct snapshot *snapshot unused, struct file *file)
{
	const TimerfdEntry *entry = file->entry->tfd;

	if (entry->vnsec >= SECOND || entry->insec >= SECOND || entry->expires_nsec >= SECOND ||
	    entry->vsec > MOST_SECONDS || entry->isec > MOST_SECONDS || entry->expires_sec > MOST_SECONDS)
		return fail(EINVAL, "files.img: file %u is a timerfd with an invalid time", file->id);
	return 0;
}

static int start(int fd, const TimerfdEntry *entry)
{
	struct itimerspec value = {
		.it_interval = { .tv_sec = entry->isec, .tv_nsec = entry->insec },
		.it_value = { .tv_sec = entry->vsec, .tv_nsec = entry->vnsec },
	};
	struct timespec *first = &value.it_value, now;

	/* From an image of criu 4.2, which does not call timerfd_gettime(). */
	if (entry->ticks && !first->tv_sec && !first->tv_nsec)
		*first = value.it_interval;
	if (!first->tv_sec && !first->tv_nsec)
		return 0;
	if (entry->has_expires_sec) {
		first->tv_sec = entry->expires_sec;
		first->tv_nsec = entry->expires_nsec;
	} else if (entry->settime_flags & TFD_TIMER_ABSTIME) {
		if (clock_gettime(entry->clockid, &now) < 0)
			return fail(errno, "cannot read clock %u", entry->clockid);
		first->tv_sec += now.tv_sec + (now.tv_nsec + first->tv_nsec) / SECOND;
		first->tv_nsec = (now.tv_nsec + first->tv_nsec) % SECOND;
	}
	if (timerfd_settime(fd, entry->settime_flags, &value, NULL) < 0)
		return fail(errno, "cannot start a timerfd");
	return 0;
}

static int open_timerfd(struct snapshot *snapshot unused, struct file *file)
{
	const TimerfdEntry *entry = file->entry->tfd;
	uint64_t ticks = entry->ticks;
	int fd = timerfd_create(entry->clockid, TFD_CLOEXEC), result;

	if (fd < 0)
		return fail(errno, "cannot create a timerfd of clock %u", entry->clockid);
	result = start(fd, entry);
	if (!result && ticks && ioctl(fd, TFD_IOC_SET_TICKS, &ticks) < 0)
		result = fail(errno, "cannot set the ticks of a timerfd");
	if (result)
		close(fd);
	return result ?: fd;
}

const struct file_kind file_kind_timerfd = {
	.name = "timerfd",
	.type = FD_TYPES__TIMERFD,
	.message = offsetof(FileEntry, tfd),
	.recognizes = timerfd_recognizes,
	.fdinfo = timerfd_fdinfo,
	.fdinfo_needs = fdinfo_needs,
	.describe = timerfd_describe,
	.judge = timerfd_judge,
	.check = timerfd_check,
	.open = open_timerfd,
};
