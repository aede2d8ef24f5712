/*
 * plugin.c - files that only a plugin can save: devices that are not in the table (devices.h), kernel objects that no
 * kind knows. The image has nothing but a number, by which the plugin finds what it has saved.
 *
 * A restore has the root of the tree make the file, as CRIU 4.2 has a process of the tree do it: some drivers bind a
 * file to the process that opens it.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>
#include "base/memory.h"
#include "base/error.h"
#include "criu-plugin.h"
#include "files/kind.h"
#include "files/words.h"
#include "plugins/plugins.h"

static bool plugin_recognizes(const struct snapshot *snapshot unused, const struct seen_file *seen)
{
	return seen->fd >= 0 && !(seen->info.flags & O_PATH) && plugins_have(CR_PLUGIN_HOOK__DUMP_EXT_FILE);
}

static int plugin_describe(struct snapshot *snapshot, struct file *file)
{
	autoclose int fd = files_borrow(file->seen);
	int result = fd < 0 ? fd : plugins_dump_file(fd, file->id);

	if (result != -ENOTSUP)
		return min(result, 0);
	file_advise_external(snapshot, file->seen);
	return refuse_file(file->seen, "it is of a kind that is not supported yet");
}

static int plugin_check(struct snapshot *snapshot unused, struct file *file)
{
	if (plugins_have(CR_PLUGIN_HOOK__RESTORE_EXT_FILE))
		return 0;
	fail_advice("--libdir, with the directory of the plugin that has saved it");
	return fail(EINVAL,
		    "files.img: file %u was saved by a plugin, and no plugin is loaded that restores files",
		    file->id);
}

static int restore_in_root(void *bytes)
{
	const uint32_t *id = bytes;
	int fd = plugins_restore_file(*id);

	if (fd != -ENOTSUP)
		return fd;
	return fail(0, "no plugin restores file %u, which a plugin has saved (--libdir)", *id);
}

static int open_by_plugin(struct snapshot *snapshot, struct file *file)
{
	uint32_t id = file->id;
	int fd = snapshot->ask_root(snapshot, restore_in_root, &id, sizeof(id));

	if (fd < 0)
		return fd;
	return fcntl(fd, F_SETFD, FD_CLOEXEC) < 0 ?
		       fail(errno, "a plugin has restored file %u as descriptor %d, which is not open",
			    file->id, fd) :
		       fd;
}

const struct file_kind file_kind_plugin = {
	.name = "file of a plugin",
	.type = FD_TYPES__EXT,
	.message = offsetof(FileEntry, ext),
	.recognizes = plugin_recognizes,
	.describe = plugin_describe,
	.check = plugin_check,
	.open = open_by_plugin,
};
