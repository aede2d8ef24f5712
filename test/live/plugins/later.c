/*
 * later.c - a plugin of a version that does not exist yet.
 */
#include "criu-plugin.h"

cr_plugin_desc_t CR_PLUGIN_DESC = { .name = "later", .version = CRIU_PLUGIN_GEN_VERSION(1, 0, 0) };
