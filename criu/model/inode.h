/*
 * inode.h - what an inode without a path has beside its content: owner, mode and times.
 *
 * What the kernel keeps of each kind, seen on Linux 6.18. Pipes, memfds, shared anonymous memory and the slaves of terminals have an
 * inode each, and fchown(), fchmod() and futimens() change it. eventfds, timerfds, signalfds, epolls and inotifys of the whole system
 * are one inode, root's, and since Linux 6.16 nobody can change it. Masters of terminals are the inode of /dev/ptmx.
 */
#ifndef CRIU_MODEL_INODE_H
#define CRIU_MODEL_INODE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include "compiler.h"
#include "inode.pb-c.h"

InodeTimesEntry *inode_times(const struct stat *stat); /* to be freed with the message that holds it */
bool inode_times_are_possible(const InodeTimesEntry *times);
/* 0 or -1, with errno; NULL: nothing to set */
int inode_set_times(int fd, const InodeTimesEntry *times) must_check;
/* Changes no more than differs: it may be all that we may have. 0 or -1, with errno. */
int inode_set_owner(int fd, uint32_t uid, uint32_t gid) must_check;
int inode_set_mode(int fd, uint32_t permissions) must_check;

#endif
