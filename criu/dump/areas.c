/*
 * areas.c - describes each mapping of a task: the file or the shared memory that it maps, or why it cannot be saved.
 * memory/saving.c tells the kind of the mapping.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/memory.h"
#include "criu-plugin.h"
#include "dump/dump.h"
#include "files/devices.h"
#include "files/kind.h"
#include "image/message.h"
#include "kernel/proc.h"
#include "memory/saving.h"
#include "memory/scan.h"
#include "memory/shared.h"
#include "plugins/plugins.h"

#define WORTH_A_THREAD 32  /* processes: 8 ms. On busy CPUs, to wait for a thread takes a few, too */
#define MANY_THREADS   100 /* looking at them takes as long as reading the mappings that their stacks are */
#define KERNEL_HALF    (1ULL << 63) /* of the address space */

/* A pre-dump saves what it can: the dump that follows will refuse. */
static int refuse_area(const struct dump *dump, const struct task *task, const struct vma *vma,
		       const char *what)
{
	if (dump->is_pre_dump)
		return 0;
	return refuse("process %d (%s): memory at %#llx (%s): %s: not supported yet", task->here, task->name,
		      (unsigned long long)vma->start, vma->path, what);
}

/* A library is mapped in several adjacent pieces: often the previous mapping is of the same file. */
static bool is_known_file(const struct task *task, struct vma *vma)
{
	for (const struct vma *other = vma; other > task->space->vmas.items;) {
		other--;
		if (other->device != vma->device || other->inode != vma->inode)
			return false;
		if (other->file_flags == vma->file_flags && !strcmp(other->path, vma->path)) {
			vma->object = other->object;
			vma->status |= other->status & (VMA_MEMFD | VMA_PLUGIN);
			return true;
		}
	}
	return false;
}

/* Does a plugin take a mapping of a device that criu itself cannot open again? 1, 0 or -errno, recorded. */
static int is_of_plugin(const struct task *task, const struct vma *vma, const char *link)
{
	struct stat device;
	autoclose int fd = -1;
	int result;

	if (!plugins_have(CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA) || fstatat(task->proc, link, &device, 0) < 0 ||
	    !is_device(&device) || device_can_reopen(&device, vma->file_flags))
		return false;
	fd = openat(task->proc, link, O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
	if (fd < 0)
		return fail(errno, "cannot open %s for a plugin", vma->path);
	result = plugins_handle_mapping(fd, &device);
	return result == -ENOTSUP ? false : result < 0 ? result : true;
}

static int describe_file(struct dump *dump, struct task *task, struct vma *vma)
{
	bool is_shared = vma->flags & MAP_SHARED;
	char link[64];
	uint32_t id;
	int result;

	/* A shared mapping that could become writable needs its file open for writing. */
	vma->file_flags = is_shared && vma->may_write ? O_RDWR : O_RDONLY;
	if (dump->is_pre_dump)
		return 0;
	if (is_known_file(task, vma))
		return 0;
	snprintf(link, sizeof(link), "map_files/%llx-%llx", (unsigned long long)vma->start,
		 (unsigned long long)vma->end);
	result = is_of_plugin(task, vma, link);
	if (result < 0)
		return result;
	if (result > 0)
		vma->status |= VMA_PLUGIN;
	result = (vma->status & VMA_PLUGIN ? files_add_device : files_add_path)(&dump->snapshot, task, link,
										vma->file_flags, &id);
	vma->object = id;
	if (!result && snapshot_find_file(&dump->snapshot, id)->kind == &file_kind_memfd)
		vma->status |= VMA_MEMFD;
	return result;
}

/* Does smaps show MLOCK_ONFAULT here? Linux 6.12 does, 6.1 does not. */
static bool kernel_tells_on_fault(void)
{
	autoclose int self = proc_open(getpid());
	void *page = mmap(NULL, PAGE_SIZE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct vmas vmas = { 0 };
	bool tells = false;

	if (page != MAP_FAILED && mlock2(page, PAGE_SIZE, MLOCK_ONFAULT) == 0 && self >= 0 &&
	    proc_read_smaps(self, &vmas) == 0)
		for (size_t i = 0; i < vmas.count; i++)
			tells |= vmas.items[i].locks_on_fault;
	vmas_free(&vmas);
	munmap(page, PAGE_SIZE);
	return tells;
}

/*
 * mlock() makes all pages present. So if the kernel does not show it, a locked mapping with missing pages was locked
 * with MLOCK_ONFAULT.
 */
static void guess_on_fault(struct vmas *vmas)
{
	for (size_t i = 0; i < vmas->count; i++) {
		struct vma *vma = &vmas->items[i];

		if (!(vma->flags & MAP_LOCKED) || vma->resident >= vma_length(vma))
			continue;
		if (vma->locks_on_fault || kernel_tells_on_fault())
			return;
		vma->locks_on_fault = true;
	}
}

static int describe_area(struct dump *dump, struct task *task, struct vma *vma)
{
	const char *refusal;
	uint32_t status = vma_recognize(vma, &refusal);

	if (refusal)
		return refuse_area(dump, task, vma, refusal);
	if (status & VMA_AIO_RING)
		return dump_describe_ring(dump, task, vma);
	vma->status |= status;
	if (dump_is_of_io_uring(vma) || status & VMA_SOCKET)
		return 0; /* dump_describe_ring_areas() finds its file */
	if (status & (VMA_FILE_PRIVATE | VMA_FILE_SHARED))
		return describe_file(dump, task, vma);
	vma->flags |= MAP_ANONYMOUS;
	if (status & VMA_SYSV_IPC) {
		vma->file_flags = vma->may_write ? O_RDWR : O_RDONLY;
		return shared_memory_add_segment(&dump->snapshot, task, vma);
	}
	return status & VMA_ANON_SHARED ? shared_memory_add(&dump->snapshot, task, vma) : 0;
}

/*
 * Anonymous shared memory that a task of the tree has opened through /proc/PID/map_files. As with criu 4.2.1, the image
 * has it as a memfd, and its mappings as those of a file, because a mapping of shared memory would refer to a different
 * object.
 */
static int describe_opened(struct dump *dump, struct task *task, struct vma *vma,
			   struct shared_memory *object)
{
	uint32_t *file = &object->mapped_file[vma->may_write];
	char link[64];
	int result = 0;

	vma->status = (vma->status & ~VMA_ANON_SHARED) | VMA_FILE_SHARED | VMA_MEMFD;
	vma->flags &= ~MAP_ANONYMOUS;
	vma->file_flags = vma->may_write ? O_RDWR : O_RDONLY;
	vma->object_size = 0; /* memfd.img has it */
	snprintf(link, sizeof(link), "map_files/%llx-%llx", (unsigned long long)vma->start,
		 (unsigned long long)vma->end);
	if (!*file)
		result = files_add_path(&dump->snapshot, task, link, vma->file_flags, file);
	vma->object = *file;
	return result;
}

int dump_describe_opened_areas(struct dump *dump)
{
	struct snapshot *snapshot = &dump->snapshot;
	const struct shared_memories *all = shared_memories_of(snapshot);
	struct index opened = { 0 };
	struct task *task;
	int result = 0;

	for (size_t i = 0; i < all->count; i++)
		if (all->items[i].is_anonymous && all->items[i].memfd)
			index_set(&opened, all->items[i].id, &all->items[i]);
	for_each_leader (task, snapshot, OBJECT_MEMORY)
		for (size_t i = 0; !result && i < task->space->vmas.count; i++) {
			struct vma *vma = &task->space->vmas.items[i];
			struct shared_memory *object = vma->status & VMA_ANON_SHARED ?
							       index_find(&opened, vma->object) :
							       NULL;

			if (object)
				result = describe_opened(dump, task, vma, object);
		}
	index_free(&opened);
	return result;
}

/* The format has the vvar area as one mapping, as on older kernels. */
static void join_vvar(struct vmas *vmas)
{
	for (size_t i = 1; i < vmas->count; i++) {
		struct vma *before = &vmas->items[i - 1], *vma = &vmas->items[i];

		if (!(before->status & vma->status & VMA_VVAR) || before->end != vma->start)
			continue;
		before->end = vma->end;
		free(vma->path);
		memmove(vma, vma + 1, (vmas->count - i - 1) * sizeof(*vma));
		vmas->count--;
		i--;
	}
}

/*
 * Guard regions exist in private anonymous memory since Linux 6.13, in shared memory and files since 6.15. One scan
 * covers all mappings and the gaps between them. It leaves out the vsyscall page: addresses in the kernel's half cannot
 * be scanned.
 */
static int find_guards(int proc, const struct vmas *vmas, struct page_runs *guards)
{
	size_t count = vmas->count;
	struct scanner *scanner;
	int result;

	while (count && vmas->items[count - 1].start >= KERNEL_HALF)
		count--;
	if (!count)
		return 0;
	result = scanner_open(&scanner, proc);
	if (result)
		return result;
	result = scan_guards(scanner, vmas->items[0].start, vmas->items[count - 1].end, guards);
	scanner_close(scanner);
	return result;
}

int dump_read_areas(int proc, struct vmas *vmas, struct page_runs *guards)
{
	return proc_read_smaps(proc, vmas) ?: find_guards(proc, vmas, guards);
}

static void add_guards(struct task *task, const struct page_runs *guards)
{
	for (size_t i = 0; i < guards->count; i++)
		*grow(&task->space->vmas.items, &task->space->vmas.count) = (struct vma){
			.start = guards->items[i].start,
			.end = page_run_end(&guards->items[i]),
			.status = VMA_GUARD_RANGE,
			.file_flags = -1,
		};
}

/* Reads the mappings of a frozen task, in the order of struct vmas. Changes nothing but task->space->vmas. */
static int read_areas_of_task(struct dump *dump, struct task *task)
{
	struct page_runs guards = { 0 };
	int result = 0;

	if (!dump_take_areas_ahead(dump, task, &guards))
		result = dump_read_areas(task->proc, &task->space->vmas, &guards);
	guess_on_fault(&task->space->vmas);
	if (!result)
		add_guards(task, &guards);
	page_runs_free(&guards);
	return result;
}

struct reading {
	struct task *task;
	int result;
};

struct readings {
	struct dump *dump;
	struct reading *items;
	size_t count;
};

static void read_one(void *context, size_t i)
{
	struct readings *readings = context;
	struct reading *reading = &readings->items[i];

	reading->result = read_areas_of_task(readings->dump, reading->task);
}

int dump_read_all_areas(struct dump *dump)
{
	struct readings readings = { .dump = dump };
	struct task *task;
	int result = 0;

	for_each_leader (task, &dump->snapshot, OBJECT_MEMORY)
		if (task->state != TASK_DEAD)
			*grow(&readings.items, &readings.count) = (struct reading){ .task = task };
	share_work(readings.count, WORTH_A_THREAD, read_one, &readings);
	for (size_t i = 0; !result && i < readings.count; i++) {
		task = readings.items[i].task;
		result = readings.items[i].result;
		if (result)
			fail_in(result, "process %d (%s)", task->here, task->name);
	}
	free(readings.items);
	return result;
}

struct areas_look {
	struct dump *dump;
	struct helper_thread *helper; /* NULL: it has ended */
	int result;
};

static void read_beside(void *context)
{
	struct areas_look *look = context;

	look->result = dump_read_all_areas(look->dump);
}

/* Many processes are read by two threads, and their threads are few. */
void dump_begin_areas(struct dump *dump)
{
	struct areas_look *look = dump->areas = allocate(sizeof(*look));

	look->dump = dump;
	if (dump->snapshot.thread_count >= MANY_THREADS && dump->snapshot.task_count < WORTH_A_THREAD)
		look->helper = helper_thread_start();
	if (look->helper)
		helper_thread_run(look->helper, read_beside, look);
	else
		read_beside(look);
}

int dump_end_areas(struct dump *dump)
{
	autofree struct areas_look *look = steal_pointer(&dump->areas);

	if (!look)
		return 0;
	if (look->helper)
		helper_thread_wait(look->helper);
	helper_thread_end(look->helper);
	return look->result;
}

int dump_describe_areas(struct dump *dump, struct task *task)
{
	int result = 0;

	if (!dump->is_pre_dump)
		result = files_add_path(&dump->snapshot, task, "exe", 0, &task->space->mm->exe_file_id);
	for (size_t i = 0; !result && i < task->space->vmas.count; i++)
		if (!(task->space->vmas.items[i].status & VMA_GUARD_RANGE))
			result = unless_refused(describe_area(dump, task, &task->space->vmas.items[i]));
	join_vvar(&task->space->vmas);
	return result;
}

/* "[anon:NAME]" or "[anon_shmem:NAME]"; NULL: neither. */
static char *given_name(const struct vma *vma)
{
	const char *name = strchr(vma->path ?: "", ':');
	char *copy;

	if (!name || strncmp(vma->path, "[anon", 5))
		return NULL;
	copy = copy_text(name + 1);
	copy[strlen(copy) - 1] = '\0';
	return copy;
}

static VmaEntry *area_entry(const struct vma *vma)
{
	VmaEntry *entry = message_new(VmaEntry, vma_entry);

	entry->start = vma->start;
	entry->end = vma->end;
	entry->pgoff = vma->offset;
	entry->shmid = vma->object;
	entry->prot = vma->protection;
	entry->flags = vma->flags;
	entry->status = vma->status;
	entry->fd = -1;
	if (vma->advice)
		message_set(entry, madv, vma->advice);
	if (vma->file_flags >= 0)
		message_set(entry, fdflags, vma->file_flags);
	entry->name = given_name(vma);
	if (vma->has_huge_pages)
		message_set(entry, huge_pages, true);
	if (vma->locks_on_fault)
		message_set(entry, on_fault, true);
	if (vma->key)
		message_set(entry, key, vma->key);
	if (vma->is_sealed)
		message_set(entry, is_sealed, true);
	if (vma->object_size)
		message_set(entry, shm_size, vma->object_size);
	return entry;
}

void dump_area_entries(struct task *task)
{
	MmEntry *mm = task->space->mm;

	message_array(mm, vmas, task->space->vmas.count);
	for (size_t i = 0; i < task->space->vmas.count; i++)
		mm->vmas[i] = area_entry(&task->space->vmas.items[i]);
	dump_ring_entries(task);
}
