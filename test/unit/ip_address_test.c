/*
 * ip_address_test.c - addresses as images, packets and messages have them.
 */
#include "unit.h"
#include <arpa/inet.h>
#include <string.h>
#include <sys/socket.h>
#include "sockets/ip_address.h"

static union ip_address parse(int family, const char *number, uint16_t port)
{
	union ip_address address = { .six = { 0 } };

	address.any.sa_family = family;
	address.four.sin_port = htons(port);
	assert_int_equal(
		inet_pton(family, number,
			  family == AF_INET ? (void *)&address.four.sin_addr : &address.six.sin6_addr),
		1);
	return address;
}

static void words(void **state unused)
{
	union ip_address six = parse(AF_INET6, "fe80::1:2", 80), four = parse(AF_INET, "10.1.2.3", 4711),
			 back;
	uint32_t made[IP_ADDRESS_WORDS];

	assert_int_equal(ip_address_to_words(&four, made), 1);
	assert_int_equal(made[0], htonl(0x0a010203));
	assert_true(ip_address_from_words(&back, AF_INET, made, 1, 4711, 0));
	assert_memory_equal(&back, &four, sizeof(four.four));
	assert_false(ip_address_from_words(&back, AF_INET, made, 4, 4711, 0));
	assert_int_equal(ip_address_to_words(&six, made), IP_ADDRESS_WORDS);
	assert_int_equal(made[0], htonl(0xfe800000));
	assert_true(ip_address_from_words(&back, AF_INET6, made, IP_ADDRESS_WORDS, 80, 3));
	assert_int_equal(back.six.sin6_scope_id, 3);
	assert_false(ip_address_from_words(&back, AF_INET6, made, 1, 80, 0));
	assert_false(ip_address_from_words(&back, AF_UNIX, made, 1, 80, 0));
}

static void on_wire(void **state unused)
{
	union ip_address mapped = parse(AF_INET6, "::ffff:10.1.2.3", 80), six = parse(AF_INET6, "::1", 80);
	union ip_address wire = ip_address_on_wire(&mapped);

	assert_int_equal(wire.any.sa_family, AF_INET);
	assert_int_equal(wire.four.sin_addr.s_addr, htonl(0x0a010203));
	assert_int_equal(ip_address_port(&wire), 80);
	wire = ip_address_on_wire(&six);
	assert_memory_equal(&wire, &six, sizeof(six.six));
}

static void text(void **state unused)
{
	union ip_address four = parse(AF_INET, "10.1.2.3", 80), six = parse(AF_INET6, "fe80::1", 80);
	char written[IP_ADDRESS_TEXT];

	assert_string_equal(ip_address_text(&four, written), "10.1.2.3:80");
	assert_string_equal(ip_address_text(&six, written), "[fe80::1]:80");
	six.six.sin6_scope_id = 2;
	assert_string_equal(ip_address_text(&six, written), "[fe80::1%2]:80");
}

static void any(void **state unused)
{
	union ip_address four = parse(AF_INET, "0.0.0.0", 0), six = parse(AF_INET6, "::", 0);

	assert_true(ip_address_is_any(&four));
	assert_true(ip_address_is_any(&six));
	four = parse(AF_INET, "0.0.0.0", 1);
	six = parse(AF_INET6, "::1", 0);
	assert_false(ip_address_is_any(&four));
	assert_false(ip_address_is_any(&six));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(words),
		cmocka_unit_test(on_wire),
		cmocka_unit_test(text),
		cmocka_unit_test(any),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
