/*
 * log.c - a plugin that logs all calls, to the file in $PLUGIN_LOG, and does what the environment says:
 *
 *	PLUGIN_INIT=-5            init() returns this
 *	PLUGIN_DUMP_EXT_FILE=-5   so does this hook; without it, each is -ENOTSUP
 *	PLUGIN_NEEDED=1           the images need this plugin
 *	PLUGIN_OPEN=PATH          RESTORE_EXT_FILE opens this
 *	PLUGIN_SOCKET=PATH        RESTORE_UNIX_SK connects to this
 *	PLUGIN_FILE=NAME          it writes this file beside the images, and exit() removes it after a failure
 *	PLUGIN_INTERRUPT=1        criu gets SIGINT when it has stopped the processes
 *
 * Processes are named by what they are: criu is the one that has called init().
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>
#include "criu-plugin.h"

#define NAME "log"

static pid_t criu;

static int answer(const char *what)
{
	char variable[64];
	const char *value;

	snprintf(variable, sizeof(variable), "PLUGIN_%s", what);
	value = getenv(variable);
	return value ? atoi(value) : -ENOTSUP;
}

static void __attribute__((format(printf, 1, 2))) say(const char *format, ...)
{
	int fd = open(getenv("PLUGIN_LOG") ?: "/dev/null", O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
	char line[512];
	va_list arguments;

	va_start(arguments, format);
	vsnprintf(line, sizeof(line), format, arguments);
	va_end(arguments);
	dprintf(fd, "%s: %s\n", getpid() == criu ? "criu" : "process", line);
	close(fd);
}

static const char *link_of(int fd)
{
	static char link[256];
	char path[64];
	ssize_t length;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	length = readlink(path, link, sizeof(link) - 1);
	link[length > 0 ? length : 0] = '\0';
	return link;
}

static void write_file(const char *name)
{
	int fd = openat(criu_get_image_dir(), name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd < 0)
		say("cannot create %s: %m", name);
	else
		close(fd);
}

static int begin(int stage)
{
	int result = getenv("PLUGIN_INIT") ? answer("INIT") : 0;

	criu = getpid();
	say("init %d", stage);
	if (stage == CR_PLUGIN_STAGE__RESTORE)
		say("needed: %d", check_and_remove_inventory_plugin(NAME, strlen(NAME)));
	else if (getenv("PLUGIN_NEEDED"))
		say("needed: %d", add_inventory_plugin(NAME));
	if (getenv("PLUGIN_FILE") && stage == CR_PLUGIN_STAGE__DUMP)
		write_file(getenv("PLUGIN_FILE"));
	print_on_level(CRIU_LOG_WARN, "a line of the plugin log\n");
	return result;
}

static void end(int stage, int ret)
{
	const char *name = getenv("PLUGIN_FILE");

	if (name && ret < 0 && unlinkat(criu_get_image_dir(), name, 0) < 0 && errno != ENOENT)
		say("cannot remove %s: %m", name);
	if (name && ret >= 0 && faccessat(criu_get_image_dir(), name, F_OK, 0) < 0)
		say("%s is not there: %m", name);
	say("exit %d %s", stage, ret < 0 ? "failed" : "done");
}

#define HOOK(name, function, parameters, ...) \
	static int function parameters        \
	{                                     \
		say(#name " " __VA_ARGS__);   \
		return answer(#name);         \
	}                                     \
	CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__##name, function)

CR_PLUGIN_REGISTER(NAME, begin, end)
HOOK(DUMP_UNIX_SK, dump_socket, (int fd, int id), "%s, %d", link_of(fd), id)
HOOK(DUMP_EXT_FILE, dump_file, (int fd, int id), "%s, %s", link_of(fd), id ? "with an id" : "without")
HOOK(HANDLE_DEVICE_VMA, handle_mapping, (int fd, const struct stat *device), "%s %o", link_of(fd),
     device->st_mode)
HOOK(UPDATE_VMA_MAP, update_mapping,
     (const char *path, uint64_t at, uint64_t offset, uint64_t *new_offset, int *fd), "%s %d at %#llx %d %d",
     path, at != 0, (unsigned long long)offset, new_offset != NULL, *fd)
HOOK(RESUME_DEVICES_LATE, resume_devices, (int pid), "%d", pid)
HOOK(PAUSE_DEVICES, pause_devices, (int pid), "%d", pid)
HOOK(POST_FORKING, forked, (void), "")

static int restore_file(int id)
{
	const char *path = getenv("PLUGIN_OPEN");
	int fd = path ? open(path, O_RDWR) : answer("RESTORE_EXT_FILE");

	say("RESTORE_EXT_FILE %s", id ? "with an id" : "without");
	return fd < 0 && path ? -errno : fd;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_EXT_FILE, restore_file)

static int checkpoint_devices(int pid)
{
	say("CHECKPOINT_DEVICES %d", pid);
	if (getenv("PLUGIN_INTERRUPT"))
		kill(getpid(), SIGINT);
	return answer("CHECKPOINT_DEVICES");
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__CHECKPOINT_DEVICES, checkpoint_devices)

static int connect_to(const char *path)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? -errno : fd;
}

static int restore_socket(int id)
{
	const char *path = getenv("PLUGIN_SOCKET");
	int fd = path ? connect_to(path) : answer("RESTORE_UNIX_SK");

	say("RESTORE_UNIX_SK %d", id);
	return fd;
}
CR_PLUGIN_REGISTER_HOOK(CR_PLUGIN_HOOK__RESTORE_UNIX_SK, restore_socket)
