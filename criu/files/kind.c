/*
 * kind.c - the files and the state of each kind in a snapshot; and the fields that the messages of all kinds have,
 * which are found by name.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/memory.h"
#include "files/kind.h"
#include "image/message.h"

struct kind_record {
	struct file_list files;
	void *state; /* NULL: not used yet */
};

struct kind_records {
	struct kind_record *items; /* one for each row of file_kinds[] */
};

static void clear_records(void *state)
{
	struct kind_records *records = state;

	for (size_t i = 0; records->items && i < file_kind_count; i++) {
		free(records->items[i].files.items);
		free(records->items[i].state);
	}
	free(records->items);
}

static const struct state_type records_type = { sizeof(struct kind_records), clear_records };

static struct kind_record *record_of(const struct snapshot *snapshot, const struct file_kind *kind)
{
	struct kind_records *records = snapshot_state(snapshot, &records_type);
	size_t number = 0;

	if (!records->items)
		records->items = allocate_array(file_kind_count, sizeof(*records->items));
	while (file_kinds[number] != kind)
		number++;
	return &records->items[number];
}

const struct file_kind *file_kind_of(FdTypes type)
{
	for (size_t i = 0; i < file_kind_count; i++)
		if (file_kinds[i]->type == type)
			return file_kinds[i];
	return NULL;
}

void *file_kind_state(const struct snapshot *snapshot, const struct file_kind *kind)
{
	struct kind_record *record = record_of(snapshot, kind);

	if (!record->state)
		record->state = allocate(kind->state_size);
	return record->state;
}

struct file_list *files_of_kind(const struct snapshot *snapshot, const struct file_kind *kind)
{
	return &record_of(snapshot, kind)->files;
}

void file_set_kind(const struct snapshot *snapshot, struct file *file, const struct file_kind *kind)
{
	struct file_list *list = files_of_kind(snapshot, kind);

	file->kind = kind;
	*grow(&list->items, &list->count) = file;
}

struct file *file_path(const struct snapshot *snapshot, const struct file *file)
{
	uint32_t id = file->kind->path ? file->kind->path(file) : 0;

	return id ? snapshot_find_file(snapshot, id) : NULL;
}

/* ---- messages ---- */

static ProtobufCMessage **place_of_message(const struct file *file)
{
	return (ProtobufCMessage **)((char *)file->entry + file->kind->message);
}

ProtobufCMessage *file_message(const struct file *file)
{
	return file->entry ? *place_of_message(file) : NULL;
}

/* NULL: the message has no such field. */
static void *find_field(const ProtobufCMessage *message, const char *name)
{
	const ProtobufCFieldDescriptor *field =
		protobuf_c_message_descriptor_get_field_by_name(message->descriptor, name);

	return field ? (char *)message + field->offset : NULL;
}

static ProtobufCMessage *new_message(const struct file_kind *kind)
{
	const ProtobufCMessageDescriptor *type = NULL;
	ProtobufCMessage *message;

	for (unsigned i = 0; i < file_entry__descriptor.n_fields && !type; i++)
		if (file_entry__descriptor.fields[i].offset == kind->message)
			type = file_entry__descriptor.fields[i].descriptor;
	message = allocate(type->sizeof_message);
	protobuf_c_message_init(type, message);
	return message;
}

static FownEntry *owner_entry(const struct snapshot *snapshot, const struct seen_file *seen)
{
	FownEntry *entry = message_new(FownEntry, fown_entry);

	entry->signum = seen->signal;
	if (!seen->owner.pid)
		return entry;
	entry->uid = seen->owner_users[0];
	entry->euid = seen->owner_users[1];
	/* The kernel's enum pid_type, not fcntl's: 0 thread, 1 process, 2 group. fcntl's numbers are the same. */
	entry->pid_type = seen->owner.type;
	entry->pid = snapshot_name_of(snapshot, seen->owner.pid);
	return entry;
}

void file_make_message(const struct snapshot *snapshot, struct file *file)
{
	ProtobufCMessage *message = new_message(file->kind);
	uint32_t *id = find_field(message, "id"), *flags = find_field(message, "flags");
	FownEntry **owner = find_field(message, "fown");

	file->entry = message_new(FileEntry, file_entry);
	file->entry->type = file->kind->type;
	file->entry->id = *id = file->id;
	*place_of_message(file) = message;
	if (flags)
		*flags = file->seen->info.flags & ~O_CLOEXEC; /* O_CLOEXEC belongs to the descriptor */
	if (owner)
		*owner = owner_entry(snapshot, file->seen);
}

/* Looks in the file's message, then in that of its path; NULL: neither has it. */
static const void *find_common_field(const struct snapshot *snapshot, const struct file *file,
				     const char *name)
{
	const void *field = find_field(file_message(file), name);
	const struct file *path = field ? NULL : file_path(snapshot, file);

	return path ? find_field(file_message(path), name) : field;
}

bool file_has_flags(const struct snapshot *snapshot, const struct file *file)
{
	return find_common_field(snapshot, file, "flags") != NULL;
}

uint32_t file_flags(const struct snapshot *snapshot, const struct file *file)
{
	const uint32_t *flags = find_common_field(snapshot, file, "flags");

	return flags ? *flags : 0;
}

const FownEntry *file_owner(const struct snapshot *snapshot, const struct file *file)
{
	FownEntry *const *owner = find_common_field(snapshot, file, "fown");

	return owner ? *owner : NULL;
}

int flags_to_reopen(int flags)
{
	return flags & ~(O_CREAT | O_EXCL | O_TRUNC | ((flags & O_TMPFILE) == O_TMPFILE ? O_TMPFILE : 0));
}
