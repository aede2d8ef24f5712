/*
 * network_lock.c - see network_lock.h.
 *
 * The chains come first at their hooks, before those of others. A set has the connections, with the address of the other
 * end first; so a packet costs one look-up, however many there are.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <nftables/libnftables.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "sockets/network_lock.h"

#define NAME_SIZE 64
#define KEPT_NAME "CRIU-%.21s"

struct network_lock {
	struct nft_ctx *owner; /* its netlink socket owns the table … */
	int descriptor;	       /* … which is this one; -1: not known */
	char name[NAME_SIZE];
	struct network_connection *connections;
	size_t count;
};

/* ---- commands ---- */

static struct nft_ctx *open_context(void)
{
	struct nft_ctx *context = nft_ctx_new(NFT_CTX_DEFAULT);

	if (context)
		nft_ctx_buffer_error(context);
	else
		fail(ENOMEM, "cannot use nftables");
	return context;
}

/* The first line that nftables says; it ends with the text of the kernel's error. */
static int explain(struct nft_ctx *context, const char *what)
{
	const char *said = nft_ctx_get_error_buffer(context) ?: "";
	int length = (int)strcspn(said, "\n"), error = errno ?: EIO;

	fail(error, "cannot %s by nftables%s%.*s", what, length ? ": " : "", length, said);
	fail_advice("--network-lock skip, if no packet can arrive meanwhile");
	return -error;
}

static int run(struct nft_ctx *context, const char *what, const char *commands)
{
	errno = 0;
	return nft_run_cmd_from_buffer(context, commands) ? explain(context, what) : 0;
}

/* `other`, `own`: "s" or "d", where a packet has the address of either end: as its source or destination. */
static void write_rules(FILE *out, const char *table, const char *chain, const char *other, const char *own)
{
	static const char *const families[][2] = { { "ip", "four" }, { "ip6", "six" } };

	fprintf(out, "add chain inet %s %s { type filter hook %s priority -400; }\n", table, chain, chain);
	fprintf(out, "add rule inet %s %s meta mark %#x accept\n", table, chain, NETWORK_LOCK_MARK);
	for (size_t i = 0; i < array_size(families); i++)
		fprintf(out, "add rule inet %s %s %s %saddr . tcp %sport . %s %saddr . tcp %sport @%s drop\n",
			table, chain, families[i][0], other, other, families[i][0], own, own, families[i][1]);
}

static void write_table(FILE *out, const char *table, bool is_owned)
{
	fprintf(out, "add table inet %s%s\n", table, is_owned ? " { flags owner; }" : "");
	fprintf(out, "add set inet %s four { type ipv4_addr . inet_service . ipv4_addr . inet_service; }\n",
		table);
	fprintf(out, "add set inet %s six { type ipv6_addr . inet_service . ipv6_addr . inet_service; }\n",
		table);
	write_rules(out, table, "input", "s", "d");
	write_rules(out, table, "output", "d", "s");
}

/* "10.0.0.2 . 4711 . 10.0.0.1 . 80" */
static void write_connection(FILE *out, const struct network_connection *connection)
{
	union ip_address other = ip_address_on_wire(&connection->other),
			 own = ip_address_on_wire(&connection->own);
	char number[IP_ADDRESS_NUMBER];

	fprintf(out, "%s . %u . ", ip_address_number(&other, number), ip_address_port(&other));
	fprintf(out, "%s . %u", ip_address_number(&own, number), ip_address_port(&own));
}

static void write_family(FILE *out, const char *table, const char *set, bool is_six,
			 const struct network_connection *connections, size_t count)
{
	bool is_first = true;

	for (size_t i = 0; i < count; i++) {
		union ip_address own = ip_address_on_wire(&connections[i].own);

		if (ip_address_is_six(&own) != is_six)
			continue;
		if (is_first)
			fprintf(out, "add element inet %s %s { ", table, set);
		else
			fputs(", ", out);
		write_connection(out, &connections[i]);
		is_first = false;
	}
	if (!is_first)
		fputs(" }\n", out);
}

static void write_connections(FILE *out, const char *table, const struct network_connection *connections,
			      size_t count)
{
	write_family(out, table, "four", false, connections, count);
	write_family(out, table, "six", true, connections, count);
}

/* ---- the lock ---- */

/* Nobody else has a table of this name. */
static int choose_name(char name[NAME_SIZE])
{
	uint64_t number;

	if (getrandom(&number, sizeof(number), 0) != sizeof(number))
		return fail(errno, "cannot get a random number");
	snprintf(name, NAME_SIZE, "criu-%016llx", (unsigned long long)number);
	return 0;
}

static bool is_netfilter_socket(int fd)
{
	int domain = 0, protocol = 0;
	socklen_t size = sizeof(int);

	return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0 && domain == AF_NETLINK &&
	       getsockopt(fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &size) == 0 &&
	       protocol == NETLINK_NETFILTER;
}

static int make_lock(struct network_lock **lock)
{
	int next = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0); /* the number of what is opened next */

	if (next >= 0)
		close(next);
	*lock = allocate(sizeof(**lock));
	(*lock)->owner = open_context();
	(*lock)->descriptor = is_netfilter_socket(next) ? next : -1;
	return (*lock)->owner ? choose_name((*lock)->name) : -ENOMEM;
}

static int add(struct network_lock *lock, const struct network_connection *connections, size_t count)
{
	autofree char *commands = NULL;
	size_t size;
	FILE *out = open_memstream(&commands, &size);

	if (!lock->count)
		write_table(out, lock->name, true);
	write_connections(out, lock->name, connections, count);
	fclose(out);
	return run(lock->owner, "block the packets of TCP connections", commands);
}

int network_lock_add(struct network_lock **lock, enum network_lock_method method,
		     const struct network_connection *connections, size_t count)
{
	int result;

	if (!count || method == NETWORK_LOCK_SKIP)
		return 0;
	result = *lock ? 0 : make_lock(lock);
	result = result ?: add(*lock, connections, count);
	if (result)
		return result;
	(*lock)->connections = reallocate_array((*lock)->connections, (*lock)->count + count,
						sizeof(*connections));
	memcpy((*lock)->connections + (*lock)->count, connections, count * sizeof(*connections));
	(*lock)->count += count;
	return 0;
}

int network_lock_keep(struct network_lock *lock, const char *run_id)
{
	struct nft_ctx *context = open_context();
	autofree char *commands = NULL;
	char name[NAME_SIZE];
	size_t size;
	FILE *out = open_memstream(&commands, &size);
	int result;

	snprintf(name, sizeof(name), KEPT_NAME, run_id);
	write_table(out, name, false);
	write_connections(out, name, lock->connections, lock->count);
	fclose(out);
	if (!context)
		return -ENOMEM;
	result = run(context, "block the packets of TCP connections until they are restored", commands);
	nft_ctx_free(context);
	return result;
}

void network_lock_remove_kept(const char *run_id)
{
	struct nft_ctx *context = run_id[0] ? attempted(open_context()) : NULL;
	autofree char *commands = format_text("delete table inet " KEPT_NAME "\n", run_id);

	if (!context)
		return;
	errno = 0;
	if (nft_run_cmd_from_buffer(context, commands) && errno != ENOENT)
		log_warning("the table " KEPT_NAME
			    " of nftables, which blocks packets, cannot be removed: %s",
			    run_id, nft_ctx_get_error_buffer(context));
	nft_ctx_free(context);
}

int network_lock_descriptor(const struct network_lock *lock)
{
	return lock ? lock->descriptor : -1;
}

/* The kernel removes the table together with the socket that owns it. */
void network_lock_end(struct network_lock *lock)
{
	if (!lock)
		return;
	if (lock->owner)
		nft_ctx_free(lock->owner);
	free(lock->connections);
	free(lock);
}
