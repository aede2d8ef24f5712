/*
 * scan_entries.c - finds a task's own pages, and those that are not soft-dirty, by reading /proc/PID/pagemap: eight
 * bytes for each page.
 *
 * A page is reported as unchanged only if nothing else is possible:
 *  - If a written page was dropped and then read, the kernel maps its page of zeros, and does not mark that
 *    soft-dirty. Before Linux 6.17, PAGEMAP_SCAN does not report the huge page of zeros as such. A page of zeros is
 *    mapped more than once, so bit 56 of its pagemap entry is clear; for those pages /proc/kpageflags tells which are
 *    zeros, if criu may read it.
 *  - A page table may have been moved: see struct frames.
 */
#include <errno.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "base/search.h"
#include "memory/scan_entries.h"

/* Bits of an entry of pagemap (Documentation/admin-guide/mm/pagemap.rst) */
#define ENTRY_PRESENT	 (1ULL << 63)
#define ENTRY_SWAPPED	 (1ULL << 62)
#define ENTRY_FILE	 (1ULL << 61)
#define ENTRY_GUARD	 (1ULL << 58) /* Linux 6.15 */
#define ENTRY_EXCLUSIVE	 (1ULL << 56) /* mapped once: not a page of zeros */
#define ENTRY_SOFT_DIRTY (1ULL << 55)
#define ENTRY_KIND \
	(ENTRY_PRESENT | ENTRY_SWAPPED | ENTRY_FILE | ENTRY_GUARD | ENTRY_EXCLUSIVE | ENTRY_SOFT_DIRTY)
#define ENTRY_FRAME(e) \
	((e) & ((1ULL << 55) - 1))  /* 0 without CAP_SYS_ADMIN; of a swapped page: its place in the swap */
#define FRAME_IS_ZEROS (1ULL << 24) /* in /proc/kpageflags */

#define TABLE_PAGES	512 /* pages of one page table: 2 MiB */
#define FRAMES_IN_TABLE 8   /* frames that are noted for each mapping */

/* Is it, for certain, a page that was written once, and no page of zeros? */
static bool holds_something(const struct scanner *scanner, uint64_t entry)
{
	uint64_t frame = ENTRY_FRAME(entry), flags;

	if (entry & ENTRY_EXCLUSIVE)
		return true;
	return frame && scanner->frames >= 0 &&
	       pread(scanner->frames, &flags, sizeof(flags), frame * sizeof(flags)) == sizeof(flags) &&
	       !(flags & FRAME_IS_ZEROS);
}

/* The physical place of the page, if it is of this page alone; 0: it is not, or criu may not see it. */
static uint64_t place_of_entry(const struct scanner *scanner, uint64_t entry)
{
	bool is_alone = entry & ENTRY_SWAPPED || (entry & ENTRY_PRESENT && holds_something(scanner, entry));

	return is_alone && ENTRY_FRAME(entry) ? ENTRY_FRAME(entry) | (entry & ENTRY_SWAPPED) : 0;
}

/*
 * The entries are those of pages from `start` on, all of one page table. Is it the same table as before? A page of a
 * file proves nothing: if the file is mapped a second time, the other table has the same frame.
 */
static bool is_same_table(const struct scanner *scanner, const struct frames *known, uint64_t start,
			  const uint64_t *entries, size_t count)
{
	uint64_t end = start + count * PAGE_SIZE;

	for (size_t i = search_address(known->items, known->count, sizeof(*known->items), start);
	     i < known->count && known->items[i].address < end; i++) {
		uint64_t entry = entries[(known->items[i].address - start) / PAGE_SIZE];

		if (!(entry & (ENTRY_SOFT_DIRTY | ENTRY_FILE)) &&
		    place_of_entry(scanner, entry) == known->items[i].place)
			return true;
	}
	return false;
}

/* Notes some at equal distances, or all if there are few: one that is written meanwhile proves nothing any more. */
static void note_frames(const struct scanner *scanner, struct frames *noted, uint64_t start,
			const uint64_t *entries, size_t count)
{
	size_t distance = count / FRAMES_IN_TABLE ?: 1;

	for (size_t i = 0; i < count;) {
		uint64_t place = entries[i] & ENTRY_FILE ? 0 : place_of_entry(scanner, entries[i]);

		if (place)
			*grow(&noted->items, &noted->count) = (struct frame){ start + i * PAGE_SIZE, place };
		i += place ? distance : 1;
	}
}

/* Adds adjacent pages that are not soft-dirty to *changed or *unchanged. Their entries have the same flags. */
static void sort_clean(const struct scanner *scanner, const struct scan *scan, uint64_t start,
		       const uint64_t *entries, size_t count, struct page_runs *changed,
		       struct page_runs *unchanged)
{
	uint64_t end = start + count * PAGE_SIZE;

	if (entries[0] & ENTRY_SWAPPED)
		page_runs_add_range(scan->is_file ? changed : unchanged, start, end);
	else if (entries[0] & ENTRY_EXCLUSIVE)
		page_runs_add_range(unchanged, start, end);
	else
		for (; start < end; start += PAGE_SIZE)
			page_runs_add_range(holds_something(scanner, *entries++) ? unchanged : changed, start,
					    start + PAGE_SIZE);
}

static void sort_table(const struct scanner *scanner, const struct scan *scan, uint64_t start,
		       const uint64_t *entries, size_t count, struct page_runs *changed,
		       struct page_runs *unchanged)
{
	bool is_same = scan->note == NOTE_SOFT_DIRTY &&
		       is_same_table(scanner, scan->known, start, entries, count);

	for (size_t i = 0, end; i < count; i = end) {
		uint64_t kind = entries[i] & ENTRY_KIND, address = start + i * PAGE_SIZE;

		for (end = i + 1; end < count && (entries[end] & ENTRY_KIND) == kind; end++)
			;
		if (!(kind & (ENTRY_PRESENT | ENTRY_SWAPPED)) || kind & ENTRY_GUARD ||
		    (scan->is_file && kind & ENTRY_FILE))
			continue;
		if (is_same && !(kind & ENTRY_SOFT_DIRTY))
			sort_clean(scanner, scan, address, &entries[i], end - i, changed, unchanged);
		else
			page_runs_add_range(changed, address, start + end * PAGE_SIZE);
	}
	if (scan->noted)
		note_frames(scanner, scan->noted, start, entries, count);
}

/* Reads the entries of pages from `start` on, and returns their number; -errno, not recorded. */
static ssize_t next_entries(struct scanner *scanner, uint64_t start, uint64_t end)
{
	size_t wanted = min((end - start) / PAGE_SIZE, (uint64_t)ENTRIES);
	ssize_t got = pread(scanner->pagemap, scanner->entries, wanted * 8, start / PAGE_SIZE * 8);

	return got < 8 ? (got < 0 ? -errno : -EIO) : got / 8;
}

int scan_entries(struct scanner *scanner, const struct scan *scan, struct page_runs *changed,
		 struct page_runs *unchanged)
{
	for (uint64_t start = scan->start; start < scan->end;) {
		ssize_t found = next_entries(scanner, start, scan->end);

		if (found < 0)
			return fail(-found, "cannot read /proc/PID/pagemap");
		for (size_t i = 0, count; i < (size_t)found; i += count, start += count * PAGE_SIZE) {
			count = min((size_t)found - i, TABLE_PAGES - start / PAGE_SIZE % TABLE_PAGES);
			sort_table(scanner, scan, start, &scanner->entries[i], count, changed, unchanged);
		}
	}
	return 0;
}

bool scan_is_clean(struct scanner *scanner, uint64_t address)
{
	uint64_t entry;

	return pread(scanner->pagemap, &entry, sizeof(entry), address / PAGE_SIZE * sizeof(entry)) ==
		       sizeof(entry) &&
	       entry & (ENTRY_PRESENT | ENTRY_SWAPPED) && !(entry & ENTRY_SOFT_DIRTY);
}

uint64_t scan_count_soft_dirty(struct scanner *scanner, uint64_t start, uint64_t end)
{
	const uint64_t exists = ENTRY_PRESENT | ENTRY_SWAPPED;
	uint64_t pages = 0;

	while (start < end) {
		ssize_t found = next_entries(scanner, start, end);

		if (found < 0)
			break;
		for (ssize_t i = 0; i < found; i++)
			pages += scanner->entries[i] & ENTRY_SOFT_DIRTY && scanner->entries[i] & exists &&
				 !(scanner->entries[i] & ENTRY_FILE);
		start += found * PAGE_SIZE;
	}
	return pages;
}
