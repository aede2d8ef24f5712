/*
 * directories.h - which directories a command works in.
 */
#ifndef CRIU_CLI_DIRECTORIES_H
#define CRIU_CLI_DIRECTORIES_H

#include "cli/options.h"

/* --images-dir, or the current directory */
static inline const char *images_path(const struct options *options)
{
	return options->images_dir ? options->images_dir : ".";
}

/* The directory that follows a command, or that of the images. */
static inline const char *named_path(const struct options *options)
{
	return options->argument_count ? options->arguments[0] : images_path(options);
}

/* --work-dir, or the directory of the images */
static inline const char *work_path(const struct options *options)
{
	return options->work_dir ? options->work_dir : images_path(options);
}

#endif
