/*
 * message.h - builds messages that protobuf_c_message_free_unpacked() can free.
 */
#ifndef CRIU_IMAGE_MESSAGE_H
#define CRIU_IMAGE_MESSAGE_H

#include "base/memory.h"
#include "image/image.h"

/*	CoreEntry *core = message_new(CoreEntry, core_entry);	*/
#define message_new(Type, type)                              \
	({                                                   \
		Type *message_made = allocate(sizeof(Type)); \
		type##__init(message_made);                  \
		message_made;                                \
	})

/*	message_set(core->tc, loginuid, 0);	an optional scalar	*/
#define message_set(message, field, value)     \
	do {                                   \
		(message)->has_##field = true; \
		(message)->field = (value);    \
	} while (0)

/*	message_array(entry, cap_inh, 2);	a repeated scalar of a fixed count	*/
#define message_array(message, field, count)                                           \
	do {                                                                           \
		(message)->n_##field = (count);                                        \
		(message)->field = allocate_array((count), sizeof(*(message)->field)); \
	} while (0)

#endif
