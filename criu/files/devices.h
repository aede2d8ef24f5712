/*
 * devices.h - which devices have no state of their own, so that they can be opened again by their path.
 */
#ifndef CRIU_FILES_DEVICES_H
#define CRIU_FILES_DEVICES_H

#include <stdbool.h>
#include <sys/stat.h>

static inline bool is_device(const struct stat *stat)
{
	return S_ISCHR(stat->st_mode) || S_ISBLK(stat->st_mode);
}

/* May it be opened again with these flags? Terminals are not in the table: no. */
bool device_can_reopen(const struct stat *device, int flags);
/* Does the kernel choose its number anew at each boot? */
bool device_number_is_dynamic(const struct stat *device);
/* "a watchdog (character device 10:130)"; to be freed */
char *device_in_words(const struct stat *device);
/* Why it cannot be opened again, and what the user can do; NULL: nothing is known. */
const char *device_remedy(const struct stat *device);
/* Any path of this device; NULL: it has none. To be freed. */
char *device_find_path(const struct stat *device);

#endif
