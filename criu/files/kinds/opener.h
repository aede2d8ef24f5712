/*
 * opener.h - restore: opens a file with the rights of the process that has it.
 */
#ifndef CRIU_FILES_KINDS_OPENER_H
#define CRIU_FILES_KINDS_OPENER_H

#include "compiler.h"
#include "kernel/place.h"
#include "model/snapshot.h"

/*
 * open(2) as the process that holds the file, if the kernel will ask for the rights of whoever has opened it.
 * Otherwise, and if the process itself may not open it, as criu. -1: errno tells why.
 */
int open_for_holder(const struct file *file, const char *path, int flags) must_check;
/* The rights that the process which holds the file has now. False: it is root, or nothing is known. */
bool place_of_holder(const struct file *file, struct place *place) must_check;

#endif
