/*
 * unix_path_test.c - a socket is bound to a path: nothing is at the path before the end, and until it has its rights,
 * nobody else can connect to it.
 */
#include "unit.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "sockets/unix_steps.h"

static void bound(void **state unused)
{
	char directory[] = "/tmp/unix-path-XXXXXX";
	autofree char *place = NULL;
	FilePermsEntry rights = FILE_PERMS_ENTRY__INIT;
	struct unix_name name = { .target = -1 };
	struct unix_binding binding = { &name, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	struct unix_bindings bindings = { &binding, 1 };
	struct stat found;

	if (geteuid())
		skip();
	assert_non_null(mkdtemp(directory));
	place = format_text("%s/socket", directory);
	name.bytes = (const uint8_t *)place;
	name.size = strlen(place) + 1;
	name.place = copy_text(place);
	name.is_free = true;
	assert_int_equal(unix_bind_all(&bindings), 0);
	assert_int_equal(access(place, F_OK), -1);
	assert_int_equal(stat(name.file, &found), 0);
	assert_int_equal(found.st_mode, S_IFSOCK | 0700);
	rights.mode = S_IFSOCK | 0622;
	rights.uid = 1000;
	rights.gid = 1001;
	assert_int_equal(unix_finish_name(&name, &rights), 0);
	unix_publish(&name);
	assert_int_equal(stat(place, &found), 0);
	assert_int_equal(found.st_mode, S_IFSOCK | 0622);
	assert_int_equal(found.st_uid, 1000);
	assert_int_equal(found.st_gid, 1001);
	unix_forget_name(&name);
	close(binding.fd);
	assert_int_equal(unlink(place), 0);
	assert_int_equal(rmdir(directory), 0); /* nothing is left in it */
}

/* Its directories are made beside the place, and none of them stays. */
static void with_dots(void **state unused)
{
	static const char path[] = "aa/../b/c/../../d/./socket";
	char directory[] = "/tmp/unix-path-XXXXXX";
	struct unix_name name = { .bytes = (const uint8_t *)path, .size = sizeof(path), .target = -1 };
	struct unix_binding binding = { &name, socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0) };
	struct unix_bindings bindings = { &binding, 1 };

	if (geteuid())
		skip();
	assert_non_null(mkdtemp(directory));
	name.place = format_text("%s/socket", directory);
	assert_int_equal(unix_bind_all(&bindings), 0);
	unix_forget_name(&name);
	close(binding.fd);
	assert_int_equal(rmdir(directory), 0);
}

/* ---- a place that is taken ---- */

/* A listener that only a message has, which nobody has received: no process has a descriptor of it. */
static void listen_in_flight(const char *path, int pair[2])
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	char space[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = "", byte = 0;
	struct cmsghdr *control = (struct cmsghdr *)space;
	struct iovec bytes = { &byte, 1 };
	struct msghdr message = {
		.msg_iov = &bytes, .msg_iovlen = 1, .msg_control = space, .msg_controllen = sizeof(space)
	};
	int listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

	strcpy(address.sun_path, path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	*control = (struct cmsghdr){ .cmsg_level = SOL_SOCKET,
				     .cmsg_type = SCM_RIGHTS,
				     .cmsg_len = CMSG_LEN(sizeof(int)) };
	memcpy(CMSG_DATA(control), &listener, sizeof(int));
	assert_int_equal(sendmsg(pair[0], &message, 0), 1);
	close(listener);
}

static int check_place(char *path)
{
	UnixSkEntry entry = UNIX_SK_ENTRY__INIT;
	FileEntry message = { .usk = &entry };
	const struct file file = { .id = 4, .entry = &message };
	struct unix_name name = {
		.bytes = (const uint8_t *)path, .size = strlen(path) + 1, .place = path, .target = -1
	};
	struct unix_facts facts = { 0 };
	int result = unix_facts_read(&facts) ?: unix_check_place(&facts, &file, &name);

	unix_facts_free(&facts);
	return result;
}

static void end_later(int pair[2])
{
	usleep(200000);
	close(pair[0]);
	close(pair[1]);
	_exit(0);
}

/* The kernel may keep a socket for a moment when nobody has it any more. */
static void taken_for_a_moment(void **state unused)
{
	char path[] = "/tmp/unix-path-XXXXXX";
	int pair[2], listener;
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	pid_t child;

	close(mkstemp(path));
	assert_int_equal(unlink(path), 0);
	assert_int_equal(check_place(path), 0);
	listen_in_flight(path, pair);
	assert_int_equal(check_place(path), -EADDRINUSE);
	assert_non_null(strstr(failure_text(), "a process that criu cannot see already has"));
	failure_clear();
	child = fork();
	if (!child)
		end_later(pair);
	close(pair[0]);
	close(pair[1]);
	assert_int_equal(check_place(path), 0);
	waitpid(child, NULL, 0);
	assert_int_equal(unlink(path), 0);
	listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	strcpy(address.sun_path, path);
	assert_int_equal(bind(listener, (struct sockaddr *)&address, sizeof(address)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(check_place(path), -EADDRINUSE);
	assert_non_null(strstr(failure_text(), "(unix_path_test) already has"));
	failure_clear();
	close(listener);
	assert_int_equal(unlink(path), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = { cmocka_unit_test(bound), cmocka_unit_test(with_dots),
					    cmocka_unit_test(taken_for_a_moment) };

	error_init();
	return cmocka_run_group_tests(tests, NULL, NULL);
}
