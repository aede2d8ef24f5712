/*
 * twin.h - makes a copy of the task, which keeps its memory as it is now while the task runs on.
 */
#ifndef TWIN_H
#define TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include "compel.h"
#include "compiler.h"

/*
 * `socket` is the parasite's: the next message has descriptors of a pid namespace, in which the twin will be, and, if
 * `has_user`, before that of a user namespace in which it may enter it. Returns the pid of the twin in that namespace, or
 * -errno: then there is none. It has no copy of the ranges. When it returns, the twin is a child of the first process of the namespace.
 */
long make_twin(int socket, bool has_user, struct twin_range *ranges, size_t count) must_check;

#endif
