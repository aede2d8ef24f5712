/*
 * show_json.c - the structure of show.h as one JSON object. Its members are documented in
 * Documentation/images.md; whoever changes the meaning of one counts "format" up, adding one does not.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include "cli/show.h"

#define FORMAT 1

/* --- The emitter ---------------------------------------------------------------------------------------- */

struct json {
	FILE *out;
	unsigned depth;
	bool is_first; /* in the object or array that is open */
};

static void put_text(struct json *json, const char *text)
{
	size_t left = strlen(text), size;
	bool is_valid, is_printable;

	fputc('"', json->out);
	for (; left; text += size, left -= size) {
		size = show_character(text, left, &is_valid, &is_printable);
		if (!is_valid)
			fputs("\\ufffd", json->out);
		else if (*text == '"' || *text == '\\')
			fprintf(json->out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			fprintf(json->out, "\\u%04x", *text);
		else
			fwrite(text, 1, size, json->out);
	}
	fputc('"', json->out);
}

/* What stands before a value: a comma, a new line, and in an object the key (NULL in an array). */
static void put_key(struct json *json, const char *key)
{
	if (!json->is_first)
		fputc(',', json->out);
	if (json->depth)
		fputc('\n', json->out);
	for (unsigned i = 0; i < json->depth; i++)
		fputs("  ", json->out);
	json->is_first = false;
	if (key) {
		put_text(json, key);
		fputs(": ", json->out);
	}
}

static void put_open(struct json *json, const char *key, char bracket)
{
	put_key(json, key);
	fputc(bracket, json->out);
	json->depth++;
	json->is_first = true;
}

static void put_close(struct json *json, char bracket)
{
	bool was_empty = json->is_first;

	json->depth--;
	json->is_first = false;
	if (!was_empty) {
		fputc('\n', json->out);
		for (unsigned i = 0; i < json->depth; i++)
			fputs("  ", json->out);
	}
	fputc(bracket, json->out);
}

static void put_number(struct json *json, const char *key, uint64_t number)
{
	put_key(json, key);
	fprintf(json->out, "%" PRIu64, number);
}

static void put_bool(struct json *json, const char *key, bool value)
{
	put_key(json, key);
	fputs(value ? "true" : "false", json->out);
}

/* NULL is null */
static void put_string(struct json *json, const char *key, const char *text)
{
	put_key(json, key);
	if (text)
		put_text(json, text);
	else
		fputs("null", json->out);
}

/* --- The object ----------------------------------------------------------------------------------------- */

static void put_memory(struct json *json, const struct show_memory *memory)
{
	put_open(json, "memory", '{');
	put_number(json, "mapped", memory->mapped);
	put_number(json, "saved", memory->saved);
	put_number(json, "in_parent", memory->in_parent);
	put_close(json, '}');
}

static void put_chain(struct json *json, const struct show_tree *tree)
{
	put_open(json, "chain", '[');
	for (size_t i = 0; i < tree->layer_count; i++) {
		put_open(json, NULL, '{');
		put_string(json, "directory", tree->layers[i].directory);
		put_number(json, "used", tree->layers[i].used);
		put_close(json, '}');
	}
	put_close(json, ']');
	if (tree->problem)
		put_string(json, "problem", tree->problem);
}

static void put_head(struct json *json, const struct show_tree *tree)
{
	put_number(json, "format", FORMAT);
	put_string(json, "directory", tree->directory);
	put_bool(json, "complete", tree->inventory);
	if (tree->inventory)
		put_number(json, "image_version", tree->inventory->img_version);
	if (tree->made > 0)
		put_number(json, "made", tree->made);
	put_string(json, "made_by", tree->inventory ? tree->inventory->made_by : NULL);
	put_string(json, "parent", tree->parent);
	put_chain(json, tree);
	put_open(json, "totals", '{');
	put_number(json, "processes", tree->process_count);
	put_number(json, "threads", tree->thread_count);
	put_number(json, "files", tree->files.count);
	put_memory(json, &tree->memory);
	put_close(json, '}');
}

static void put_threads(struct json *json, const struct show_process *process)
{
	put_open(json, "threads", '[');
	for (size_t i = 0; i < process->cores.count; i++) {
		const CoreEntry *core = (const CoreEntry *)process->cores.items[i];

		put_open(json, NULL, '{');
		put_number(json, "tid", i ? process->entry->threads[i] : process->entry->pid);
		put_string(json, "name", core && core->thread_core ? core->thread_core->comm : NULL);
		put_close(json, '}');
	}
	put_close(json, ']');
}

static void put_credentials(struct json *json, const CredsEntry *credentials)
{
	if (!credentials)
		return;
	put_open(json, "credentials", '{');
	put_number(json, "uid", credentials->uid);
	put_number(json, "euid", credentials->euid);
	put_number(json, "gid", credentials->gid);
	put_number(json, "egid", credentials->egid);
	put_open(json, "groups", '[');
	for (size_t i = 0; i < credentials->n_groups; i++)
		put_number(json, NULL, credentials->groups[i]);
	put_close(json, ']');
	put_close(json, '}');
}

static void put_namespace(void *context, const char *name, uint32_t id, bool own)
{
	struct json *json = context;

	put_open(json, name, '{');
	put_number(json, "id", id);
	put_bool(json, "own", own);
	put_close(json, '}');
}

static void put_descriptors(struct json *json, const struct show_process *process)
{
	if (process->shares_descriptors)
		put_number(json, "descriptors_of", process->shares_descriptors->entry->pid);
	put_open(json, "descriptors", '[');
	for (size_t i = 0; i < process->descriptors.count; i++) {
		const FdinfoEntry *descriptor = (const FdinfoEntry *)process->descriptors.items[i];

		put_open(json, NULL, '{');
		put_number(json, "fd", descriptor->fd);
		put_bool(json, "close_on_exec", descriptor->flags & 1);
		put_number(json, "file", descriptor->id);
		put_close(json, '}');
	}
	put_close(json, ']');
}

static void put_state(struct json *json, const struct show_process *process)
{
	put_string(json, "state", show_state(process));
	if (process->task && process->task->task_state == 2) {
		unsigned status = process->task->exit_code;

		put_number(json, status & 0x7f ? "signal" : "exit_status",
			   status & 0x7f ? status & 0x7f : status >> 8 & 0xff);
	}
}

static void put_process(struct json *json, const struct show_tree *tree, const struct show_process *process)
{
	const PstreeEntry *entry = process->entry;

	put_open(json, NULL, '{');
	put_number(json, "pid", entry->pid);
	put_number(json, "parent_pid", entry->ppid);
	put_number(json, "process_group", entry->pgid);
	put_number(json, "session", entry->sid);
	put_string(json, "name", process->task ? process->task->comm : NULL);
	put_state(json, process);
	put_threads(json, process);
	put_credentials(json, process->credentials);
	put_open(json, "namespaces", '{');
	show_namespaces(tree, process, put_namespace, json);
	put_close(json, '}');
	if (process->mm)
		put_string(json, "executable", show_file_path(tree, process->mm->exe_file_id));
	if (process->fs) {
		put_string(json, "working_directory", show_file_path(tree, process->fs->cwd_id));
		put_string(json, "root", show_file_path(tree, process->fs->root_id));
	}
	if (process->shares_memory)
		put_number(json, "memory_of", process->shares_memory->entry->pid);
	put_memory(json, &process->memory);
	put_descriptors(json, process);
	put_close(json, '}');
}

static void put_flag(void *context, const char *name)
{
	put_string(context, NULL, name);
}

static void put_file(struct json *json, const struct show_tree *tree, const FileEntry *file)
{
	struct show_file shown = show_describe(tree, file);

	put_open(json, NULL, '{');
	put_number(json, "id", file->id);
	put_number(json, "type", file->type);
	put_string(json, "kind", shown.kind);
	put_string(json, "description", shown.what);
	if (shown.path)
		put_string(json, "path", shown.path);
	if (shown.is_deleted)
		put_bool(json, "deleted", true);
	if (file->pipe || file->fifo)
		put_number(json, "pipe", file->pipe ? file->pipe->pipe_id : file->fifo->pipe_id);
	if (shown.has_flags) {
		put_open(json, "flags", '[');
		show_flags(shown.flags, put_flag, json);
		put_close(json, ']');
	}
	if (shown.has_position)
		put_number(json, "position", shown.position);
	put_close(json, '}');
	free(shown.what);
}

void show_json(FILE *out, const struct show_tree *tree)
{
	struct json json = { .out = out, .is_first = true };

	put_open(&json, NULL, '{');
	put_head(&json, tree);
	put_open(&json, "processes", '[');
	for (size_t i = 0; i < tree->process_count; i++)
		put_process(&json, tree, &tree->processes[i]);
	put_close(&json, ']');
	put_open(&json, "files", '[');
	for (size_t i = 0; i < tree->files.count; i++)
		put_file(&json, tree, (const FileEntry *)tree->files.items[i]);
	put_close(&json, ']');
	put_open(&json, "shared_memory", '[');
	for (size_t i = 0; i < tree->shared_count; i++) {
		put_open(&json, NULL, '{');
		put_number(&json, "id", tree->shared[i].id);
		put_memory(&json, &tree->shared[i].memory);
		put_close(&json, '}');
	}
	put_close(&json, ']');
	put_close(&json, '}');
	fputc('\n', out);
}
