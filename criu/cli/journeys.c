/*
 * journeys.c - `criu dump`, `criu pre-dump`, `criu restore`: turns the options into a request (model/request.h) and
 * opens its directories.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>
#include "base/descriptors.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/scripts.h"
#include "cli/commands.h"
#include "cli/directories.h"
#include "cli/holder.h"
#include "dump/dump.h"
#include "image/image.h"
#include "model/request.h"
#include "restore/restore.h"

#define USUAL_DESCRIPTORS 1024 /* a dump of 300 processes has as many */

/* The log is opened after the directory is locked: until then it may be the log of another criu. */
static int open_directories(struct request *request, const struct options *options, enum image_use use)
{
	int result =
		image_store_open_directory(&request->images, images_path(options), use == IMAGES_ARE_WRITTEN) ?:
			image_store_lock(request->images, use);

	if (result)
		return result;
	request->work_directory = options->work_dir ?
					  open(options->work_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC) :
					  fcntl(image_store_directory(request->images), F_DUPFD_CLOEXEC, 0);
	if (request->work_directory < 0)
		return fail(errno, "cannot open the work directory %s", work_path(options));
	result = log_open(request->work_directory, options->log_file);
	if (!result && options->not_held)
		log_warning("--mmap-images: the memory of the images is not shared: %s", options->not_held);
	return result || use == IMAGES_ARE_READ ? result : dump_open_previous(request);
}

void request_fill(struct request *request, const struct options *options)
{
	*request = (struct request){
		.work_directory = -1,
		.previous_directory = -1,
		.root = options->tree,
		.policy = {
			.shell_job = options->shell_job,
			.external_sockets = options->external_sockets,
			.keeps_connections = options->tcp_established,
			.closes_connections = options->tcp_close,
			.skips_in_flight = options->skip_in_flight,
			.network_lock = options->network_lock,
			.file_locks = options->file_locks,
			.leave_running = options->leave_running,
			.leave_stopped = options->leave_stopped,
			.validates_by_size = options->validate_by_size,
			.skips_mode_check = options->skip_file_rwx_check,
			.forces_irmap = options->force_irmap,
			.irmap_paths = options->irmap_scan_path,
			.evades_devices = options->evasive_devices,
			.grown = options->grown_files,
			.makes_links = options->link_remap,
			.ghost_limit = options->ghost_limit,
		},
		.auto_dedup = options->auto_dedup,
		.display_stats = options->display_stats,
		.ignores_cgroups = options->ignores_cgroups,
		.cgroup_roots = options->cgroup_roots,
		.externals = options->externals,
		.plugins = options->libdir,
		.previous = options->prev_images_dir,
		.tracker = options->track_mem,
		.splices = options->pre_dump_mode && !strcmp(options->pre_dump_mode, "splice"),
		.twin = options->twin,
		.compression = options->compression,
		.pre_rounds = options->pre_rounds,
		.held = options->held,
		.timeout = options->timeout,
		.max_chain = options->max_chain,
		.is_detached = options->restore_detached,
		.is_sibling = options->restore_sibling,
		.command = options->exec_cmd ? options->arguments : NULL,
		.pidfile = options->pidfile,
		.status_fd = options->status_fd,
		.logs_per_process = options->log_pid,
	};
}

static int run_journey(const struct options *options, enum image_use use,
		       int (*journey)(const struct request *))
{
	struct request request;
	struct scripts scripts = { .paths = options->action_scripts };
	int result;

	request_fill(&request, options);
	descriptors_unlimit(&request.descriptors);
	descriptors_reserve(USUAL_DESCRIPTORS);
	result = open_directories(&request, options, use);
	if (!result) {
		scripts.images = image_store_directory(request.images);
		scripts.work = request.work_directory;
		scripts.descriptors = request.descriptors;
		if (scripts.paths.count)
			moments_add(&request.moments,
				    &(struct receiver){ "the action scripts", scripts_receive, &scripts });
		result = journey(&request);
	}
	moments_free(&request.moments);
	image_store_close(request.images);
	if (request.work_directory >= 0)
		close(request.work_directory);
	if (request.previous_directory >= 0)
		close(request.previous_directory);
	return result;
}

int command_dump(const struct options *options)
{
	return run_journey(options, IMAGES_ARE_WRITTEN, dump_run);
}

int command_pre_dump(const struct options *options)
{
	return run_journey(options, IMAGES_ARE_WRITTEN, pre_dump_run);
}

int command_restore(const struct options *options)
{
	if (options->mmap_images && !options->held)
		return holder_restore(options);
	return run_journey(options, IMAGES_ARE_READ, restore_run);
}
