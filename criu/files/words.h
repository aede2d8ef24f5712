/*
 * words.h - what a file is, in words, for whoever has to be told that it cannot be saved.
 */
#ifndef CRIU_FILES_WORDS_H
#define CRIU_FILES_WORDS_H

#include "compiler.h"
#include "files/seen.h"

/*
 * refuse(), by name and by what it is:
 *	process 1 (a): file 3 (socket:[7]) is a unix stream socket, listening, /run/x, which is not supported yet
 * Of what has a path and is nothing special, `why`:
 *	process 1 (a): its working directory (/tmp/x (deleted)): deleted files are not supported yet
 */
int refuse_file(const struct seen_file *seen, const char *why) must_check;

/* "a unix stream socket, listening, /run/x"; to be freed */
char *socket_in_words(int fd);

#endif
