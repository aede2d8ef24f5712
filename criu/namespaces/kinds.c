/*
 * kinds.c - every kind of namespace that is saved, and every type that Linux has. The others are refused by
 * dump/apart.c, and, if they are only open, by files/kinds/namespace.c.
 */
#include <sched.h>
#include <stddef.h>
#include "namespaces/kind.h"
#include "kernel_constants.h"

const struct namespace_kind *const namespace_kinds[NAMESPACE_TYPES] = {
	[NAMESPACE_UTS] = &namespace_kind_uts,
};

/* The ids of criu's own are those that CRIU 4.2 writes. */
const struct namespace_facts all_namespaces[] = {
#define namespace(name, flag, number)                                        \
	{                                                                    \
#name, flag, offsetof(TaskKobjIdsEntry, has_##name##_ns_id), \
			offsetof(TaskKobjIdsEntry, name##_ns_id), number     \
	}
	namespace(pid, CLONE_NEWPID, 1),   namespace(net, CLONE_NEWNET, 2),
	namespace(ipc, CLONE_NEWIPC, 3),   namespace(uts, CLONE_NEWUTS, 4),
	namespace(time, CLONE_NEWTIME, 5), namespace(mnt, CLONE_NEWNS, 6),
	namespace(user, CLONE_NEWUSER, 7), namespace(cgroup, CLONE_NEWCGROUP, 8),
#undef namespace
};

const size_t all_namespace_count = array_size(all_namespaces);
