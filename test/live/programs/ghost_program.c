/*
 * ghost_program.c - a program whose executable and library are deleted, or replaced as by an upgrade, while it runs.
 *
 * usage: ghost_program DIRECTORY deleted|replaced
 *
 * It executes a copy of itself, which loads a copy of a library.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "live.h"

static char program[4096], library[4096], link_text[4096];
static double (*cosine)(double);
static double value;
static unsigned long sum;

static void copy(const char *from, const char *to)
{
	int in = open(from, O_RDONLY), out = open(to, O_WRONLY | O_CREAT | O_TRUNC, 0755);
	struct stat facts;

	live_check(in >= 0 && out >= 0 && fstat(in, &facts) == 0, "%s: %m", from);
	for (off_t at = 0; at < facts.st_size;)
		live_check(sendfile(out, in, &at, facts.st_size - at) > 0, "sendfile: %m");
	close(in);
	close(out);
}

static unsigned long sum_of_executable(void)
{
	int fd = open("/proc/self/exe", O_RDONLY);
	unsigned char bytes[4096];
	unsigned long result = 0;
	ssize_t length;

	live_check(fd >= 0, "/proc/self/exe: %m");
	while ((length = read(fd, bytes, sizeof(bytes))) > 0)
		for (ssize_t i = 0; i < length; i++)
			result = result * 31 + bytes[i];
	close(fd);
	return result;
}

static void read_link(char *text)
{
	ssize_t length = readlink("/proc/self/exe", text, 4095);

	text[length > 0 ? length : 0] = '\0';
}

static void lose(const char *path, bool is_replaced)
{
	char other[4200];

	if (!is_replaced) {
		live_check(unlink(path) == 0, "unlink: %m");
		return;
	}
	snprintf(other, sizeof(other), "%s.new", path);
	copy("/dev/null", other);
	live_check(rename(other, path) == 0, "rename: %m");
}

static void check(bool is_replaced)
{
	char text[4096];
	struct stat found;

	live_check(cosine(1) == value, "the library has changed");
	live_check(sum_of_executable() == sum, "the executable has changed");
	read_link(text);
	live_check(is_replaced ? !!strstr(text, " (deleted)") : !strcmp(text, link_text),
		   "the executable is %s", text);
	live_check(is_replaced ? stat(program, &found) == 0 && !found.st_size : access(program, F_OK) < 0,
		   "%s is another file", program);
}

int main(int argc, char **argv)
{
	bool is_replaced = !strcmp(argv[2], "replaced");
	void *handle = dlopen("libm.so.6", RTLD_NOW), *mine;
	struct link_map *map;

	if (argc < 4) {
		snprintf(program, sizeof(program), "%s/program", argv[1]);
		copy("/proc/self/exe", program);
		execl(program, program, argv[1], argv[2], "copy", NULL);
		return 1;
	}
	live_begin(argc, argv);
	live_path(program, sizeof(program), "program");
	live_path(library, sizeof(library), "library.so");
	live_check(handle && dlinfo(handle, RTLD_DI_LINKMAP, &map) == 0, "dlopen: %s", dlerror());
	copy(map->l_name, library);
	mine = dlopen(library, RTLD_NOW | RTLD_LOCAL);
	live_check(mine, "dlopen: %s", dlerror());
	cosine = (double (*)(double))dlsym(mine, "cos");
	value = cosine(1);
	lose(program, is_replaced);
	lose(library, is_replaced);
	sum = sum_of_executable();
	read_link(link_text);
	live_ready();
	while (!live_stopping()) {
		check(is_replaced);
		live_sleep(0.01);
	}
	check(is_replaced);
	return live_finish();
}
