/*
 * plugins.c - the plugins of this journey: their hooks, and the functions that criu exports for them. load.c loads them.
 *
 * Hooks are called in criu itself, except for the two that a restore calls where CRIU 4.2 does: a file is made by the
 * root of the tree (some drivers bind it to the process that opens it), and a mapping by the process that has it. Both
 * are copies of criu, in which init() was called.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "criu-plugin.h"
#include "plugins/loaded.h"

struct loaded_plugins plugins = { .images = -1 };

/* ---- what criu exports ---- */

int criu_get_image_dir(void)
{
	return plugins.images;
}

/* One call is one line, with or without '\n'. */
void print_on_level(unsigned level, const char *format, ...)
{
	char line[1024];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	line[strcspn(line, "\n")] = '\0';
	if (level == CRIU_LOG_ERROR)
		log_error("%s", line);
	else if (level == CRIU_LOG_WARN)
		log_warning("%s", line);
	else
		log_line(level == CRIU_LOG_MSG ? LOG_INFORMATION : (int)level, "%s", line);
}

static size_t find_name(const char *name, size_t length)
{
	size_t i = 0;

	while (i < plugins.names.count && (strlen(plugins.names.items[i]) != length ||
					   memcmp(plugins.names.items[i], name, length) != 0))
		i++;
	return i;
}

static void add_name(const char *name)
{
	if (find_name(name, strlen(name)) == plugins.names.count)
		*grow(&plugins.names.items, &plugins.names.count) = copy_text(name);
}

int add_inventory_plugin(const char *name)
{
	add_name(name);
	return 0;
}

int check_and_remove_inventory_plugin(const char *name, size_t length)
{
	size_t found = find_name(name, length);

	if (found == plugins.names.count)
		return 0;
	free((char *)plugins.names.items[found]);
	plugins.names.items[found] = plugins.names.items[--plugins.names.count];
	return 1;
}

/* ---- names in the inventory ---- */

const struct texts *plugins_needed(void)
{
	return &plugins.names;
}

void plugins_expect(char *const *names, size_t count)
{
	for (size_t i = 0; i < count; i++)
		add_name(names[i]);
}

int plugins_check_expected(void)
{
	if (!plugins.names.count)
		return 0;
	fail_advice("--libdir, with the directory of the plugin '%s'", plugins.names.items[0]);
	return fail(0, "the images need the plugin '%s', which is not in %s", plugins.names.items[0],
		    plugins.directory);
}

int plugins_sync(void)
{
	if (!plugins.count || plugins.images < 0 || syncfs(plugins.images) == 0)
		return 0;
	return fail(errno, "cannot sync the files of plugins");
}

/* ---- hooks ---- */

static void *hook_of(const struct plugin *plugin, unsigned hook)
{
	return hook < plugin->hook_count ? plugin->hooks[hook] : NULL;
}

bool plugins_have(unsigned hook)
{
	for (size_t i = 0; i < plugins.count; i++)
		if (hook_of(&plugins.items[i], hook))
			return true;
	return false;
}

static const char *const hook_names[] = {
	"DUMP_UNIX_SK",	  "RESTORE_UNIX_SK",	 "DUMP_EXT_FILE", "RESTORE_EXT_FILE",
	"DUMP_EXT_MOUNT", "RESTORE_EXT_MOUNT",	 "DUMP_EXT_LINK", "HANDLE_DEVICE_VMA",
	"UPDATE_VMA_MAP", "RESUME_DEVICES_LATE", "PAUSE_DEVICES", "CHECKPOINT_DEVICES",
	"POST_FORKING",
};

/* A plugin returns -errno, but some return -1. */
static int failed(const struct plugin *plugin, unsigned hook, int result)
{
	fail_advice("the log may have its reason");
	return result < -1 ?
		       fail(-result, "the plugin '%s' has failed (%s)", plugin->name, hook_names[hook]) :
		       fail(0, "the plugin '%s' has failed (%s)", plugin->name, hook_names[hook]);
}

/* Asks the plugins that have the hook, until one takes it: `function` is its hook, of the type `type`. */
#define ask_plugins(hook, type, ...)                                                                     \
	({                                                                                               \
		int answer = -ENOTSUP;                                                                   \
		for (size_t i = 0; answer == -ENOTSUP && i < plugins.count; i++) {                       \
			type function = hook_of(&plugins.items[i], hook);                                \
			if (!function)                                                                   \
				continue;                                                                \
			answer = function(__VA_ARGS__);                                                  \
			log_debug("plugin %s: %s: %d", plugins.items[i].name, hook_names[hook], answer); \
			if (answer < 0 && answer != -ENOTSUP)                                            \
				answer = failed(&plugins.items[i], hook, answer);                        \
		}                                                                                        \
		answer;                                                                                  \
	})

typedef int (*dump_hook)(int fd, int id);
typedef int (*number_hook)(int number);

int plugins_dump_file(int fd, uint32_t id)
{
	return ask_plugins(CR_PLUGIN_HOOK__DUMP_EXT_FILE, dump_hook, fd, (int)id);
}

int plugins_dump_unix_socket(int fd, uint32_t id)
{
	return ask_plugins(CR_PLUGIN_HOOK__DUMP_UNIX_SK, dump_hook, fd, (int)id);
}

int plugins_restore_file(uint32_t id)
{
	return ask_plugins(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, number_hook, (int)id);
}

int plugins_restore_unix_socket(uint32_t id)
{
	return ask_plugins(CR_PLUGIN_HOOK__RESTORE_UNIX_SK, number_hook, (int)id);
}

int plugins_handle_mapping(int fd, const struct stat *device)
{
	typedef int (*mapping_hook)(int fd, const struct stat *device);

	return ask_plugins(CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA, mapping_hook, fd, device);
}

/* Only more than 0 says that the offset has changed; a descriptor counts in any case. */
int plugins_update_mapping(const char *path, uint64_t address, uint64_t *offset, int *fd)
{
	typedef int (*update_hook)(const char *path, uint64_t address, uint64_t offset, uint64_t *new_offset,
				   int *fd);
	uint64_t new_offset = *offset;
	int result = ask_plugins(CR_PLUGIN_HOOK__UPDATE_VMA_MAP, update_hook, path, address, *offset,
				 &new_offset, fd);

	if (result == -ENOTSUP)
		return 0;
	if (result > 0)
		*offset = new_offset;
	return min(result, 0);
}

int plugins_tell_process(unsigned hook, pid_t pid)
{
	int result = ask_plugins(hook, number_hook, pid);

	return result == -ENOTSUP ? 0 : min(result, 0);
}

int plugins_tell_forked(void)
{
	typedef int (*forked_hook)(void);
	int result = ask_plugins(CR_PLUGIN_HOOK__POST_FORKING, forked_hook);

	return result == -ENOTSUP ? 0 : min(result, 0);
}

/* ---- the end ---- */

static void call_exit(const struct plugin *plugin, int result)
{
	if (plugin->exit)
		plugin->exit(plugins.stage, min(result, 0));
	else if (plugin->old_exit)
		plugin->old_exit();
}

/* What a failed dump has written may be deleted already, with its directory: an older dump there is not the plugin's. */
void plugins_end(int result, int images)
{
	if (!result && images >= 0 && plugins.images >= 0)
		ignore(dup3(images, plugins.images, O_CLOEXEC));
	while (plugins.count) {
		struct plugin *plugin = &plugins.items[--plugins.count];

		call_exit(plugin, result);
		dlclose(plugin->library);
		free(plugin->hooks_of_old);
		free(plugin->name);
	}
	for (size_t i = 0; i < plugins.names.count; i++)
		free((char *)plugins.names.items[i]);
	free(plugins.names.items);
	free(plugins.items);
	free(plugins.directory);
	if (plugins.images >= 0)
		close(plugins.images);
	plugins = (struct loaded_plugins){ .images = -1 };
}
