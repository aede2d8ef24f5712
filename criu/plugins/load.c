/*
 * load.c - loads the plugins of a directory: each file there whose name ends with ".so", in the order of names.
 *
 * A plugin becomes a part of criu, with all of criu's privileges. So the directory is the one that the user names
 * (--libdir), or the one in CRIU_LIBS_DIR unless criu was started with the privileges of another user (set-user-ID), or
 * the usual one; and criu warns if others could have written there.
 */
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "criu-plugin.h"
#include "plugins/loaded.h"

#define USUAL_DIRECTORY "/usr/lib/criu"

/* ---- one plugin ---- */

/* A plugin of version 0.1 has no description. Its functions have these names. */
static const char *const old_names[CR_PLUGIN_HOOK__MAX] = {
	[CR_PLUGIN_HOOK__DUMP_UNIX_SK] = "cr_plugin_dump_unix_sk",
	[CR_PLUGIN_HOOK__RESTORE_UNIX_SK] = "cr_plugin_restore_unix_sk",
	[CR_PLUGIN_HOOK__DUMP_EXT_FILE] = "cr_plugin_dump_file",
	[CR_PLUGIN_HOOK__RESTORE_EXT_FILE] = "cr_plugin_restore_file",
	[CR_PLUGIN_HOOK__DUMP_EXT_MOUNT] = "cr_plugin_dump_ext_mount",
	[CR_PLUGIN_HOOK__RESTORE_EXT_MOUNT] = "cr_plugin_restore_ext_mount",
	[CR_PLUGIN_HOOK__DUMP_EXT_LINK] = "cr_plugin_dump_ext_link",
	[CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA] = "cr_plugin_handle_device_vma",
	[CR_PLUGIN_HOOK__UPDATE_VMA_MAP] = "cr_plugin_update_vma_map",
	[CR_PLUGIN_HOOK__RESUME_DEVICES_LATE] = "cr_plugin_resume_devices_late",
	[CR_PLUGIN_HOOK__PAUSE_DEVICES] = "cr_plugin_pause_devices",
	[CR_PLUGIN_HOOK__CHECKPOINT_DEVICES] = "cr_plugin_checkpoint_devices",
	[CR_PLUGIN_HOOK__POST_FORKING] = "cr_plugin_post_forking",
};

static int begin_old(struct plugin *plugin, const char *path)
{
	int (*begin)(void) = dlsym(plugin->library, "cr_plugin_init");
	bool is_plugin = begin;
	int result;

	plugin->name = copy_text(path);
	plugin->old_exit = dlsym(plugin->library, "cr_plugin_fini");
	plugin->hook_count = CR_PLUGIN_HOOK__MAX;
	plugin->hooks = plugin->hooks_of_old = allocate_array(plugin->hook_count, sizeof(*plugin->hooks));
	for (unsigned i = 0; i < plugin->hook_count; i++) {
		plugin->hooks_of_old[i] = dlsym(plugin->library, old_names[i]);
		is_plugin |= plugin->hooks_of_old[i] != NULL;
	}
	if (!is_plugin)
		return fail(0, "%s is no plugin: it does not export CR_PLUGIN_DESC", path);
	log_warning("%s is a plugin of the old kind (0.1): it does not export CR_PLUGIN_DESC", path);
	result = begin ? begin() : 0;
	return result < 0 ? fail(0, "the plugin %s has failed to start (%d)", path, result) : 0;
}

static int check_version(const cr_plugin_desc_t *description, const char *path)
{
	unsigned version = description->version;

	if (!description->name)
		return fail(0, "the plugin %s has no name", path);
	if (version != CRIU_PLUGIN_VERSION)
		return fail(0, "the plugin %s has version %u.%u.%u, and this criu has plugins of %d.%d.%d",
			    path, version >> 16, version >> 8 & 0xff, version & 0xff,
			    CRIU_PLUGIN_VERSION_MAJOR, CRIU_PLUGIN_VERSION_MINOR,
			    CRIU_PLUGIN_VERSION_SUBLEVEL);
	/* An older header has fewer hooks, and so a shorter description. */
	if (description->max_hooks > CR_PLUGIN_HOOK__MAX)
		return fail(0,
			    "the plugin %s was built for a later criu: it has room for %u hooks, not for %d",
			    path, description->max_hooks, CR_PLUGIN_HOOK__MAX);
	return 0;
}

static int begin_described(struct plugin *plugin, const cr_plugin_desc_t *description, const char *path)
{
	int result = check_version(description, path);

	if (result)
		return result;
	plugin->name = copy_text(description->name);
	plugin->hooks = description->hooks;
	plugin->hook_count = description->max_hooks;
	plugin->exit = description->exit;
	log_info("the plugin '%s' (%s)", plugin->name, path);
	result = description->init ? description->init(plugins.stage) : 0;
	if (result >= 0)
		return 0;
	fail_advice("the log may have its reason");
	return fail(0, "the plugin '%s' (%s) has failed to start (%d)", plugin->name, path, result);
}

static void warn_if_writable(const char *path)
{
	struct stat found;

	if (stat(path, &found) == 0 && found.st_mode & S_IWOTH && !(found.st_mode & S_ISVTX))
		log_warning("anybody may write to %s: a plugin gets all of criu's privileges", path);
}

static int load_plugin(const char *path)
{
	struct plugin plugin = { 0 };
	const cr_plugin_desc_t *description;
	int result;

	warn_if_writable(path);
	plugin.library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!plugin.library)
		return fail(0, "cannot load the plugin %s: %s", path, dlerror());
	description = dlsym(plugin.library, "CR_PLUGIN_DESC");
	result = description ? begin_described(&plugin, description, path) : begin_old(&plugin, path);
	if (!result) {
		*grow(&plugins.items, &plugins.count) = plugin;
		return 0;
	}
	dlclose(plugin.library);
	free(plugin.hooks_of_old);
	free(plugin.name);
	return result;
}

/* ---- all of them ---- */

static int is_library(const struct dirent *entry)
{
	size_t length = strlen(entry->d_name);

	return length > 3 && !strcmp(entry->d_name + length - 3, ".so");
}

/* The one that was named must exist. An empty variable is like none. */
static const char *find_directory(const char *named, bool *may_be_missing)
{
	if (!named)
		named = secure_getenv("CRIU_LIBS_DIR");
	if (named && !*named)
		named = NULL;
	*may_be_missing = !named;
	return named ?: USUAL_DIRECTORY;
}

int plugins_load(const char *directory, enum plugin_stage stage, int images)
{
	bool may_be_missing;
	struct dirent **entries;
	int count, result = 0;

	directory = find_directory(directory, &may_be_missing);
	plugins.directory = copy_text(directory);
	plugins.stage = stage;
	if (images >= 0)
		plugins.images = fcntl(images, F_DUPFD_CLOEXEC, 0);
	if (images >= 0 && plugins.images < 0)
		return fail(errno, "cannot copy the descriptor of the images for plugins");
	count = scandir(directory, &entries, is_library, alphasort);
	if (count < 0)
		return may_be_missing && errno == ENOENT ?
			       0 :
			       fail(errno, "cannot read the directory of plugins %s", directory);
	if (count)
		warn_if_writable(directory);
	for (int i = 0; i < count; i++) {
		autofree char *path = format_text("%s/%s", directory, entries[i]->d_name);

		result = result ?: load_plugin(path);
		free(entries[i]);
	}
	free(entries);
	return result;
}
