/*
 * ip_address.c - see ip_address.h.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include "sockets/ip_address.h"

uint16_t ip_address_port(const union ip_address *address)
{
	return ntohs(ip_address_is_six(address) ? address->six.sin6_port : address->four.sin_port);
}

bool ip_address_is_any(const union ip_address *address)
{
	if (ip_address_port(address))
		return false;
	return ip_address_is_six(address) ? IN6_IS_ADDR_UNSPECIFIED(&address->six.sin6_addr) :
					    address->four.sin_addr.s_addr == htonl(INADDR_ANY);
}

union ip_address ip_address_on_wire(const union ip_address *address)
{
	union ip_address four = { .four = { .sin_family = AF_INET } };

	if (!ip_address_is_six(address) || !IN6_IS_ADDR_V4MAPPED(&address->six.sin6_addr))
		return *address;
	four.four.sin_port = address->six.sin6_port;
	memcpy(&four.four.sin_addr, &address->six.sin6_addr.s6_addr32[3], sizeof(four.four.sin_addr));
	return four;
}

size_t ip_address_to_words(const union ip_address *address, uint32_t words[IP_ADDRESS_WORDS])
{
	if (ip_address_is_six(address)) {
		memcpy(words, &address->six.sin6_addr, sizeof(address->six.sin6_addr));
		return IP_ADDRESS_WORDS;
	}
	words[0] = address->four.sin_addr.s_addr;
	return 1;
}

bool ip_address_from_words(union ip_address *address, int family, const uint32_t *words, size_t count,
			   uint16_t port, uint32_t scope)
{
	*address = (union ip_address){ .six = { 0 } };
	address->any.sa_family = family;
	if (family == AF_INET && count == 1) {
		address->four.sin_port = htons(port);
		address->four.sin_addr.s_addr = words[0];
		return true;
	}
	if (family != AF_INET6 || count != IP_ADDRESS_WORDS)
		return false;
	address->six.sin6_port = htons(port);
	memcpy(&address->six.sin6_addr, words, sizeof(address->six.sin6_addr));
	address->six.sin6_scope_id = scope;
	return true;
}

const char *ip_address_number(const union ip_address *address, char text[IP_ADDRESS_NUMBER])
{
	const void *number = ip_address_is_six(address) ? (const void *)&address->six.sin6_addr :
							  &address->four.sin_addr;

	return inet_ntop(address->any.sa_family, number, text, IP_ADDRESS_NUMBER) ?: "?";
}

const char *ip_address_text(const union ip_address *address, char text[IP_ADDRESS_TEXT])
{
	char number[IP_ADDRESS_NUMBER];
	unsigned port = ip_address_port(address);

	ip_address_number(address, number);
	if (!ip_address_is_six(address))
		snprintf(text, IP_ADDRESS_TEXT, "%s:%u", number, port);
	else if (address->six.sin6_scope_id)
		snprintf(text, IP_ADDRESS_TEXT, "[%s%%%u]:%u", number, address->six.sin6_scope_id, port);
	else
		snprintf(text, IP_ADDRESS_TEXT, "[%s]:%u", number, port);
	return text;
}
