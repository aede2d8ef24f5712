/*
 * place.h - runs a function with another identity: in other namespaces, with other ids, under a given pid.
 *
 * The kernel remembers who created an object: a socket belongs to the network namespace of its creator, an open file
 * keeps the credentials of its opener (f_cred), and SO_PEERCRED names the process that created the pair. run_in()
 * creates a child that joins the namespaces, takes the ids and does the work. The child shares the memory and
 * descriptors of criu, so what it opens and writes is criu's, and nothing has to be sent back. A call takes 0.2 ms:
 * group work by place.
 *
 *	struct place place = PLACE_HERE;
 *
 *	place.net = net;
 *	fd = run_in(&place, make_socket, &address);
 *
 * A process with shared memory cannot join a time namespace (the kernel returns EUSERS), and no object remembers one:
 * timers keep the host's time. Therefore a place has none.
 */
#ifndef CRIU_KERNEL_PLACE_H
#define CRIU_KERNEL_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include "compiler.h"

struct place {
	/* Namespaces, by descriptor. -1: criu's own. */
	int user, mount, net, uts, ipc, cgroup;
	/* Effective ids, as the user namespace of the place counts them. -1: criu's own. */
	uid_t uid;
	gid_t gid;
	const gid_t *groups; /* NULL: criu's own */
	size_t group_count;
	/* Effective capabilities: those of criu that are in this set. */
	uint64_t capabilities;
	pid_t pid; /* of the child; must be free, or that of the calling process. 0: any */
	/* If criu is killed, the child is not, but completes the work: short work that must not stay half done. */
	bool outlives_criu;
	/* The child, and threads that it creates, share the directories and the umask of criu. Not with namespaces. */
	bool shares_directories;
};

#define PLACE_HERE                                                                                 \
	{                                                                                          \
		.user = -1, .mount = -1, .net = -1, .uts = -1, .ipc = -1, .cgroup = -1, .uid = -1, \
		.gid = -1, .capabilities = UINT64_MAX                                              \
	}

/*
 * Returns the result of `work`: < 0 is -errno of a failure that `work` has recorded. If the place cannot be entered, or
 * the child is killed, the work is not done or not finished: -errno, recorded; -EEXIST: the pid is in use.
 *
 * The calling thread waits meanwhile, with all signals blocked, so the work must not wait for anything that may never
 * come. Other threads continue. Only one thread at a time may call this. If criu dies, the child is killed, unless the
 * place has outlives_criu. A child that is killed in malloc() leaves its locks behind, as a thread would.
 */
must_check int run_in(const struct place *place, int (*work)(void *), void *argument);

#endif
