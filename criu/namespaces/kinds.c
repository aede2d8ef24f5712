/*
 * kinds.c - every kind of namespace that is saved. The others are refused by dump/apart.c.
 */
#include "namespaces/kind.h"

const struct namespace_kind *const namespace_kinds[NAMESPACE_TYPES] = {
	[NAMESPACE_UTS] = &namespace_kind_uts,
};
