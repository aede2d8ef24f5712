/*
 * ip_address.h - the address of a socket of IPv4 or IPv6: with a port, as the kernel and as images have it.
 */
#ifndef CRIU_SOCKETS_IP_ADDRESS_H
#define CRIU_SOCKETS_IP_ADDRESS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "compiler.h"

union ip_address {
	struct sockaddr any;
	struct sockaddr_in four;
	struct sockaddr_in6 six;
};

static inline bool ip_address_is_six(const union ip_address *address)
{
	return address->any.sa_family == AF_INET6;
}

static inline socklen_t ip_address_size(const union ip_address *address)
{
	return ip_address_is_six(address) ? sizeof(address->six) : sizeof(address->four);
}

/* In host order. */
uint16_t ip_address_port(const union ip_address *address);
/* No address and no port: a socket that is not bound. */
bool ip_address_is_any(const union ip_address *address);
/* What its packets have: the address of IPv4 instead of ::ffff:a.b.c.d. */
union ip_address ip_address_on_wire(const union ip_address *address);

#define IP_ADDRESS_WORDS 4
/* An image has the address in words in network order: one for IPv4, four for IPv6. Returns their number. */
size_t ip_address_to_words(const union ip_address *address, uint32_t words[IP_ADDRESS_WORDS]);
/* `scope`: the index of the interface, for an address that is only valid on one. false: a wrong number of words. */
bool ip_address_from_words(union ip_address *address, int family, const uint32_t *words, size_t count,
			   uint16_t port, uint32_t scope);

#define IP_ADDRESS_NUMBER INET6_ADDRSTRLEN
/* "10.0.0.1", "fe80::1" */
const char *ip_address_number(const union ip_address *address, char text[IP_ADDRESS_NUMBER]);
#define IP_ADDRESS_TEXT 80
/* "10.0.0.1:80", "[fe80::1%2]:80" */
const char *ip_address_text(const union ip_address *address, char text[IP_ADDRESS_TEXT]);

#endif
