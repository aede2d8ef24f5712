/*
 * btf.h - where the members of the kernel's own structs are: its type information, /sys/kernel/btf/vmlinux
 * (CONFIG_DEBUG_INFO_BTF; Linux 5.4).
 */
#ifndef CRIU_KERNEL_BTF_H
#define CRIU_KERNEL_BTF_H

#include <stdbool.h>
#include <stdint.h>
#include "compiler.h"

struct btf;

/*
 * Reads all of it: 5 MiB, 10 ms. Those that load it while others have it share one. Only for one thread at a time. 0 or
 * -errno, recorded.
 */
int btf_load(struct btf **btf) must_check;
void btf_free(struct btf *btf); /* NULL is fine */

struct btf_place {
	uint32_t offset;    /* bytes */
	uint32_t bit, bits; /* of the 8 bytes at the offset; bits 0: it is no bit field */
};

/*
 * Finds a member, also in unnamed structs: btf_find(btf, "io_ring_ctx", "submit_state.free_list", &member). false:
 * this kernel has no such struct or member.
 */
bool btf_find(const struct btf *btf, const char *type, const char *path, struct btf_place *member);

/* The offset in bytes of such a member, if it is no bit field. */
bool btf_find_offset(const struct btf *btf, const char *type, const char *path, uint32_t *offset);

struct kernel_member {
	const char *type, *path;
};

/*
 * The offsets of members that must all be there. 0 or -EOPNOTSUPP, recorded: criu does not know this kernel's `what`,
 * in words.
 */
int btf_find_members(const struct btf *btf, const struct kernel_member *members, size_t count,
		     uint32_t *offsets, const char *what) must_check;

/* Bytes of a struct; 0: this kernel has none of this name. */
uint32_t btf_size(const struct btf *btf, const char *type);
/* The value of an enumerator of any enum; false: there is none. */
bool btf_find_enumerator(const struct btf *btf, const char *name, uint32_t *value);

/* The number of the type entry of a variable or function, by which BPF can refer to it; 0: there is none. */
uint32_t btf_find_variable(const struct btf *btf, const char *name);
uint32_t btf_find_function(const struct btf *btf, const char *name);

#endif
