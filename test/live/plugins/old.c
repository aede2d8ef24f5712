/*
 * old.c - a plugin of the old kind (0.1), which criu knows by the names of its functions.
 */
#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

int cr_plugin_init(void);
void cr_plugin_fini(void);
int cr_plugin_dump_file(int fd, int id);
int cr_plugin_restore_file(int id);

int cr_plugin_init(void)
{
	return 0;
}

void cr_plugin_fini(void)
{
}

int cr_plugin_dump_file(int fd, int id)
{
	return fd >= 0 && id ? 0 : -ENOTSUP;
}

int cr_plugin_restore_file(int id)
{
	return id ? open("/dev/null", O_RDWR) : -ENOTSUP;
}
