/*
 * loaded.h - the plugins that are loaded. Private to criu/plugins.
 */
#ifndef CRIU_PLUGINS_LOADED_H
#define CRIU_PLUGINS_LOADED_H

#include "plugins/plugins.h"

struct plugin {
	char *name;
	void *library; /* of dlopen() */
	void *const *hooks;
	unsigned hook_count;
	void **hooks_of_old; /* `hooks` of a plugin without a description; owned */
	void (*exit)(int stage, int ret);
	void (*old_exit)(void);
};

struct loaded_plugins {
	struct plugin *items; /* whose init() has succeeded */
	size_t count;
	enum plugin_stage stage;
	int images; /* owned; -1: no directory */
	char *directory;
	/* Dump: those that the images will need. Restore: those that they need and that are still missing. */
	struct texts names;
};

extern struct loaded_plugins plugins;

#endif
