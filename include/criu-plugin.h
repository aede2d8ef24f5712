/*
 * criu-plugin.h - what a plugin needs to know of criu. Documentation/plugins.md is its manual.
 *
 * A plugin is a shared library in the directory of plugins (--libdir). criu loads it for each dump, pre-dump and
 * restore, and calls its hooks for what criu itself cannot save. The names and the binary interface are those of CRIU
 * 4.2: one plugin serves both.
 */
#ifndef CRIU_PLUGIN_H
#define CRIU_PLUGIN_H

#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#define CRIU_PLUGIN_VERSION_MAJOR    0
#define CRIU_PLUGIN_VERSION_MINOR    2
#define CRIU_PLUGIN_VERSION_SUBLEVEL 0

/* 0.2.0 is 0x200. 0.1.0 is the version of plugins without a description: criu looks for their hooks by name. */
#define CRIU_PLUGIN_GEN_VERSION(major, minor, sublevel) (((major) << 16) + ((minor) << 8) + (sublevel))
#define CRIU_PLUGIN_VERSION                                                           \
	CRIU_PLUGIN_GEN_VERSION(CRIU_PLUGIN_VERSION_MAJOR, CRIU_PLUGIN_VERSION_MINOR, \
				CRIU_PLUGIN_VERSION_SUBLEVEL)
#define CRIU_PLUGIN_VERSION_OLD CRIU_PLUGIN_GEN_VERSION(0, 1, 0)

/* What criu is about to do: the argument of init() and exit(). */
enum {
	CR_PLUGIN_STAGE__DUMP,
	CR_PLUGIN_STAGE__PRE_DUMP,
	CR_PLUGIN_STAGE__RESTORE,

	CR_PLUGIN_STAGE_MAX,
};

/* The hooks. Each type below has the same name in lower case. */
enum {
	CR_PLUGIN_HOOK__DUMP_UNIX_SK = 0,
	CR_PLUGIN_HOOK__RESTORE_UNIX_SK = 1,
	CR_PLUGIN_HOOK__DUMP_EXT_FILE = 2,
	CR_PLUGIN_HOOK__RESTORE_EXT_FILE = 3,
	CR_PLUGIN_HOOK__DUMP_EXT_MOUNT = 4,
	CR_PLUGIN_HOOK__RESTORE_EXT_MOUNT = 5,
	CR_PLUGIN_HOOK__DUMP_EXT_LINK = 6,
	CR_PLUGIN_HOOK__HANDLE_DEVICE_VMA = 7,
	CR_PLUGIN_HOOK__UPDATE_VMA_MAP = 8,
	CR_PLUGIN_HOOK__RESUME_DEVICES_LATE = 9,
	CR_PLUGIN_HOOK__PAUSE_DEVICES = 10,
	CR_PLUGIN_HOOK__CHECKPOINT_DEVICES = 11,
	CR_PLUGIN_HOOK__POST_FORKING = 12,

	CR_PLUGIN_HOOK__MAX,
};

/* The description of a plugin, which it exports as CR_PLUGIN_DESC. A hook that it does not have is NULL. */
typedef struct {
	const char *name;
	int (*init)(int stage);
	void (*exit)(int stage, int ret); /* ret: 0, or less than 0 if the dump or the restore has failed */
	unsigned int version;
	unsigned int max_hooks;
	void *hooks[CR_PLUGIN_HOOK__MAX];
} cr_plugin_desc_t;

extern cr_plugin_desc_t CR_PLUGIN_DESC;

#define CR_PLUGIN_REGISTER(plugin_name, plugin_init, plugin_exit) \
	cr_plugin_desc_t CR_PLUGIN_DESC = {                       \
		.name = plugin_name,                              \
		.init = plugin_init,                              \
		.exit = plugin_exit,                              \
		.version = CRIU_PLUGIN_VERSION,                   \
		.max_hooks = CR_PLUGIN_HOOK__MAX,                 \
	};

/* One for each hook of the plugin. */
#define CR_PLUGIN_REGISTER_HOOK(hook, function)                                           \
	static void __attribute__((constructor)) cr_plugin_register_hook_##function(void) \
	{                                                                                 \
		CR_PLUGIN_DESC.hooks[hook] = (void *)function;                            \
	}

/* ---- what criu exports for plugins ---- */

/* The directory of the images. criu closes it. */
extern int criu_get_image_dir(void);

enum {
	CRIU_LOG_MSG = 0,
	CRIU_LOG_ERROR = 1,
	CRIU_LOG_WARN = 2,
	CRIU_LOG_INFO = 3,
	CRIU_LOG_DEBUG = 4,
};
/* A line of criu's log. */
extern void print_on_level(unsigned int level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Dump: these images can be restored only with this plugin. */
extern int add_inventory_plugin(const char *name);
/*
 * Restore, in init(): 1 if the images need the plugin (and then it is no longer missing), 0 if they do not. `length`:
 * of the name.
 */
extern int check_and_remove_inventory_plugin(const char *name, size_t length);

#endif
