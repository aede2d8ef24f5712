/*
 * page_map.h - where the kernel sees the memory that a struct page stands for.
 */
#ifndef CRIU_KERNEL_PAGE_MAP_H
#define CRIU_KERNEL_PAGE_MAP_H

#include <stdint.h>
#include "compiler.h"

struct btf;
struct kernel_files;

struct page_map {
	uint64_t page, address; /* of one page */
	uint32_t page_size;	/* of its struct page */
};

/* Needs CAP_NET_RAW. 0 or -errno, recorded. */
int page_map_open(struct page_map *map, const struct kernel_files *files, const struct btf *btf) must_check;
/* 0: it is no struct page. */
uint64_t page_map_address(const struct page_map *map, uint64_t page);

#endif
