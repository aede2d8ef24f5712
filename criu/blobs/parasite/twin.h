/*
 * twin.h - makes a copy of the task, which keeps its memory as it is now while the task runs on.
 */
#ifndef TWIN_H
#define TWIN_H

#include <stdbool.h>
#include <stddef.h>
#include "compel.h"
#include "compiler.h"

struct twin_wish {
	bool has_user;
	uint64_t room_size;
	struct twin_range *ranges; /* of which it gets no copy */
	size_t range_count;
};

/*
 * `socket` is the parasite's: the next message has descriptors of the room (twin_room.h), of a pid namespace, in which the
 * twin will be, and, if `has_user`, of a user namespace in which it may enter that. Returns the pid of the twin in the
 * pid namespace, or -errno: then there is none. When it returns, the twin is a child of the namespace's first process.
 */
long make_twin(int socket, const struct twin_wish *wish) must_check;

#endif
