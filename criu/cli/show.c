/*
 * show.c - `criu show [--json] DIR|IMAGE`: prints a directory of images, or a single image (show_image.c). This file
 * has the command and the text output; show_tree.c reads, show_file.c describes files, show_json.c writes JSON.
 * `criu show --stats DIR` is in show_stats.c.
 *
 * Names in images are untrusted: bytes that would control a terminal are printed as \xNN.
 */
#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "cli/show.h"

#define DEEPEST_INDENT 24 /* levels of the tree of processes */

/* --- Small things --------------------------------------------------------------------------------------- */

size_t show_character(const char *text, size_t length, bool *is_valid, bool *is_printable)
{
	/* By the first byte: the length, and the smallest code point that this length may encode. */
	static const struct {
		unsigned char mask, value;
		uint32_t smallest;
	} forms[] = {
		{ 0x80, 0x00, 0 }, { 0xe0, 0xc0, 0x80 }, { 0xf0, 0xe0, 0x800 }, { 0xf8, 0xf0, 0x10000 }
	};
	const unsigned char *bytes = (const unsigned char *)text;
	size_t size = 0, i;
	uint32_t code;

	*is_valid = *is_printable = false;
	while (size < array_size(forms) && (bytes[0] & forms[size].mask) != forms[size].value)
		size++;
	if (size == array_size(forms) || size >= length)
		return 1;
	code = bytes[0] & (uint8_t)~forms[size].mask;
	for (i = 1; i <= size && (bytes[i] & 0xc0) == 0x80; i++)
		code = code << 6 | (bytes[i] & 0x3f);
	if (i <= size || code < forms[size].smallest || code > 0x10ffff || (code >= 0xd800 && code < 0xe000))
		return 1;
	*is_valid = true;
	*is_printable = code >= 0x20 && (code < 0x7f || code >= 0xa0);
	return size + 1;
}

unsigned show_clean(FILE *out, const char *text)
{
	bool is_valid, is_printable;
	unsigned width = 0;
	size_t left = strlen(text), size;

	for (; left; text += size, left -= size) {
		size = show_character(text, left, &is_valid, &is_printable);
		if (is_printable) {
			fwrite(text, 1, size, out);
			width++;
			continue;
		}
		for (size_t i = 0; i < size; i++)
			width += fprintf(out, "\\x%02x", (unsigned char)text[i]);
	}
	return width;
}

static void pad(FILE *out, unsigned from, unsigned to)
{
	fprintf(out, "%*s", from < to ? (int)(to - from) : 0, "");
}

static const char *human(char text[16], uint64_t bytes)
{
	static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB" };
	double value = bytes;
	unsigned unit = 0;

	for (; value >= 1023.95 && unit + 1 < array_size(units); unit++)
		value /= 1024;
	snprintf(text, 16, unit && value < 10 ? "%.1f %s" : "%.0f %s", value, units[unit]);
	return text;
}

static void print_count(FILE *out, const char *before, size_t count, const char *what)
{
	const char *plural = what[strlen(what) - 1] == 's' ? "es" : "s";

	fprintf(out, "%s%zu %s%s", before, count, what, count == 1 ? "" : plural);
}

/* --- Head ----------------------------------------------------------------------------------------------- */

static void print_made(FILE *out, const struct show_tree *tree)
{
	char text[64];
	struct tm local;
	time_t made = tree->made;

	if (tree->made && localtime_r(&made, &local) && strftime(text, sizeof(text), "%F %T %z", &local))
		fprintf(out, "made %s", text);
	else
		fprintf(out, "made at an unknown time");
	if (tree->inventory->made_by) {
		fprintf(out, " by ");
		show_clean(out, tree->inventory->made_by);
	}
	fputc('\n', out);
}

static void print_chain(FILE *out, const struct show_tree *tree)
{
	char used[16];

	if (tree->parent) {
		fprintf(out, "builds on ");
		show_clean(out, tree->parent);
		fputc('\n', out);
	}
	if (tree->layer_count > 1)
		fprintf(out, "a chain of %zu snapshots; memory comes from\n", tree->layer_count);
	for (size_t i = 0; tree->layer_count > 1 && i < tree->layer_count; i++) {
		fprintf(out, "%10s  ", human(used, tree->layers[i].used));
		show_clean(out, tree->layers[i].directory);
		fputc('\n', out);
	}
	if (tree->problem) {
		fprintf(out, "CANNOT BE RESTORED: ");
		show_clean(out, tree->problem);
		fputc('\n', out);
	}
}

static void print_head(FILE *out, const struct show_tree *tree)
{
	char saved[16], in_parent[16];

	show_clean(out, tree->directory);
	if (tree->inventory)
		fprintf(out, ": a complete dump, ");
	else
		fprintf(out, ": NOT COMPLETE, the dump was interrupted or is still going on\n");
	if (tree->inventory)
		print_made(out, tree);
	print_count(out, "", tree->process_count, "process");
	print_count(out, ", ", tree->thread_count, "thread");
	print_count(out, ", ", tree->files.count, "file");
	fprintf(out, ", %s of memory", human(saved, tree->memory.saved));
	if (tree->memory.in_parent)
		fprintf(out, " and %s in its parent", human(in_parent, tree->memory.in_parent));
	fputc('\n', out);
	print_chain(out, tree);
}

/* --- The tree ------------------------------------------------------------------------------------------- */

/* The next process: parents before children, children in the order of the image. */
static const struct show_process *following(const struct show_process *process)
{
	if (process->first_child)
		return process->first_child;
	while (process && !process->next_sibling)
		process = process->parent;
	return process ? process->next_sibling : NULL;
}

static unsigned indent(const struct show_process *process)
{
	return 3 * min(process->depth, (unsigned)DEEPEST_INDENT);
}

static unsigned name_width(const struct show_tree *tree)
{
	unsigned widest = strlen("PROCESS");

	for (size_t i = 0; i < tree->process_count; i++) {
		const struct show_process *process = &tree->processes[i];
		unsigned width = indent(process) + strlen(show_process_name(process));

		widest = max(widest, width);
	}
	return widest;
}

/* " | `- ": a bar for each ancestor that has more children below. */
static unsigned print_branch(FILE *out, const struct show_process *process)
{
	const struct show_process *ancestors[DEEPEST_INDENT];
	unsigned count = min(process->depth, (unsigned)DEEPEST_INDENT);

	if (count == 0)
		return 0;
	for (unsigned i = count; i--; process = process->parent)
		ancestors[i] = process;
	for (unsigned i = 0; i + 1 < count; i++)
		fputs(ancestors[i]->next_sibling ? "|  " : "   ", out);
	fputs(ancestors[count - 1]->next_sibling ? "|- " : "`- ", out);
	return 3 * count;
}

static void print_process(FILE *out, const struct show_process *process, unsigned width)
{
	char saved[16], mapped[16], uid[16] = "?";
	bool has_memory = process->mm && !process->shares_memory;

	if (process->credentials)
		snprintf(uid, sizeof(uid), "%u", process->credentials->euid);
	fprintf(out, "%8u  ", process->entry->pid);
	pad(out, print_branch(out, process) + show_clean(out, show_process_name(process)), width);
	fprintf(out, "  %-8s %6s %8zu %9s %9s\n", show_state(process), uid, process->cores.count,
		has_memory ? human(saved, process->memory.saved + process->memory.in_parent) : "-",
		has_memory ? human(mapped, process->memory.mapped) : "-");
}

static void print_family(FILE *out, const struct show_process *process, unsigned width)
{
	for (; process; process = following(process))
		print_process(out, process, width);
}

static void print_processes(FILE *out, const struct show_tree *tree)
{
	unsigned width = name_width(tree);

	if (!tree->process_count)
		return;
	fprintf(out, "\n%8s  %-*s  %-8s %6s %8s %9s %9s\n", "PID", (int)width, "PROCESS", "STATE", "UID",
		"THREADS", "MEMORY", "MAPPED");
	for (size_t i = 0; i < tree->process_count; i++)
		if (!tree->processes[i].parent)
			print_family(out, &tree->processes[i], width);
}

/* --- One process ---------------------------------------------------------------------------------------- */

static void print_path(FILE *out, const struct show_tree *tree, const char *what, uint32_t id)
{
	const char *path = show_file_path(tree, id);

	if (!path)
		return;
	fprintf(out, "  %s ", what);
	show_clean(out, *path ? path : "/");
	fputs(index_find(&tree->remaps_by_id, id) ? " (deleted)\n" : "\n", out);
}

struct namespaces {
	FILE *out;
	unsigned count;
};

static void print_namespace(void *context, const char *name, uint32_t id unused, bool own)
{
	struct namespaces *namespaces = context;

	if (own)
		fprintf(namespaces->out, "%s%s",
			namespaces->count++ ? ", " : "  namespaces of its own: ", name);
}

static void print_nested_ids(FILE *out, const struct show_process *process)
{
	const uint32_t *ids;
	size_t count = show_nested_ids(process, 0, &ids);

	for (size_t i = 0; i < count; i++)
		fprintf(out, "%s%u%s", i ? ", in that " : "  pid in a nested pid namespace: ", ids[i],
			i + 1 < count ? "" : "\n");
}

static void print_facts(FILE *out, const struct show_tree *tree, const struct show_process *process)
{
	const TaskCoreEntry *task = process->task;
	struct namespaces namespaces = { .out = out };
	unsigned status = task ? task->exit_code : 0;
	const char *root = process->fs ? show_file_path(tree, process->fs->root_id) : NULL;

	if (task && task->task_state == 2 && (status & 0x7f))
		fprintf(out, "  was killed by signal %u\n", status & 0x7f);
	else if (task && task->task_state == 2)
		fprintf(out, "  has ended with status %u\n", status >> 8 & 0xff);
	print_nested_ids(out, process);
	if (process->mm)
		print_path(out, tree, "executable", process->mm->exe_file_id);
	if (process->fs)
		print_path(out, tree, "working directory", process->fs->cwd_id);
	if (root && *root && strcmp(root, "/") != 0)
		print_path(out, tree, "root directory", process->fs->root_id);
	show_namespaces(tree, process, print_namespace, &namespaces);
	if (namespaces.count)
		fputc('\n', out);
	if (process->shares_memory)
		fprintf(out, "  memory shared with process %u\n", process->shares_memory->entry->pid);
	if (process->shares_descriptors)
		fprintf(out, "  descriptors shared with process %u\n",
			process->shares_descriptors->entry->pid);
}

struct flags {
	FILE *out;
	const char *separator;
};

static void print_flag(void *context, const char *name)
{
	struct flags *flags = context;

	fprintf(flags->out, "%s%s", flags->separator, name);
	flags->separator = ", ";
}

static void print_file(FILE *out, const struct show_tree *tree, const FdinfoEntry *descriptor)
{
	const FileEntry *file = show_find_file(tree, descriptor->id);
	struct show_file shown = { .kind = "missing" };
	struct flags flags = { .out = out, .separator = "  [" };

	if (file)
		shown = show_describe(tree, file);
	fprintf(out, "%6u  %-14s  ", descriptor->fd, shown.kind);
	if (shown.what)
		show_clean(out, shown.what);
	else
		fprintf(out, "no file %u in files.img", descriptor->id);
	if (shown.is_deleted)
		fprintf(out, " (deleted)");
	if (shown.has_flags)
		show_flags(shown.flags, print_flag, &flags);
	if (descriptor->flags & 1)
		print_flag(&flags, "close on exec");
	if (shown.position) {
		print_flag(&flags, "at ");
		fprintf(out, "%" PRIu64, shown.position);
	}
	fprintf(out, "%s\n", *flags.separator == ',' ? "]" : "");
	free(shown.what);
}

static void print_details(FILE *out, const struct show_tree *tree, const struct show_process *process)
{
	fprintf(out, "\n%u ", process->entry->pid);
	show_clean(out, show_process_name(process));
	fputc('\n', out);
	print_facts(out, tree, process);
	for (size_t i = 0; i < process->descriptors.count; i++)
		print_file(out, tree, (const FdinfoEntry *)process->descriptors.items[i]);
}

static void print_shared(FILE *out, const struct show_tree *tree)
{
	char saved[16], mapped[16];

	for (size_t i = 0; i < tree->shared_count; i++) {
		const struct show_shared_memory *shared = &tree->shared[i];

		fprintf(out, "%sshared memory %" PRIu64 ": %s of %s\n", i ? "" : "\n", shared->id,
			human(saved, shared->memory.saved + shared->memory.in_parent),
			human(mapped, shared->memory.mapped));
	}
}

void show_text(FILE *out, const struct show_tree *tree)
{
	print_head(out, tree);
	print_processes(out, tree);
	for (size_t i = 0; i < tree->process_count; i++)
		print_details(out, tree, &tree->processes[i]);
	print_shared(out, tree);
}

static int show_directory(const char *directory, bool as_json)
{
	struct image_store *store;
	struct show_tree tree;
	int result = image_store_open_directory(&store, directory, false);

	if (result < 0)
		return result;
	result = show_tree_read(store, &tree);
	if (result == 0 && !tree.inventory && !tree.process_count && !tree.files.count)
		result = fail(0, "there are no images in %s", tree.directory);
	if (result == 0 && as_json)
		show_json(stdout, &tree);
	else if (result == 0)
		show_text(stdout, &tree);
	show_tree_free(&tree);
	image_store_close(store);
	return result;
}

static int show_statistics_in(const char *directory, bool as_json)
{
	struct image_store *store;
	int result = image_store_open_directory(&store, directory, false);

	if (result)
		return result;
	result = show_statistics(stdout, store, as_json);
	image_store_close(store);
	return result;
}

/* An argument that is no path itself may be a name in the images directory. */
static char *find_shown_path(const struct options *options, const char *argument)
{
	if (!options->images_dir || argument[0] == '/' || access(argument, F_OK) == 0)
		return copy_text(argument);
	return format_text("%s/%s", options->images_dir, argument);
}

static int show_argument(const struct options *options, const char *argument)
{
	autofree char *path = find_shown_path(options, argument);
	struct stat status;

	if (options->stats)
		return show_statistics_in(path, options->json);
	if (stat(path, &status) < 0)
		return fail(errno, "cannot show %s", path);
	return S_ISDIR(status.st_mode) ? show_directory(path, options->json) :
					 show_image(stdout, path, options->json);
}

static int show_default(const struct options *options)
{
	return options->stats ? show_statistics_in(work_path(options), options->json) :
				show_directory(images_path(options), options->json);
}

int command_show(const struct options *options)
{
	int result = options->argument_count ? 0 : show_default(options);

	for (size_t i = 0; !result && i < options->argument_count; i++)
		result = show_argument(options, options->arguments[i]);
	if (result == 0 && (fflush(stdout) || ferror(stdout)))
		return fail(errno, "cannot write to the standard output");
	return result;
}
