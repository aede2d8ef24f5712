/*
 * plugins.h - plugins (include/criu-plugin.h): shared libraries that save and restore what criu cannot.
 *
 * They are loaded for one journey. The functions that criu exports for them have no argument that could lead to the
 * journey, so what is known of plugins is global.
 *
 * A hook returns -ENOTSUP for what is not its own; then the next plugin is asked. Here, -ENOTSUP means that no plugin has
 * taken it, and nothing is recorded. Any other error is, and names the plugin.
 */
#ifndef CRIU_PLUGINS_PLUGINS_H
#define CRIU_PLUGINS_PLUGINS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/types.h>
#include "base/texts.h"
#include "compiler.h"

/* The stages and hooks have the numbers of criu-plugin.h. */
enum plugin_stage { PLUGINS_DUMP, PLUGINS_PRE_DUMP, PLUGINS_RESTORE };

/*
 * Loads all plugins of a directory, and calls their init(). NULL: the usual one, which need not exist. `images`: the
 * directory of the images, which they may ask for. plugins_end() must follow, also after a failure.
 */
int plugins_load(const char *directory, enum plugin_stage stage, int images) must_check;
/* Calls exit() of all plugins that have begun. `result`: of the journey; `images`: the directory, if it has succeeded. */
void plugins_end(int result, int images);
/* Do any of them have this hook (CR_PLUGIN_HOOK__…)? */
bool plugins_have(unsigned hook);

/* ---- dump ---- */

int plugins_dump_file(int fd, uint32_t id) must_check;
int plugins_dump_unix_socket(int fd, uint32_t id) must_check;
/* Will a plugin restore mappings of this device? `fd`: of the mapped file. */
int plugins_handle_mapping(int fd, const struct stat *device) must_check;
/* Those that images need for their restore, by add_inventory_plugin(). */
const struct texts *plugins_needed(void);
/* What plugins have written into the directory of the images reaches the disk. */
int plugins_sync(void) must_check;

/* ---- restore ---- */

/* Before plugins_load(): what the images need; the names are copied. */
void plugins_expect(char *const *names, size_t count);
/* Fails if one was not taken by its plugin, in init(). */
int plugins_check_expected(void) must_check;
/* A descriptor. */
int plugins_restore_file(uint32_t id) must_check;
int plugins_restore_unix_socket(uint32_t id) must_check;
/*
 * Where, in which file, to map what was at `offset` of `path`. *fd stays as it is if the path leads to the file. Also
 * returns 0 if no plugin has taken it.
 */
int plugins_update_mapping(const char *path, uint64_t address, uint64_t *offset, int *fd) must_check;

/* ---- both ---- */

/* A hook that is for each process: PAUSE_DEVICES, CHECKPOINT_DEVICES, RESUME_DEVICES_LATE. 0 if no plugin takes it. */
int plugins_tell_process(unsigned hook, pid_t pid) must_check;
int plugins_tell_forked(void) must_check; /* POST_FORKING */

#endif
