/*
 * options.h - the options that every socket has (SO_*), for all families: dump reads them, restore sets them.
 *
 *	dump     describe()   socket_options_read()
 *	restore  check()      socket_options_check()
 *	         open()       socket_options_set()        nothing is connected or sent yet
 *	         join()       socket_options_finish()     it is connected and its queue is filled
 *
 * Between the last two, the socket has the largest buffers that criu may give it, no filter, no time limit, and
 * nothing that would change what it receives (SO_PASSCRED and its like).
 */
#ifndef CRIU_SOCKETS_OPTIONS_H
#define CRIU_SOCKETS_OPTIONS_H

#include "compiler.h"
#include "model/snapshot.h"
#include "sk-opts.pb-c.h"

/*
 * Reads the options of the socket `fd`, a descriptor that criu has borrowed (files_borrow()), into a new message that
 * protobuf_c_message_free_unpacked() can free. Changes nothing, and does not read SO_ERROR, which would clear it.
 * Refuses what cannot be saved. *options is set in any case, so that the message of the kind is complete after a
 * refusal, too.
 */
int socket_options_read(const struct file *file, int fd, SkOptsEntry **options) must_check;

/* The same for many sockets, some of them at once. It borrows them itself. */
struct options_reading {
	const struct file *file;
	SkOptsEntry **options;
	int result;
};
void socket_options_read_all(struct options_reading *readings, size_t count);

/*
 * There are nearly 50 options. So those of all files of a kind that are known when the first is described are read
 * together. Files are described in the order in which they are known. `place`: where the message of a file has them.
 */
struct socket_options_ahead {
	struct options_reading *items;
	size_t count, described;
};
struct file_list;
int socket_options_read_next(struct socket_options_ahead *ahead, const struct file_list *files,
			     const struct file *file, int fd, SkOptsEntry **(*place)(const struct file *))
	must_check;
void socket_options_ahead_free(struct socket_options_ahead *ahead);

/* Checks the message of an image. It fails with "files.img: file 7: …". */
int socket_options_check(const struct file *file, const SkOptsEntry *options) must_check;

/* Set them on the new socket `fd`, in two steps: see above. Messages name file->id. */
int socket_options_set(const struct file *file, int fd, const SkOptsEntry *options) must_check;
int socket_options_finish(const struct file *file, int fd, const SkOptsEntry *options) must_check;

#endif
