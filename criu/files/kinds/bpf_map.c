/*
 * bpf_map.c - open BPF maps, with their content: arrays and hashes of ordinary values.
 *
 * Programs are not saved. So a map that a loaded program uses is refused: the program would go on with the old map, and
 * the process with a copy. Of a map that is pinned, or that another process has open, too, the process gets a copy as
 * well: nothing shows that.
 *
 * bpfmap-data.img has the content of each map once: a record, then all keys, then all values. A restore creates each
 * map once. Every open file of it is opened by the id of the new map, which is also how a map gets read whose
 * descriptor allows only writes. Facts are of Linux 6.18, the calls of Linux 5.6.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/index.h"
#include "base/memory.h"
#include "bpfmap-data.pb-c.h"
#include "files/kind.h"
#include "files/words.h"
#include "image/image.h"
#include "image/message.h"
#include "kernel/bpf_code.h"

/* NO_PREALLOC, ZERO_SEED, RDONLY_PROG, WRONLY_PROG, MMAPABLE. Others need what nothing shows (the NUMA node). */
#define KNOWN_FLAGS (1U << 0 | 1U << 6 | 1U << 7 | 1U << 8 | 1U << 10)
#define LARGEST	    (1ULL << 30) /* bytes of content */
#define LONGEST_KEY 512		 /* MAX_BPF_STACK: of a hash; that of an array has 4 bytes */

static bool is_known_type(uint32_t type)
{
	return type == BPF_MAP_TYPE_HASH || type == BPF_MAP_TYPE_ARRAY;
}

/* `access`: 0, BPF_F_RDONLY or BPF_F_WRONLY. -1: errno tells why. */
static int open_by_id(uint32_t id, uint32_t access)
{
	union bpf_attr attributes = { .map_id = id, .open_flags = access };

	return bpf_call(BPF_MAP_GET_FD_BY_ID, &attributes);
}

static uint64_t size_of(const BpfmapFileEntry *entry)
{
	return entry->max_entries * ((uint64_t)entry->key_size + entry->value_size);
}

/* Keys and values of one map; both have `count`. */
struct content {
	char *keys, *values;
	uint32_t count;
};

/* Restore. */
struct saved_map {
	BpfmapDataEntry *record;
	struct content content;
	int fd; /* of the new map; -1: not made yet */
};

struct saved_maps {
	struct index by_id;
	struct saved_map **items;
	size_t count;
	struct index users; /* dump: by map, a program that uses it */
	bool knows_users;
};

static struct saved_maps *maps_of(const struct snapshot *snapshot)
{
	return file_kind_state(snapshot, &file_kind_bpf_map);
}

/* ---- dump ---- */

static bool bpf_map_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	unsigned type;
	const char *text = !strcmp(seen->link, "anon_inode:bpf-map") ? fdinfo_find(seen, "map_type") : NULL;

	return text && sscanf(text, "%u", &type) == 1 && is_known_type(type);
}

static int bpf_map_fdinfo(struct snapshot *snapshot unused, struct file *file, const char *key,
			  const char *value)
{
	BpfmapFileEntry *entry = file->entry->bpf;
	const struct {
		const char *key;
		uint32_t *number;
	} fields[] = {
		{ "map_type", &entry->map_type },     { "key_size", &entry->key_size },
		{ "value_size", &entry->value_size }, { "max_entries", &entry->max_entries },
		{ "map_flags", &entry->map_flags },   { "map_id", &entry->map_id },
	};

	for (size_t i = 0; i < array_size(fields); i++)
		if (!strcmp(key, fields[i].key))
			*fields[i].number = strtoul(value, NULL, 0);
	if (!strcmp(key, "frozen"))
		entry->frozen = *value == '1';
	if (!strcmp(key, "memlock"))
		entry->memlock = strtoull(value, NULL, 10);
	return 0;
}

static const char *const fdinfo_needs[] = { "map_type",	 "key_size", "value_size", "max_entries",
					    "map_flags", "map_id",   "frozen",	   NULL };

/* Which maps does this program use? */
static void note_program(struct index *users, uint32_t program)
{
	union bpf_attr attributes = { .prog_id = program };
	autoclose int fd = bpf_call(BPF_PROG_GET_FD_BY_ID, &attributes);
	struct bpf_prog_info info = { 0 };
	autofree uint32_t *maps = NULL;
	uint32_t count;

	for (int pass = 0; fd >= 0 && pass < 2; pass++) {
		attributes = (union bpf_attr){ .info = { fd, sizeof(info), (uintptr_t)&info } };
		if (bpf_call(BPF_OBJ_GET_INFO_BY_FD, &attributes) < 0)
			return;
		count = info.nr_map_ids;
		if (pass)
			continue;
		maps = allocate_array(count, sizeof(*maps));
		info = (struct bpf_prog_info){ .nr_map_ids = count, .map_ids = (uintptr_t)maps };
	}
	for (uint32_t i = 0; maps && i < count; i++)
		index_set(users, maps[i], (void *)(uintptr_t)program);
}

/* The id of a program that uses the map; 0: none. All programs are asked once. */
static uint32_t find_user(const struct snapshot *snapshot, uint32_t map)
{
	struct saved_maps *maps = maps_of(snapshot);
	union bpf_attr attributes = { 0 };

	while (!maps->knows_users && bpf_call(BPF_PROG_GET_NEXT_ID, &attributes) == 0) {
		uint32_t program = attributes.next_id;

		note_program(&maps->users, program);
		attributes = (union bpf_attr){ .start_id = program };
	}
	maps->knows_users = true;
	return (uintptr_t)index_find(&maps->users, map);
}

static void bpf_map_let_go(struct snapshot *snapshot, enum dump_end end unused)
{
	index_free(&maps_of(snapshot)->users);
}

static int refuse_map(const struct seen_file *seen, const char *why)
{
	return refuse("process %d (%s): descriptor %d is a BPF map %s, which is not supported yet",
		      seen->holder.here, seen->holder.name, seen->fd, why);
}

static int bpf_map_describe(struct snapshot *snapshot, struct file *file)
{
	const struct seen_file *seen = file->seen;
	BpfmapFileEntry *entry = file->entry->bpf;
	autoclose int fd = files_borrow(seen);
	struct bpf_map_info info = { 0 };
	union bpf_attr attributes = { .info = { fd, sizeof(info), (uintptr_t)&info } };
	autoclose int again = open_by_id(entry->map_id, 0);
	autofree char *why = NULL;
	uint32_t program;

	if (fd < 0)
		return fd;
	if (again < 0)
		return refuse_map(seen, "that criu may not open (CAP_SYS_ADMIN)");
	if (bpf_call(BPF_OBJ_GET_INFO_BY_FD, &attributes) < 0)
		return fail(errno, "cannot ask for a BPF map");
	entry->map_name = format_text("%.*s", (int)sizeof(info.name), info.name);
	entry->ifindex = info.ifindex;
	if (info.ifindex || entry->map_flags & ~KNOWN_FLAGS)
		return refuse_map(seen, "with special flags, or on a device");
	if (info.btf_id || info.btf_vmlinux_value_type_id)
		return refuse_map(seen, "with types (BTF)");
	if (size_of(entry) > LARGEST)
		return refuse_map(seen, "of more than 1 GiB");
	program = find_user(snapshot, entry->map_id);
	if (!program)
		return 0;
	why = format_text("that the loaded program %u uses", program);
	return refuse_map(seen, why);
}

/* All pairs in one call: a hash has at most max_entries. */
static int read_content(int fd, const BpfmapFileEntry *entry, struct content *content)
{
	union bpf_attr attributes = { 0 };
	char next[LONGEST_KEY];

	content->keys = allocate_array(entry->max_entries, entry->key_size);
	content->values = allocate_array(entry->max_entries, entry->value_size);
	attributes.batch.map_fd = fd;
	attributes.batch.out_batch = (uintptr_t)next;
	attributes.batch.keys = (uintptr_t)content->keys;
	attributes.batch.values = (uintptr_t)content->values;
	attributes.batch.count = entry->max_entries;
	if (bpf_call(BPF_MAP_LOOKUP_BATCH, &attributes) < 0 &&
	    errno != ENOENT) /* the end, or an empty hash */
		return fail(errno, "cannot read the BPF map %u", entry->map_id);
	content->count = attributes.batch.count;
	return 0;
}

static int save_content(struct image *image, const BpfmapFileEntry *entry)
{
	BpfmapDataEntry data = BPFMAP_DATA_ENTRY__INIT;
	autoclose int fd = open_by_id(entry->map_id, 0);
	struct content content = { 0 };
	int result = fd < 0 ? fail(errno, "cannot open the BPF map %u", entry->map_id) :
			      read_content(fd, entry, &content);

	data.map_id = entry->map_id;
	data.count = content.count;
	data.keys_bytes = content.count * entry->key_size;
	data.values_bytes = content.count * entry->value_size;
	if (!result)
		result = image_write(image, &data.base);
	if (!result)
		result = image_write_bytes(image, content.keys, data.keys_bytes);
	if (!result)
		result = image_write_bytes(image, content.values, data.values_bytes);
	free(content.keys);
	free(content.values);
	return result;
}

static int bpf_map_save(struct snapshot *snapshot)
{
	const struct file_list *files = files_of_kind(snapshot, &file_kind_bpf_map);
	struct index known = { 0 };
	struct image *image = NULL;
	int result = files->count ? image_create(snapshot->images, &image, IMAGE_BPFMAP_DATA, 0) : 0;

	for (size_t i = 0; !result && i < files->count; i++) {
		BpfmapFileEntry *entry = files->items[i]->entry->bpf;

		if (index_find(&known, entry->map_id))
			continue;
		index_set(&known, entry->map_id, entry);
		result = save_content(image, entry);
	}
	index_free(&known);
	return image_close(image) ?: result;
}

/* ---- restore ---- */

/* The state takes over the record, even if it is wrong. */
static int load_content(struct image *image, struct saved_maps *maps, BpfmapDataEntry *record)
{
	struct saved_map *map = allocate(sizeof(*map));

	*(struct saved_map **)grow(&maps->items, &maps->count) = map;
	map->record = record;
	map->fd = -1;
	if (index_find(&maps->by_id, record->map_id))
		return fail(EINVAL, "bpfmap-data.img: the content of map %u occurs twice", record->map_id);
	index_set(&maps->by_id, record->map_id, map);
	if ((uint64_t)record->keys_bytes + record->values_bytes > image_size(image) - image_position(image))
		return fail(EINVAL, "bpfmap-data.img is torn: the content of map %u is incomplete",
			    record->map_id);
	map->content.count = record->count;
	map->content.keys = allocate(record->keys_bytes);
	map->content.values = allocate(record->values_bytes);
	return image_read_bytes(image, map->content.keys, record->keys_bytes) ?:
		       image_read_bytes(image, map->content.values, record->values_bytes);
}

static int bpf_map_load(struct snapshot *snapshot)
{
	BpfmapDataEntry *record;
	struct image *image;
	int result;

	if (!files_of_kind(snapshot, &file_kind_bpf_map)->count)
		return 0;
	result = image_open(snapshot->images, &image, IMAGE_BPFMAP_DATA, 0);
	if (result)
		return result == -ENOENT ? fail(ENOENT, "bpfmap-data.img is missing") : result;
	while ((result = image_read_as(image, bpfmap_data_entry, &record)) > 0) {
		result = load_content(image, maps_of(snapshot), record);
		if (result)
			break;
	}
	image_close_read(image);
	return result;
}

static bool is_sound(const BpfmapFileEntry *entry)
{
	return is_known_type(entry->map_type) && entry->key_size && entry->key_size <= LONGEST_KEY &&
	       entry->value_size && entry->max_entries && !entry->ifindex && !entry->map_extra &&
	       !(entry->map_flags & ~KNOWN_FLAGS) && strlen(entry->map_name) < BPF_OBJ_NAME_LEN &&
	       (entry->flags & O_ACCMODE) != O_ACCMODE;
}

static int bpf_map_check(struct snapshot *snapshot, struct file *file)
{
	const BpfmapFileEntry *entry = file->entry->bpf;
	const struct saved_map *map = index_find(&maps_of(snapshot)->by_id, entry->map_id);
	const BpfmapDataEntry *record = map ? map->record : NULL;

	if (!is_sound(entry))
		return fail(EINVAL,
			    "files.img: file %u is an invalid BPF map, or one that is not supported yet",
			    file->id);
	if (!record)
		return fail(EINVAL, "bpfmap-data.img: the content of map %u is missing", entry->map_id);
	if (record->count > entry->max_entries ||
	    record->keys_bytes != (uint64_t)record->count * entry->key_size ||
	    record->values_bytes != (uint64_t)record->count * entry->value_size)
		return fail(EINVAL, "bpfmap-data.img: the content of map %u does not fit the map",
			    entry->map_id);
	return 0;
}

static int fill(const struct saved_map *map)
{
	union bpf_attr attributes = { 0 };

	if (!map->content.count)
		return 0;
	attributes.batch.map_fd = map->fd;
	attributes.batch.keys = (uintptr_t)map->content.keys;
	attributes.batch.values = (uintptr_t)map->content.values;
	attributes.batch.count = map->content.count;
	if (bpf_call(BPF_MAP_UPDATE_BATCH, &attributes) < 0)
		return fail(errno, "cannot fill the BPF map %u", map->record->map_id);
	return 0;
}

static int make(const BpfmapFileEntry *entry, struct saved_map *map)
{
	union bpf_attr attributes = { .map_type = entry->map_type,
				      .key_size = entry->key_size,
				      .value_size = entry->value_size,
				      .max_entries = entry->max_entries,
				      .map_flags = entry->map_flags };
	int result;

	memcpy(attributes.map_name, entry->map_name, strlen(entry->map_name));
	map->fd = bpf_call(BPF_MAP_CREATE, &attributes);
	if (map->fd < 0)
		return fail(errno, "cannot create the BPF map %u", entry->map_id);
	result = fill(map);
	if (result || !entry->frozen)
		return result;
	attributes = (union bpf_attr){ .map_fd = map->fd };
	return bpf_call(BPF_MAP_FREEZE, &attributes) < 0 ?
		       fail(errno, "cannot freeze the BPF map %u", entry->map_id) :
		       0;
}

static int open_bpf_map(struct snapshot *snapshot, struct file *file)
{
	static const uint32_t access[] = {
		[O_RDONLY] = BPF_F_RDONLY, [O_WRONLY] = BPF_F_WRONLY, [O_RDWR] = 0
	};
	const BpfmapFileEntry *entry = file->entry->bpf;
	struct saved_map *map = index_find(&maps_of(snapshot)->by_id, entry->map_id);
	struct bpf_map_info info = { 0 };
	union bpf_attr attributes;
	int result = map->fd < 0 ? make(entry, map) : 0, fd;

	if (result)
		return result;
	attributes = (union bpf_attr){ .info = { map->fd, sizeof(info), (uintptr_t)&info } };
	if (bpf_call(BPF_OBJ_GET_INFO_BY_FD, &attributes) < 0)
		return fail(errno, "cannot ask for a BPF map");
	fd = open_by_id(info.id, access[entry->flags & O_ACCMODE]); /* close-on-exec, as all of bpf() */
	return fd < 0 ? fail(errno, "cannot open the BPF map %u", entry->map_id) : fd;
}

static void bpf_map_close(struct snapshot *snapshot)
{
	struct saved_maps *maps = maps_of(snapshot);

	for (size_t i = 0; i < maps->count; i++) {
		struct saved_map *map = maps->items[i];

		if (map->fd >= 0)
			close(map->fd);
		image_free(map->record);
		free(map->content.keys);
		free(map->content.values);
		free(map);
	}
	free(maps->items);
	index_free(&maps->by_id);
	*maps = (struct saved_maps){ 0 };
}

/* One for each map: at most as many as there are files. */
static size_t bpf_map_keeps(const struct snapshot *snapshot)
{
	return files_of_kind(snapshot, &file_kind_bpf_map)->count;
}

const struct file_kind file_kind_bpf_map = {
	.name = "BPF map",
	.type = FD_TYPES__BPFMAP,
	.message = offsetof(FileEntry, bpf),
	.state_size = sizeof(struct saved_maps),
	.recognizes = bpf_map_recognizes,
	.fdinfo = bpf_map_fdinfo,
	.fdinfo_needs = fdinfo_needs,
	.describe = bpf_map_describe,
	.save = bpf_map_save,
	.let_go = bpf_map_let_go,
	.load = bpf_map_load,
	.check = bpf_map_check,
	.open = open_bpf_map,
	.close = bpf_map_close,
	.keeps = bpf_map_keeps,
};
