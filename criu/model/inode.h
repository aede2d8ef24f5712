/*
 * inode.h - owner, mode and times of an inode that has no path.
 *
 * What the kernel does, seen on Linux 6.18. Pipes, memfds, shared anonymous memory and the slaves of terminals have one
 * inode each, and fchown(), fchmod() and futimens() change it. All eventfds, timerfds, signalfds, epolls and inotifys
 * of the system share one inode, root's, and since Linux 6.16 nobody can change it. Masters of terminals have the inode
 * of /dev/ptmx.
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
/* 0, or -1 with errno set. NULL: nothing to set */
int inode_set_times(int fd, const InodeTimesEntry *times) must_check;
/* These change only what differs, because criu may lack the right to change the rest. 0, or -1 with errno set. */
int inode_set_owner(int fd, uint32_t uid, uint32_t gid) must_check;
int inode_set_mode(int fd, uint32_t permissions) must_check;

#endif
