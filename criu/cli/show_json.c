/*
 * show_json.c - writes the structure of show.h as one JSON object. Documentation/images.md documents its members. A
 * change of the meaning of a member increments "format"; a new member does not.
 */
#include <stdlib.h>
#include "cli/json.h"
#include "cli/show.h"

#define FORMAT 1

static void put_memory(struct json *json, const struct show_memory *memory)
{
	json_open(json, "memory", '{');
	json_number(json, "mapped", memory->mapped);
	json_number(json, "saved", memory->saved);
	json_number(json, "in_parent", memory->in_parent);
	json_close(json, '}');
}

static void put_chain(struct json *json, const struct show_tree *tree)
{
	json_open(json, "chain", '[');
	for (size_t i = 0; i < tree->layer_count; i++) {
		json_open(json, NULL, '{');
		json_string(json, "directory", tree->layers[i].directory);
		json_number(json, "used", tree->layers[i].used);
		json_close(json, '}');
	}
	json_close(json, ']');
	if (tree->problem)
		json_string(json, "problem", tree->problem);
}

static void put_head(struct json *json, const struct show_tree *tree)
{
	json_number(json, "format", FORMAT);
	json_string(json, "directory", tree->directory);
	json_bool(json, "complete", tree->inventory);
	if (tree->inventory)
		json_number(json, "image_version", tree->inventory->img_version);
	if (tree->made > 0)
		json_number(json, "made", tree->made);
	json_string(json, "made_by", tree->inventory ? tree->inventory->made_by : NULL);
	json_string(json, "parent", tree->parent);
	put_chain(json, tree);
	json_open(json, "totals", '{');
	json_number(json, "processes", tree->process_count);
	json_number(json, "threads", tree->thread_count);
	json_number(json, "files", tree->files.count);
	put_memory(json, &tree->memory);
	json_close(json, '}');
}

static void put_nested_ids(struct json *json, const struct show_process *process, size_t thread)
{
	const uint32_t *ids;
	size_t count = show_nested_ids(process, thread, &ids);

	if (!count)
		return;
	json_open(json, "nested_ids", '[');
	for (size_t i = 0; i < count; i++)
		json_number(json, NULL, ids[i]);
	json_close(json, ']');
}

static void put_threads(struct json *json, const struct show_process *process)
{
	json_open(json, "threads", '[');
	for (size_t i = 0; i < process->cores.count; i++) {
		const CoreEntry *core = (const CoreEntry *)process->cores.items[i];

		json_open(json, NULL, '{');
		json_number(json, "tid", i ? process->entry->threads[i] : process->entry->pid);
		json_string(json, "name", core && core->thread_core ? core->thread_core->comm : NULL);
		put_nested_ids(json, process, i);
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void put_credentials(struct json *json, const CredsEntry *credentials)
{
	if (!credentials)
		return;
	json_open(json, "credentials", '{');
	json_number(json, "uid", credentials->uid);
	json_number(json, "euid", credentials->euid);
	json_number(json, "gid", credentials->gid);
	json_number(json, "egid", credentials->egid);
	json_open(json, "groups", '[');
	for (size_t i = 0; i < credentials->n_groups; i++)
		json_number(json, NULL, credentials->groups[i]);
	json_close(json, ']');
	json_close(json, '}');
}

static void put_namespace(void *context, const char *name, uint32_t id, bool own)
{
	struct json *json = context;

	json_open(json, name, '{');
	json_number(json, "id", id);
	json_bool(json, "own", own);
	json_close(json, '}');
}

static void put_descriptors(struct json *json, const struct show_process *process)
{
	if (process->shares_descriptors)
		json_number(json, "descriptors_of", process->shares_descriptors->entry->pid);
	json_open(json, "descriptors", '[');
	for (size_t i = 0; i < process->descriptors.count; i++) {
		const FdinfoEntry *descriptor = (const FdinfoEntry *)process->descriptors.items[i];

		json_open(json, NULL, '{');
		json_number(json, "fd", descriptor->fd);
		json_bool(json, "close_on_exec", descriptor->flags & 1);
		json_number(json, "file", descriptor->id);
		json_close(json, '}');
	}
	json_close(json, ']');
}

static void put_state(struct json *json, const struct show_process *process)
{
	json_string(json, "state", show_state(process));
	if (process->task && process->task->task_state == 2) {
		unsigned status = process->task->exit_code;

		json_number(json, status & 0x7f ? "signal" : "exit_status",
			    status & 0x7f ? status & 0x7f : status >> 8 & 0xff);
	}
}

static void put_process(struct json *json, const struct show_tree *tree, const struct show_process *process)
{
	const PstreeEntry *entry = process->entry;

	json_open(json, NULL, '{');
	json_number(json, "pid", entry->pid);
	json_number(json, "parent_pid", entry->ppid);
	json_number(json, "process_group", entry->pgid);
	json_number(json, "session", entry->sid);
	json_string(json, "name", process->task ? process->task->comm : NULL);
	put_state(json, process);
	put_threads(json, process);
	put_credentials(json, process->credentials);
	json_open(json, "namespaces", '{');
	show_namespaces(tree, process, put_namespace, json);
	json_close(json, '}');
	if (process->mm)
		json_string(json, "executable", show_file_path(tree, process->mm->exe_file_id));
	if (process->fs) {
		json_string(json, "working_directory", show_file_path(tree, process->fs->cwd_id));
		json_string(json, "root", show_file_path(tree, process->fs->root_id));
	}
	if (process->shares_memory)
		json_number(json, "memory_of", process->shares_memory->entry->pid);
	put_memory(json, &process->memory);
	put_descriptors(json, process);
	json_close(json, '}');
}

static void put_flag(void *context, const char *name)
{
	json_string(context, NULL, name);
}

static void put_file(struct json *json, const struct show_tree *tree, const FileEntry *file)
{
	struct show_file shown = show_describe(tree, file);

	json_open(json, NULL, '{');
	json_number(json, "id", file->id);
	json_number(json, "type", file->type);
	json_string(json, "kind", shown.kind);
	json_string(json, "description", shown.what);
	if (shown.path)
		json_string(json, "path", shown.path);
	if (shown.is_deleted)
		json_bool(json, "deleted", true);
	if (file->pipe || file->fifo)
		json_number(json, "pipe", file->pipe ? file->pipe->pipe_id : file->fifo->pipe_id);
	if (shown.has_flags) {
		json_open(json, "flags", '[');
		show_flags(shown.flags, put_flag, json);
		json_close(json, ']');
	}
	if (shown.has_position)
		json_number(json, "position", shown.position);
	json_close(json, '}');
	free(shown.what);
}

void show_json(FILE *out, const struct show_tree *tree)
{
	struct json json = { .out = out, .is_first = true };

	json_open(&json, NULL, '{');
	put_head(&json, tree);
	json_open(&json, "processes", '[');
	for (size_t i = 0; i < tree->process_count; i++)
		put_process(&json, tree, &tree->processes[i]);
	json_close(&json, ']');
	json_open(&json, "files", '[');
	for (size_t i = 0; i < tree->files.count; i++)
		put_file(&json, tree, (const FileEntry *)tree->files.items[i]);
	json_close(&json, ']');
	json_open(&json, "shared_memory", '[');
	for (size_t i = 0; i < tree->shared_count; i++) {
		json_open(&json, NULL, '{');
		json_number(&json, "id", tree->shared[i].id);
		put_memory(&json, &tree->shared[i].memory);
		json_close(&json, '}');
	}
	json_close(&json, ']');
	json_close(&json, '}');
	fputc('\n', out);
}
