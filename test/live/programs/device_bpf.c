/*
 * device_bpf.c - BPF maps: their content, their access, who shares them.
 *
 * usage: device_bpf DIRECTORY hash|array|access|lru|used|program
 *
 * The last three are refused.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "live.h"

#define PAIRS 1000

static int map, other, reader, writer, frozen;

static long bpf(int command, union bpf_attr *attributes)
{
	return syscall(SYS_bpf, command, attributes, sizeof(*attributes));
}

static int create(int type, uint32_t entries, const char *name)
{
	union bpf_attr attributes = {
		.map_type = type, .key_size = 4, .value_size = 12, .max_entries = entries
	};
	int fd;

	strcpy(attributes.map_name, name);
	fd = bpf(BPF_MAP_CREATE, &attributes);
	if (fd < 0)
		live_skip("no BPF map: %m");
	return fd;
}

static long change(int command, int fd, uint32_t key, void *value)
{
	union bpf_attr attributes = { 0 };

	attributes.map_fd = fd;
	attributes.key = (uintptr_t)&key;
	attributes.value = (uintptr_t)value;
	return bpf(command, &attributes);
}

static void put(int fd, uint32_t key)
{
	uint32_t value[3] = { key, ~key, key * key };

	live_check(change(BPF_MAP_UPDATE_ELEM, fd, key, value) == 0, "update %u: %m", key);
}

static void expect(int fd, uint32_t key)
{
	uint32_t value[3] = { 0 };

	live_check(change(BPF_MAP_LOOKUP_ELEM, fd, key, value) == 0, "lookup of %u: %m", key);
	live_check(value[0] == key && value[1] == ~key && value[2] == key * key,
		   "the value of %u has changed", key);
}

static int count(int fd)
{
	union bpf_attr attributes = { 0 };
	uint32_t key, next;
	int found = 0;

	attributes.map_fd = fd;
	attributes.next_key = (uintptr_t)&next;
	while (bpf(BPF_MAP_GET_NEXT_KEY, &attributes) == 0) {
		found++;
		key = next;
		attributes.key = (uintptr_t)&key;
	}
	live_check(errno == ENOENT, "%d pairs: %m", found);
	return found;
}

static void expect_name(int fd, const char *name, uint32_t entries)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr attributes = { .info = { fd, sizeof(info), (uintptr_t)&info } };

	live_check(bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes) == 0, "info: %m");
	live_check(!strcmp(info.name, name) && info.max_entries == entries && info.value_size == 12,
		   "the map is %s, with %u entries", info.name, info.max_entries);
}

static void set_up_hash(void)
{
	map = create(BPF_MAP_TYPE_HASH, 4 * PAIRS, "some_pairs");
	for (uint32_t key = 0; key < PAIRS; key++)
		put(map, key * 7);
	other = create(BPF_MAP_TYPE_HASH, 10, "empty");
}

/* A restored hash has another order, so a count that the dump has interrupted goes on at another place. */
static void verify_hash(void)
{
	int found = count(map);

	live_check(found == PAIRS || count(map) == PAIRS, "%d pairs", found);
	for (uint32_t key = 0; key < PAIRS; key++)
		expect(map, key * 7);
	expect_name(map, "some_pairs", 4 * PAIRS);
	live_check(count(other) == 0, "the empty map has %d pairs", count(other));
}

static void set_up_array(void)
{
	map = create(BPF_MAP_TYPE_ARRAY, PAIRS, "an_array");
	for (uint32_t key = 0; key < PAIRS; key++)
		put(map, key);
	other = create(BPF_MAP_TYPE_ARRAY, 1, "");
	put(other, 0);
}

static void verify_array(void)
{
	for (uint32_t key = 0; key < PAIRS; key++)
		expect(map, key);
	expect_name(map, "an_array", PAIRS);
	expect(other, 0);
}

static int open_again(int fd, uint32_t access)
{
	struct bpf_map_info info = { 0 };
	union bpf_attr attributes = { .info = { fd, sizeof(info), (uintptr_t)&info } };

	live_check(bpf(BPF_OBJ_GET_INFO_BY_FD, &attributes) == 0, "info: %m");
	attributes = (union bpf_attr){ .map_id = info.id, .open_flags = access };
	fd = bpf(BPF_MAP_GET_FD_BY_ID, &attributes);
	live_check(fd >= 0, "the map cannot be opened again: %m");
	return fd;
}

/* Two files of one map, none of which allows everything; and a map that nobody may write to any more. */
static void set_up_access(void)
{
	union bpf_attr attributes = { 0 };

	map = create(BPF_MAP_TYPE_HASH, 16, "accessed");
	put(map, 3);
	reader = open_again(map, BPF_F_RDONLY);
	writer = open_again(map, BPF_F_WRONLY);
	close(map);
	map = writer;
	frozen = create(BPF_MAP_TYPE_ARRAY, 1, "frozen");
	put(frozen, 0);
	attributes.map_fd = frozen;
	live_check(bpf(BPF_MAP_FREEZE, &attributes) == 0, "freeze: %m");
}

static void verify_access(void)
{
	uint32_t value[3];

	expect(reader, 3);
	live_check(change(BPF_MAP_UPDATE_ELEM, reader, 3, value) < 0 && errno == EPERM,
		   "the reader can write");
	live_check(change(BPF_MAP_LOOKUP_ELEM, writer, 3, value) < 0 && errno == EPERM,
		   "the writer can read");
	put(writer, 4);
	expect(reader, 4);
	expect(frozen, 0);
	live_check(change(BPF_MAP_UPDATE_ELEM, frozen, 0, value) < 0 && errno == EPERM,
		   "the frozen map can be written");
}

static void set_up_lru(void)
{
	map = create(BPF_MAP_TYPE_LRU_HASH, 16, "");
}

/* It loads a pointer to the map, and returns 0. */
static void set_up_program(void)
{
	struct bpf_insn code[] = {
		{ .code = BPF_LD | BPF_DW | BPF_IMM, .dst_reg = 1, .src_reg = BPF_PSEUDO_MAP_FD },
		{ 0 },
		{ .code = BPF_ALU64 | BPF_MOV | BPF_K },
		{ .code = BPF_JMP | BPF_EXIT },
	};
	union bpf_attr attributes = { .prog_type = BPF_PROG_TYPE_SOCKET_FILTER };

	map = create(BPF_MAP_TYPE_ARRAY, 1, "used");
	code[0].imm = map;
	attributes.insns = (uintptr_t)code;
	attributes.insn_cnt = sizeof(code) / sizeof(code[0]);
	attributes.license = (uintptr_t) "GPL";
	other = bpf(BPF_PROG_LOAD, &attributes);
	if (other < 0)
		live_skip("no BPF program: %m");
}

static void verify_nothing(void)
{
}

static const struct {
	const char *name;
	void (*set_up)(void);
	void (*verify)(void);
} cases[] = {
	{ "hash", set_up_hash, verify_hash },	    { "array", set_up_array, verify_array },
	{ "access", set_up_access, verify_access }, { "lru", set_up_lru, verify_nothing },
	{ "used", set_up_program, verify_nothing }, { "program", set_up_program, verify_nothing },
};

int main(int argc, char **argv)
{
	const __typeof__(cases[0]) *test;

	live_begin(argc, argv);
	live_check(argc > 2, "usage: device_bpf DIRECTORY CASE");
	test = live_choose(cases, argv[2]);
	test->set_up();
	live_ready();
	while (!live_stopping()) {
		test->verify();
		live_sleep(0.01);
	}
	test->verify();
	return live_finish();
}
