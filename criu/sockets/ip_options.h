/*
 * ip_options.h - options of the levels IP, IPv6, TCP, UDP, ICMP and raw, which a socket has beside those of every socket
 * (options.h): dump reads them, restore sets them.
 */
#ifndef CRIU_SOCKETS_IP_OPTIONS_H
#define CRIU_SOCKETS_IP_OPTIONS_H

#include "compiler.h"
#include "model/snapshot.h"

/* What new sockets have, for each family, type and protocol that has occurred. */
struct ip_usual_options {
	struct ip_usual_socket **items;
	size_t count;
};
void ip_usual_options_free(struct ip_usual_options *usual);

/*
 * Reads the options of the socket `fd` into its message, of which family, type, proto and state are set. An option that
 * has no field in the format of 4.2 is saved if a new socket has another value. Changes nothing.
 */
int ip_options_read(int fd, InetSkEntry *entry, struct ip_usual_options *usual) must_check;

/* Checks the message of an image. It fails with "files.img: file 7: …". */
int ip_options_check(const struct file *file, const InetSkEntry *entry) must_check;

/* On the new socket, before it has an address; and what must wait until it is connected and its queues are filled. */
int ip_options_set(const struct file *file, int fd, const InetSkEntry *entry) must_check;
int ip_options_finish(const struct file *file, int fd, const InetSkEntry *entry) must_check;

#endif
