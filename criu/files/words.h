/*
 * words.h - describes a file in words, for a message that it cannot be saved.
 */
#ifndef CRIU_FILES_WORDS_H
#define CRIU_FILES_WORDS_H

#include "compiler.h"
#include "files/seen.h"

/*
 * refuse() with a description of the file:
 *	process 1 (a): file 3 (socket:[7]) is a unix stream socket, listening, /run/x, which is not supported yet
 * For an ordinary file with a path, `why` is the reason:
 *	process 1 (a): its working directory (/tmp/x (deleted)): deleted files are not supported yet
 */
int refuse_file(const struct seen_file *seen, const char *why) must_check;

/*
 * What a file system of the kernel's own holds: "a POSIX message queue". NULL: another file system. *remedy: what the user
 * can do, or NULL.
 */
const char *file_system_in_words(const struct seen_file *seen, const char **remedy);

/* "a unix stream socket, listening, /run/x"; to be freed */
char *socket_in_words(int fd);
/* "route"; NULL: criu has no word for it */
const char *netlink_protocol_word(uint32_t protocol);

#endif
