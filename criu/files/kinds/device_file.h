/*
 * device_file.h - what is special about devices among the files that are opened again by their path.
 */
#ifndef CRIU_FILES_KINDS_DEVICE_FILE_H
#define CRIU_FILES_KINDS_DEVICE_FILE_H

#include <sys/stat.h>
#include "compiler.h"
#include "files/seen.h"

/* Dump. Fills in what the entry has only for devices, and its name; refuses a device that would not be found again. */
int device_file_describe(const struct snapshot *snapshot, const struct seen_file *seen, RegFileEntry *entry)
	must_check;
/*
 * Restore. With --evasive-devices: if the path of the entry does not lead to the device, looks for another one, and
 * puts it into the entry.
 */
void device_file_evade(const struct snapshot *snapshot, RegFileEntry *entry);
/* Restore. `found`: what the path leads to now. */
int device_file_check(const RegFileEntry *entry, const struct stat *found) must_check;

#endif
