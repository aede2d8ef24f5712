/*
 * texts.h - a list of texts: what an option was given that can be given several times. The texts belong to somebody else.
 */
#ifndef CRIU_BASE_TEXTS_H
#define CRIU_BASE_TEXTS_H

#include <stddef.h>

struct texts {
	const char **items;
	size_t count;
};

#endif
