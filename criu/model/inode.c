/*
 * inode.c - see inode.h.
 */
#include <sys/stat.h>
#include <unistd.h>
#include "image/message.h"
#include "model/inode.h"

#define SECOND 1000000000

InodeTimesEntry *inode_times(const struct stat *stat)
{
	InodeTimesEntry *times = message_new(InodeTimesEntry, inode_times_entry);

	times->accessed = stat->st_atim.tv_sec;
	times->accessed_ns = stat->st_atim.tv_nsec;
	times->modified = stat->st_mtim.tv_sec;
	times->modified_ns = stat->st_mtim.tv_nsec;
	return times;
}

bool inode_times_are_possible(const InodeTimesEntry *times)
{
	return !times || (times->accessed_ns < SECOND && times->modified_ns < SECOND);
}

int inode_set_times(int fd, const InodeTimesEntry *times)
{
	struct timespec wanted[2];

	if (!times)
		return 0;
	wanted[0] = (struct timespec){ times->accessed, times->accessed_ns };
	wanted[1] = (struct timespec){ times->modified, times->modified_ns };
	return futimens(fd, wanted);
}

int inode_set_owner(int fd, uint32_t uid, uint32_t gid)
{
	struct stat now;

	if (fstat(fd, &now) < 0)
		return -1;
	return now.st_uid == uid && now.st_gid == gid ? 0 : fchown(fd, uid, gid);
}

int inode_set_mode(int fd, uint32_t permissions)
{
	struct stat now;

	if (fstat(fd, &now) < 0)
		return -1;
	return (now.st_mode & 07777) == permissions ? 0 : fchmod(fd, permissions);
}
