/*
 * list.h - a circular list whose links live inside its members.
 *
 * Freestanding. A head is a link that belongs to no member; an empty list is a head that points to itself.
 */
#ifndef LIST_H
#define LIST_H

#include "compiler.h"

struct list {
	struct list *next, *previous;
};

static inline void list_init(struct list *head)
{
	head->next = head->previous = head;
}

static inline int list_is_empty(const struct list *head)
{
	return head->next == head;
}

static inline void list_insert(struct list *link, struct list *before)
{
	link->next = before;
	link->previous = before->previous;
	before->previous->next = link;
	before->previous = link;
}

/* Appends, so a list is in order of insertion. */
static inline void list_add(struct list *link, struct list *head)
{
	list_insert(link, head);
}

static inline void list_remove(struct list *link)
{
	link->previous->next = link->next;
	link->next->previous = link->previous;
	list_init(link);
}

#define list_entry(link, type, member) container_of(link, type, member)

#define list_for_each(entry, head, member)                                                           \
	for (entry = list_entry((head)->next, __typeof__(*entry), member); &entry->member != (head); \
	     entry = list_entry(entry->member.next, __typeof__(*entry), member))

#define list_for_each_reverse(entry, head, member)                                                       \
	for (entry = list_entry((head)->previous, __typeof__(*entry), member); &entry->member != (head); \
	     entry = list_entry(entry->member.previous, __typeof__(*entry), member))

/* As list_for_each(), for a body that may remove or free `entry`. */
#define list_for_each_safe(entry, following, head, member)                          \
	for (entry = list_entry((head)->next, __typeof__(*entry), member),          \
	    following = list_entry(entry->member.next, __typeof__(*entry), member); \
	     &entry->member != (head);                                              \
	     entry = following, following = list_entry(following->member.next, __typeof__(*entry), member))

#endif
