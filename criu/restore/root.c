/*
 * root.c - the root of the tree is born first, and waits while criu makes the namespaces and opens the files.
 *
 *	criu                                      root
 *	clone3(): set_tid, new namespaces         is born in its namespaces, with its pid
 *	makes and fills namespaces, opens files   waits; both share one descriptor table (CLONE_FILES)
 *	writes the letter, wakes the root         reads the letter: which numbers the files have
 *	waits for all births                      unshare(CLONE_FILES), makes its memory, creates its children
 *
 * So there is a process in the namespaces when something has to be made in them (a mount of /proc needs a process of
 * the pid namespace), and still each file is opened once, by criu, with criu's privileges.
 *
 * The root's memory is a copy of criu's from before that. What criu learns afterwards, and newborns need, comes by the
 * letter (base/letter.h). A descriptor that is open at the birth of the root, and that criu closes while the root
 * waits, would be another file later, or none: no image of pages is open then.
 *
 * Meanwhile criu can ask the root for an errand, for what the kernel remembers who has done it (SO_PEERCRED): a
 * function, with bytes that both share.
 *
 * While the root waits, it ends itself when criu dies. It sees that by a pidfd: criu need not be its parent
 * (--restore-sibling). criu notices the death of the root (lives.c) when it has done its work, or when that has failed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/letter.h"
#include "base/log.h"
#include "base/memory.h"
#include "files/kind.h"
#include "kernel/proc.h"
#include "kernel_constants.h"
#include "memory/huge.h"
#include "memory/shared.h"
#include "namespaces/kind.h"
#include "restore/gates.h"
#include "restore/lives.h"
#include "restore/restore.h"

#define MANY_TASKS 100

/* ---- before it ---- */

/*
 * Every newborn is a copy of criu, with its data about all tasks, and unmaps that when it leaves criu's code. In 4 KiB
 * pages, that took half of the time of a restore of 1,000 processes, and grew with the square of their number. In huge
 * pages it takes almost nothing. The kernel splits a huge page where a newborn writes.
 */
static int be_copied_cheaply(const struct restore *restore)
{
	autoclose int self = -1;
	struct vmas own = { 0 };
	int result;

	if (restore->snapshot.task_count < MANY_TASKS)
		return 0;
	self = proc_open(getpid());
	result = self < 0 ? fail(-self, "cannot open /proc/self") : proc_read_maps(self, &own);
	for (size_t i = 0; !result && i < own.count; i++) {
		const struct vma *vma = &own.items[i];

		if (vma->inode || vma->flags & MAP_SHARED || !(vma->protection & PROT_WRITE))
			continue;
		for (uint64_t block = round_up(vma->start, HUGE_BLOCK); block + HUGE_BLOCK <= vma->end;
		     block += HUGE_BLOCK)
			huge_collapse((void *)(uintptr_t)block);
	}
	vmas_free(&own);
	return result;
}

/* Parents come before their children. */
static void count_generations(const struct snapshot *snapshot)
{
	struct task *task;

	for_each_task (task, snapshot)
		if (task->creator)
			task->newborn->generation = task->creator->newborn->generation + 1;
	list_for_each_reverse (task, &snapshot->tasks, link)
		if (task->creator)
			task->creator->newborn->generations_below =
				max(task->creator->newborn->generations_below,
				    task->newborn->generations_below + 1);
}

/* Memory that criu and all newborns share. */
static int make_shared_memory(struct restore *restore)
{
	restore->board = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (restore->board == MAP_FAILED)
		return fail(errno, "no memory for criu to share with the restored processes");
	restore->newborns = (struct newborn_work *)((char *)restore->board + PAGE_SIZE / 2);
	return lives_make(restore) ?: gates_make(&restore->snapshot);
}

static int make_letter(void)
{
	int fd = memfd_create("criu-letter", MFD_CLOEXEC | MFD_NOEXEC_SEAL);

	return fd < 0 && errno == EINVAL ? memfd_create("criu-letter", MFD_CLOEXEC) : fd;
}

static int prepare_wait(struct wait *wait)
{
	wait->letter = make_letter();
	wait->awake = eventfd(0, EFD_CLOEXEC);
	wait->answer = eventfd(0, EFD_CLOEXEC);
	wait->criu = syscall(SYS_pidfd_open, getpid(), 0);
	return wait->letter < 0 || wait->awake < 0 || wait->answer < 0 || wait->criu < 0 ?
		       fail(errno, "cannot create what the root waits for") :
		       0;
}

/* ---- its birth ---- */

uint64_t root_birth_flags(const struct restore *restore)
{
	return CLONE_FILES | namespaces_of_birth(&restore->snapshot) |
	       (restore->request->is_sibling ? CLONE_PARENT | CLONE_PIDFD : 0);
}

int restore_create_root(void *context)
{
	struct restore *restore = context;
	pid_t pid;
	int result = make_shared_memory(restore) ?: prepare_wait(&restore->wait);

	if (result)
		return result;
	page_chain_rest(restore->chain);
	descriptors_reserve(files_descriptor_need(&restore->snapshot, descriptors_count()));
	count_generations(&restore->snapshot);
	restore->criu = getpid();
	/* The process that started criu may have ignored it, which would discard the zombies of the tree. */
	signal(SIGCHLD, SIG_DFL);
	/* criu adopts the orphans of a restore that fails, so none is left. */
	prctl(PR_SET_CHILD_SUBREAPER, 1);
	result = be_copied_cheaply(restore);
	if (result)
		return result;
	if (parent_is_needed(restore))
		return parent_spawn(restore);
	pid = spawn_task(restore, restore->snapshot.root);
	restore->has_spawned = pid > 0;
	return min(pid, 0);
}

/* ---- meanwhile ---- */

int root_work_for(struct restore *restore, int (*work)(struct restore *))
{
	struct attempt attempt;
	int result;

	attempt_begin(&attempt);
	result = work(restore);
	if (result && !attempted(lives_check(restore))) {
		attempt_count(&attempt);
		return result;
	}
	/* If the root has died, that is the cause. */
	attempt_forget(&attempt);
	return lives_check(restore);
}

/* ---- errands: what the root itself has to do meanwhile ---- */

enum wake { WAKE_UP = 1, WAKE_FOR_ERRAND = 2 };

/* The beginning of the letter while there is an errand. criu is the same program, at the same addresses. */
struct errand {
	int (*work)(void *bytes);
	size_t size; /* of the bytes */
	int result;
	char failure[512]; /* the record of criu may be that of an attempt, which the root does not know */
	char bytes[] __attribute__((aligned(16)));
};

static struct errand *map_errand(const struct restore *restore, size_t size)
{
	struct errand *errand = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, restore->wait.letter, 0);

	return errand == MAP_FAILED ? NULL : errand;
}

static int await_answer(const struct restore *restore)
{
	struct pollfd answer = { .fd = restore->wait.answer, .events = POLLIN };
	eventfd_t done;

	while (poll(&answer, 1, 100) <= 0)
		if (lives_check(restore))
			return -ECHILD;
	return eventfd_read(answer.fd, &done) < 0 ? fail(errno, "cannot read the answer of the root") : 0;
}

int root_ask(struct snapshot *snapshot, int (*work)(void *bytes), void *bytes, size_t size)
{
	struct restore *restore = container_of(snapshot, struct restore, snapshot);
	size_t all = sizeof(struct errand) + size;
	struct errand *errand;
	int result;

	if (ftruncate(restore->wait.letter, all) < 0 || !(errand = map_errand(restore, all)))
		return fail(errno, "no memory for what the root has to do");
	*errand = (struct errand){ .work = work, .size = size };
	memcpy(errand->bytes, bytes, size);
	result = eventfd_write(restore->wait.awake, WAKE_FOR_ERRAND) < 0 ?
			 fail(errno, "cannot wake the root") :
			 await_answer(restore);
	if (!result) {
		memcpy(bytes, errand->bytes, size);
		result = errand->result < 0 ? fail(0, "%s", errand->failure) : errand->result;
	}
	munmap(errand, all);
	if (ftruncate(restore->wait.letter, 0) < 0 && !result)
		result = fail(errno, "cannot empty the letter to the root");
	return result;
}

/* In the root. */
static int do_errand(const struct restore *restore)
{
	struct stat letter;
	struct errand *errand;
	struct attempt attempt;

	if (fstat(restore->wait.letter, &letter) < 0 || !(errand = map_errand(restore, letter.st_size)))
		return fail(errno, "no memory for what the root has to do");
	attempt_begin(&attempt);
	errand->result = errand->work(errand->bytes);
	if (errand->result < 0)
		snprintf(errand->failure, sizeof(errand->failure), "%s", failure_text());
	attempt_forget(&attempt);
	munmap(errand, letter.st_size);
	return eventfd_write(restore->wait.answer, 1) < 0 ? fail(errno, "cannot answer criu") : 0;
}

/* ---- the end of its wait ---- */

static void pass_all(struct restore *restore, struct letter *letter)
{
	namespaces_pass(&restore->snapshot, letter);
	shared_memory_pass(&restore->snapshot, letter);
	files_pass(&restore->snapshot, letter);
	letter_number(letter, &restore->root); /* to be closed there */
}

int root_wake(struct restore *restore)
{
	struct letter letter = { 0 };
	int result;

	pass_all(restore, &letter);
	result = letter_send(&letter, restore->wait.letter);
	letter_free(&letter);
	if (!result && eventfd_write(restore->wait.awake, WAKE_UP) < 0)
		result = -errno;
	return result ? fail(-result, "cannot tell the root about the files") : 0;
}

void root_forget_wait(struct restore *restore)
{
	struct wait *wait = &restore->wait;
	int *fds[] = { &wait->letter, &wait->awake, &wait->answer, &wait->criu };

	for (size_t i = 0; i < array_size(fds); i++)
		if (*fds[i] >= 0)
			close(steal_fd(fds[i]));
}

static int read_letter(struct restore *restore)
{
	struct letter letter;
	int result = letter_receive(&letter, restore->wait.letter);

	if (result)
		return fail(-result, "cannot read about the files");
	pass_all(restore, &letter);
	result = letter.is_shorter || letter.at < letter.size ? fail(0, "criu has told of other files") : 0;
	letter_free(&letter);
	return result;
}

int root_await(struct restore *restore)
{
	struct pollfd awaited[] = { { .fd = restore->wait.awake, .events = POLLIN },
				    { .fd = restore->wait.criu, .events = POLLIN } };
	eventfd_t wake = 0;
	int result = 0;

	while (!result && wake != WAKE_UP) {
		if (poll(awaited, array_size(awaited), -1) < 0 && errno != EINTR)
			return fail(errno, "cannot wait for the files");
		if (awaited[1].revents)
			_exit(1);
		if (!(awaited[0].revents & POLLIN))
			continue;
		if (eventfd_read(restore->wait.awake, &wake) < 0)
			return fail(errno, "cannot wait for the files");
		if (wake == WAKE_FOR_ERRAND)
			result = do_errand(restore);
	}
	result = result ?: read_letter(restore);
	if (!result && unshare(CLONE_FILES) < 0)
		result = fail(errno, "cannot have a descriptor table of its own");
	if (!result)
		root_forget_wait(restore);
	if (!result && restore->root >= 0)
		close(steal_fd(&restore->root));
	return result;
}
