/*
 * texts.h - a list of texts: the arguments of an option that can be given several times. It does not own the texts.
 */
#ifndef CRIU_BASE_TEXTS_H
#define CRIU_BASE_TEXTS_H

#include <stddef.h>

struct texts {
	const char **items;
	size_t count;
};

#endif
