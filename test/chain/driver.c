/*
 * driver.c - runs one seed: starts a script, takes N snapshots of it, restores those that can be restored, and compares
 * them with the original.
 *
 * Before a snapshot it writes each task's mappings and bytes, seen from outside, into a file. After a restore it reads
 * them again, and they must be the same. Then the restored tree continues its script as the original did, and must have
 * the same result; or it is dumped again, with its own images as the parent.
 */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>
#include "driver.h"

#define SKIPPED 77 /* the exit code of a probe if the kernel lacks something */

/* A snapshot: how the seed wants it, and what has happened to it. */
struct snapshot {
	enum snapshot_kind kind;
	char name[16], parent[16];
	bool is_gone;	  /* a dedup of a later snapshot has freed a part of it */
	const char *loss; /* what happened before it */
	struct board board;
};

static struct snapshot snapshots[SNAPSHOTS_MAX + 2]; /* 1 is the first; the last one is of a restored tree */

void failed(const struct run *run, const char *format, ...)
{
	va_list arguments;

	printf("seed %llu, tracker %s: %s:\n  ", (unsigned long long)run->seed, run->tracker, run->doing);
	va_start(arguments, format);
	vprintf(format, arguments);
	va_end(arguments);
	printf("\n");
	for (unsigned int i = 1; snapshots[i].name[0]; i++)
		printf("  snapshot %s: %s%s%s%s%s\n", snapshots[i].name,
		       snapshots[i].kind == PRE_DUMP ? "pre-dump" :
		       snapshots[i].kind == DUMP     ? "dump" :
						       "dump -R",
		       snapshots[i].parent[0] ? ", parent " : "", snapshots[i].parent,
		       snapshots[i].loss ? ", after " : "", snapshots[i].loss ?: "");
	fflush(stdout);
	_exit(1);
}

static const char *path_of(const struct run *run, const char *kind, const struct snapshot *snapshot)
{
	static char path[160];

	snprintf(path, sizeof(path), "%s/%s-%s", run->directory, kind, snapshot->name);
	return path;
}

static bool is_incremental(const struct run *run)
{
	return strcmp(run->tracker, "none");
}

static void plan(const struct run *run, unsigned int number, uint64_t *random)
{
	struct snapshot *snapshot = &snapshots[number];
	bool before = random_percent(random, 30), stops = random_percent(random, 50);

	snapshot->kind = number == run->snapshots && stops		    ? DUMP :
			 before && is_incremental(run) && run->can_pre_dump ? PRE_DUMP :
									      DUMP_LEAVE_RUNNING;
	snprintf(snapshot->name, sizeof(snapshot->name), "s%u", number);
	if (number > 1 && is_incremental(run))
		strcpy(snapshot->parent, snapshots[number - 1].name);
	/*
	 * Now and then it is not the previous snapshot: then more was written since than a tracker knows. The peer
	 * does not notice that.
	 */
	if (number > 2 && random_percent(random, 10) && is_incremental(run) && !run->peer)
		strcpy(snapshot->parent, snapshots[number - 2].name);
}

static void keep_board(const struct run *run, const struct snapshot *snapshot)
{
	FILE *file = fopen(path_of(run, "board", snapshot), "we");

	if (!file || fwrite(&snapshot->board, sizeof(snapshot->board), 1, file) != 1 || fclose(file))
		failed(run, "the board cannot be kept: %s", strerror(errno));
}

static void take(struct run *run, struct snapshot *snapshot, bool gently)
{
	struct capture capture;

	snprintf(run->doing, sizeof(run->doing), "%s of snapshot %s",
		 snapshot->kind == PRE_DUMP ? "pre-dump" : "dump", snapshot->name);
	capture_take(run, &capture, gently);
	capture_write(run, &capture, path_of(run, "reference", snapshot));
	capture_free(&capture);
	snapshot->board = *run->board;
	if (run->keeps)
		keep_board(run, snapshot);
	command_dump(run, snapshot->kind, snapshot->name, snapshot->parent[0] ? snapshot->parent : NULL);
}

static const struct snapshot *parent_of(const struct snapshot *snapshot)
{
	for (const struct snapshot *other = &snapshots[1]; snapshot->parent[0] && other->name[0]; other++)
		if (!strcmp(other->name, snapshot->parent))
			return other;
	return NULL;
}

/* A snapshot that can be restored keeps its pages when a pre-dump is made on top of it. */
static bool gets_pages(const struct snapshot *snapshot)
{
	const struct snapshot *other = parent_of(snapshot);

	while (other && other->kind == PRE_DUMP)
		other = parent_of(other);
	return snapshot->kind != PRE_DUMP || !other;
}

/* A dedup of the last snapshot frees pages in the older ones, so from then on only the last one can be a parent. */
static void lose(struct run *run, unsigned int number, uint64_t *random)
{
	bool can_dedup = run->can_dedup;

	snprintf(run->doing, sizeof(run->doing), "a loss after snapshot s%u", number - 1);
	run->can_dedup &= gets_pages(&snapshots[number - 1]);
	snapshots[number].loss = loss_inflict(run, random, snapshots[number - 1].name);
	run->can_dedup = can_dedup;
	if (snapshots[number].loss && !strcmp(snapshots[number].loss, "dedup"))
		for (unsigned int i = 1; i < number - 1; i++)
			snapshots[i].is_gone = true;
	if (number > 1 && snapshots[number - 2].is_gone && snapshots[number].parent[0])
		strcpy(snapshots[number].parent, snapshots[number - 1].name);
}

static void run_script(struct run *run, unsigned int number)
{
	snprintf(run->doing, sizeof(run->doing), "script before snapshot %u", number);
	tree_let_run(run, random_derive(run->seed, number));
}

static void compare_with(struct run *run, const struct snapshot *snapshot, enum extent extent)
{
	static struct capture expected, found;

	capture_read(run, &expected, path_of(run, "reference", snapshot));
	capture_take(run, &found, false);
	compare(run, &expected, &found, extent);
	capture_free(&expected);
	capture_free(&found);
}

static void restore(struct run *run, const struct snapshot *snapshot)
{
	snprintf(run->doing, sizeof(run->doing), "restore of snapshot %s", snapshot->name);
	*run->board = snapshot->board;
	command_restore(run, snapshot->name);
	compare_with(run, snapshot, ALL);
}

static void go_on(struct run *run, unsigned int number)
{
	run_script(run, number + 1);
	snprintf(run->doing, sizeof(run->doing), "life after the restore of s%u, until the time of s%u",
		 number, number + 1);
	compare_with(run, &snapshots[number + 1], SCRIPT_ONLY);
}

/* The pids are the same, but nothing that a tracker has noted about them is valid any more. */
static void dump_again(struct run *run, unsigned int number, uint64_t *random)
{
	struct snapshot *again = &snapshots[run->snapshots + 1];

	*again = (struct snapshot){ .kind = DUMP_LEAVE_RUNNING };
	snprintf(again->name, sizeof(again->name), "again%u", number);
	if (is_incremental(run))
		strcpy(again->parent, snapshots[random_percent(random, 50) ? number : run->snapshots].name);
	run_script(run, 1000 + number);
	take(run, again, random_percent(random, 50));
	tree_kill(run);
	restore(run, again);
	again->name[0] = '\0';
}

static void take_all(struct run *run, uint64_t *random)
{
	for (unsigned int i = 1; i <= run->snapshots; i++) {
		plan(run, i, random);
		run_script(run, i);
		if (i > 1 && is_incremental(run) && random_percent(random, 30))
			lose(run, i, random);
		take(run, &snapshots[i], random_percent(random, 60));
	}
	strcpy(run->doing, "end of the original");
	tree_kill(run);
}

static void restore_all(struct run *run, uint64_t *random)
{
	for (unsigned int i = 1; i <= run->snapshots; i++) {
		unsigned int choice = random_below(random, 100);

		if (snapshots[i].kind == PRE_DUMP || snapshots[i].is_gone)
			continue;
		restore(run, &snapshots[i]);
		if (choice < 50 && i < run->snapshots)
			go_on(run, i);
		else if (choice < 70 && !run->peer)
			dump_again(run, i, random);
		snprintf(run->doing, sizeof(run->doing), "end of what was restored from s%u", i);
		tree_kill(run);
	}
}

/* Runs as the first process of the namespace: it adopts orphans of criu, and all others end with it. */
static int be_first(struct run *run)
{
	uint64_t random = random_derive(run->seed, 1UL << 32);

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	strcpy(run->doing, "start");
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || mount("proc", "/proc", "proc", 0, NULL))
		failed(run, "mount of /proc: %s", strerror(errno));
	tree_make_files(run);
	tree_start(run);
	take_all(run, &random);
	restore_all(run, &random);
	return 0;
}

static int in_namespace(struct run *run)
{
	int status = 0, pid;

	if (unshare(CLONE_NEWPID | CLONE_NEWNS)) {
		printf("new namespaces: %s\n", strerror(errno));
		return 1;
	}
	pid = fork();
	if (!pid)
		_exit(be_first(run));
	waitpid(pid, &status, 0);
	if (WIFSIGNALED(status))
		printf("seed %llu: the driver died of signal %d\n", (unsigned long long)run->seed,
		       WTERMSIG(status));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static void use_directory(struct run *run, const char *path)
{
	snprintf(run->directory, sizeof(run->directory), "%s", path);
	snprintf(run->board_path, sizeof(run->board_path), "%s/board", path);
	snprintf(run->file_path, sizeof(run->file_path), "%s/file", path);
}

/* --probe TRACKER: the exit code tells whether the kernel supports it. */
static _Noreturn void probe(const char *tracker)
{
	const char *missing = probe_tracker(tracker);

	if (missing)
		puts(missing);
	exit(missing ? SKIPPED : 0);
}

/* Only test/chain/run starts this program, so a missing or unknown option is its mistake. */
static bool parse(struct run *run, char **argument)
{
	const char *seed = NULL, *snapshots = NULL, *directory = NULL, *probed = NULL;
	const struct {
		const char *name, **value;
	} values[] = {
		{ "--criu", &run->criu },	{ "--peer", &run->peer }, { "--script", &run->script },
		{ "--tracker", &run->tracker }, { "--seed", &seed },	  { "--snapshots", &snapshots },
		{ "--directory", &directory },	{ "--probe", &probed },
	};
	const struct {
		const char *name;
		bool *value;
	} flags[] = {
		{ "--keep", &run->keeps },
		{ "--peer-dumps", &run->peer_dumps },
		{ "--pre-dump", &run->can_pre_dump },
		{ "--peer-restores", &run->peer_restores },
		{ "--dedup", &run->can_dedup },
		{ "--flatten", &run->can_flatten },
	};

	for (; *argument; argument++) {
		for (size_t i = 0; i < sizeof(flags) / sizeof(*flags); i++)
			*flags[i].value |= !strcmp(*argument, flags[i].name);
		for (size_t i = 0; i < sizeof(values) / sizeof(*values); i++)
			if (!strcmp(*argument, values[i].name) && argument[1])
				*values[i].value = *++argument;
	}
	if (probed)
		probe(probed);
	if (!run->criu || !run->script || !run->tracker || !seed || !snapshots || !directory)
		return false;
	use_directory(run, directory);
	run->seed = strtoull(seed, NULL, 10);
	run->snapshots = strtoul(snapshots, NULL, 10);
	return run->snapshots && run->snapshots <= SNAPSHOTS_MAX;
}

int main(int argc, char **argv)
{
	struct run run = { 0 };

	setvbuf(stdout, NULL, _IOLBF, 0);
	if (!argc || !parse(&run, argv + 1)) {
		fprintf(stderr, "driver: start test/chain/run, which runs this program\n");
		return 2;
	}
	return in_namespace(&run);
}
