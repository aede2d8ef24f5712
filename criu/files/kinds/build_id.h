/*
 * build_id.h - the build id of an ELF file: distinguishes two builds of a program that have the same size.
 */
#ifndef CRIU_FILES_BUILD_ID_H
#define CRIU_FILES_BUILD_ID_H

#include <stddef.h>
#include <stdint.h>

#define BUILD_ID_WORDS 8 /* SHA-1 takes 5 */

/*
 * Returns the number of 32-bit words in `words`; 0 if the file has no build id (or is no ELF file of this word size).
 */
size_t build_id_read(int fd, uint32_t words[BUILD_ID_WORDS]);

#endif
