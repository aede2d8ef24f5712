/*
 * blockers.h - dump: processes that others wait for when they open a file: permission events of fanotify(7), FUSE.
 */
#ifndef CRIU_FILES_BLOCKERS_H
#define CRIU_FILES_BLOCKERS_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>
#include "compiler.h"
#include "model/snapshot.h"

#define FANOTIFY_LINK "anon_inode:[fanotify]"
/* FAN_OPEN_PERM, FAN_ACCESS_PERM, FAN_OPEN_EXEC_PERM, and FAN_PRE_ACCESS (Linux 6.14) */
#define PERMISSION_EVENTS 0x00170000U
#define WHY_NO_PERMISSION_EVENTS                                                                             \
	"decides whether files may be opened (permission events), which would block criu while the process " \
	"is frozen: it must remove these marks first"

/* Can a descriptor with this link in /proc/PID/fd be one of those? */
bool files_link_may_block(const char *link) must_check;
/* While the processes still run. Refuses the tree if criu could wait for one of them when it is frozen. */
int files_refuse_blockers(const struct snapshot *snapshot, const pid_t *pids, size_t count) must_check;

#endif
