/*
 * btf.c - reads the kernel's type information. See btf.h; the format is described in the kernel's
 * Documentation/bpf/btf.rst.
 *
 * Types are numbered from 1 on, in the order of the file. A type has a fixed part, and behind it a part that depends on
 * its kind, so all of them are passed once to know where each begins.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/btf.h>
#include <string.h>
#include "base/error.h"
#include "base/index.h"
#include "base/io.h"
#include "base/memory.h"
#include "kernel/btf.h"

#define BTF_FILE       "/sys/kernel/btf/vmlinux"
#define MOST_MODIFIERS 16 /* const, volatile, typedef: one behind the other */

struct btf {
	unsigned users;
	char *data;
	const char *names;
	uint32_t names_size;
	uint32_t *offsets; /* of the types, in data; [0] is void */
	size_t count;
	struct index
		structs; /* their types, by a hash of their names; those with equal hashes are beside each other */
};

static const struct btf_type *type_at(const struct btf *btf, uint32_t id)
{
	return id && id < btf->count ? (const void *)(btf->data + btf->offsets[id]) : NULL;
}

static const char *name_at(const struct btf *btf, uint32_t offset)
{
	return offset < btf->names_size ? btf->names + offset : "";
}

/* The bytes behind the fixed part; -1: a kind that is not known. */
static long size_of_rest(const struct btf_type *type)
{
	long count = BTF_INFO_VLEN(type->info);

	switch (BTF_INFO_KIND(type->info)) {
	case BTF_KIND_INT:
	case BTF_KIND_VAR:
	case BTF_KIND_DECL_TAG:
		return 4;
	case BTF_KIND_ARRAY:
		return sizeof(struct btf_array);
	case BTF_KIND_STRUCT:
	case BTF_KIND_UNION:
		return count * (long)sizeof(struct btf_member);
	case BTF_KIND_ENUM:
	case BTF_KIND_FUNC_PROTO:
		return count * 8;
	case BTF_KIND_DATASEC:
	case BTF_KIND_ENUM64:
		return count * 12;
	case BTF_KIND_PTR:
	case BTF_KIND_FWD:
	case BTF_KIND_TYPEDEF:
	case BTF_KIND_VOLATILE:
	case BTF_KIND_CONST:
	case BTF_KIND_RESTRICT:
	case BTF_KIND_FUNC:
	case BTF_KIND_FLOAT:
	case BTF_KIND_TYPE_TAG:
		return 0;
	default:
		return -1;
	}
}

static int find_types(struct btf *btf, uint32_t start, uint32_t end)
{
	size_t room = (end - start) / sizeof(struct btf_type) + 1;
	long rest = 0;

	btf->offsets = allocate_array(room, sizeof(*btf->offsets));
	btf->count = 1;
	while (rest >= 0 && end - start >= sizeof(struct btf_type)) {
		const struct btf_type *type = (const void *)(btf->data + start);

		rest = size_of_rest(type);
		if (rest < 0 || (uint32_t)rest > end - start - sizeof(*type))
			break;
		btf->offsets[btf->count++] = start;
		start += sizeof(*type) + (uint32_t)rest;
	}
	return start == end ? 0 : fail(EINVAL, "cannot understand " BTF_FILE);
}

static bool is_struct(const struct btf_type *type)
{
	return type &&
	       (BTF_INFO_KIND(type->info) == BTF_KIND_STRUCT || BTF_INFO_KIND(type->info) == BTF_KIND_UNION);
}

static uint64_t hash_name(const char *name)
{
	uint64_t sum = 0;

	for (; *name; name++)
		sum = index_mix(sum, (uint8_t)*name);
	return sum;
}

/* There are a hundred thousand types, and many are asked for. */
static void index_structs(struct btf *btf)
{
	for (uint32_t id = 1; id < btf->count; id++) {
		const struct btf_type *type = type_at(btf, id);
		const char *name = name_at(btf, type->name_off);
		uint64_t key;

		if (!is_struct(type) || !*name)
			continue;
		for (key = hash_name(name); index_find(&btf->structs, key); key++)
			;
		index_set(&btf->structs, key, (void *)type);
	}
}

static int understand(struct btf *btf, uint64_t size)
{
	const struct btf_header *header = (const void *)btf->data;

	if (size < sizeof(*header) || header->magic != BTF_MAGIC || header->hdr_len > size ||
	    header->type_off % 4 || header->hdr_len % 4 ||
	    (uint64_t)header->hdr_len + header->type_off + header->type_len > size ||
	    (uint64_t)header->hdr_len + header->str_off + header->str_len > size)
		return fail(EINVAL, "cannot understand " BTF_FILE);
	btf->names = btf->data + header->hdr_len + header->str_off;
	btf->names_size = header->str_len; /* read_text_at() has put a NUL behind all of it */
	return find_types(btf, header->hdr_len + header->type_off,
			  header->hdr_len + header->type_off + header->type_len);
}

static struct btf *loaded; /* that somebody has */

static void release(struct btf *btf)
{
	free(btf->data);
	free(btf->offsets);
	index_free(&btf->structs);
	free(btf);
}

static int load(void)
{
	struct btf *btf = allocate(sizeof(*btf));
	ssize_t size = read_text_at(AT_FDCWD, BTF_FILE, &btf->data);
	int result = size < 0 ? fail((int)-size, "cannot read " BTF_FILE) : understand(btf, (uint64_t)size);

	if (result) {
		release(btf);
		return result;
	}
	index_structs(btf);
	loaded = btf;
	return 0;
}

int btf_load(struct btf **btf)
{
	int result = loaded ? 0 : load();

	*btf = result ? NULL : loaded;
	if (!result)
		loaded->users++;
	return result;
}

void btf_free(struct btf *btf)
{
	if (!btf || --btf->users)
		return;
	loaded = NULL;
	release(btf);
}

/* The struct behind typedefs and the like; NULL: it is none. */
static const struct btf_type *struct_behind(const struct btf *btf, uint32_t id)
{
	const struct btf_type *type = type_at(btf, id);

	for (int i = 0; type && !is_struct(type) && i < MOST_MODIFIERS; i++)
		switch (BTF_INFO_KIND(type->info)) {
		case BTF_KIND_TYPEDEF:
		case BTF_KIND_VOLATILE:
		case BTF_KIND_CONST:
		case BTF_KIND_TYPE_TAG:
			type = type_at(btf, type->type);
			break;
		default:
			return NULL;
		}
	return is_struct(type) ? type : NULL;
}

/* Adds the place of the first name of the path in this struct, and continues behind the '.'. */
static bool find_in(const struct btf *btf, const struct btf_type *type, const char *path,
		    struct btf_place *found)
{
	const struct btf_member *members = (const void *)(type + 1);
	size_t length = strcspn(path, ".");

	for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); i++) {
		const char *name = name_at(btf, members[i].name_off);
		const struct btf_type *inner = struct_behind(btf, members[i].type);
		bool has_bits = BTF_INFO_KFLAG(type->info), is_it;
		uint32_t bit = has_bits ? BTF_MEMBER_BIT_OFFSET(members[i].offset) : members[i].offset;
		struct btf_place member = { found->offset + bit / 8, bit % 8,
					    has_bits ? BTF_MEMBER_BITFIELD_SIZE(members[i].offset) : 0 };

		is_it = !strncmp(name, path, length) && !name[length];
		if (is_it && !path[length]) {
			*found = member;
			return true;
		}
		if (inner && (is_it || !*name) &&
		    find_in(btf, inner, is_it ? path + length + 1 : path, &member)) {
			*found = member;
			return true;
		}
	}
	return false;
}

/* The next struct of this name, from the place *key on, which begins with that of the name. NULL: there is none. */
static const struct btf_type *next_struct(const struct btf *btf, const char *name, uint64_t *key)
{
	const struct btf_type *type;

	while ((type = index_find(&btf->structs, (*key)++)))
		if (!strcmp(name_at(btf, type->name_off), name))
			return type;
	return NULL;
}

bool btf_find(const struct btf *btf, const char *name, const char *path, struct btf_place *member)
{
	uint64_t key = hash_name(name);
	const struct btf_type *type;

	while ((type = next_struct(btf, name, &key))) {
		*member = (struct btf_place){ 0 };
		if (find_in(btf, type, path, member))
			return true;
	}
	return false;
}

bool btf_find_offset(const struct btf *btf, const char *type, const char *path, uint32_t *offset)
{
	struct btf_place place;

	if (!btf_find(btf, type, path, &place) || place.bits)
		return false;
	*offset = place.offset;
	return true;
}

int btf_find_members(const struct btf *btf, const struct kernel_member *members, size_t count,
		     uint32_t *offsets, const char *what)
{
	for (size_t i = 0; i < count; i++)
		if (!btf_find_offset(btf, members[i].type, members[i].path, &offsets[i]))
			return fail(EOPNOTSUPP, "criu does not know this kernel's %s: it has no %s.%s", what,
				    members[i].type, members[i].path);
	return 0;
}

uint32_t btf_size(const struct btf *btf, const char *name)
{
	uint64_t key = hash_name(name);
	const struct btf_type *type = next_struct(btf, name, &key);

	return type ? type->size : 0;
}

static uint32_t find_entry(const struct btf *btf, unsigned kind, const char *name)
{
	for (uint32_t id = 1; id < btf->count; id++) {
		const struct btf_type *type = type_at(btf, id);

		if (BTF_INFO_KIND(type->info) == kind && !strcmp(name_at(btf, type->name_off), name))
			return id;
	}
	return 0;
}

uint32_t btf_find_variable(const struct btf *btf, const char *name)
{
	return find_entry(btf, BTF_KIND_VAR, name);
}

uint32_t btf_find_function(const struct btf *btf, const char *name)
{
	return find_entry(btf, BTF_KIND_FUNC, name);
}

bool btf_find_enumerator(const struct btf *btf, const char *name, uint32_t *value)
{
	for (uint32_t id = 1; id < btf->count; id++) {
		const struct btf_type *type = type_at(btf, id);
		const struct btf_enum *items = (const void *)(type + 1);

		if (BTF_INFO_KIND(type->info) != BTF_KIND_ENUM)
			continue;
		for (uint32_t i = 0; i < BTF_INFO_VLEN(type->info); i++)
			if (!strcmp(name_at(btf, items[i].name_off), name)) {
				*value = (uint32_t)items[i].val;
				return true;
			}
	}
	return false;
}
