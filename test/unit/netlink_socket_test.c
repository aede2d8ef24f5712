/*
 * netlink_socket_test.c - netlink sockets in images: forged ones are errors that name the file; and what belongs to a
 * port.
 */
#include "unit.h"
#include <linux/netlink.h>
#include <string.h>
#include <sys/socket.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "image/message.h"
#include "sockets/netlink_socket.h"

static struct snapshot snapshot;
static struct file *file;
static NetlinkSkEntry *entry;

static int begin(void **state unused)
{
	failure_clear();
	log_level = 0;
	snapshot_init(&snapshot);
	file = snapshot_add_file(&snapshot, 7);
	file->entry = message_new(FileEntry, file_entry);
	file->entry->type = FD_TYPES__NETLINKSK;
	file->entry->id = 7;
	entry = file->entry->nlsk = message_new(NetlinkSkEntry, netlink_sk_entry);
	entry->id = 7;
	entry->fown = message_new(FownEntry, fown_entry);
	entry->opts = message_new(SkOptsEntry, sk_opts_entry);
	entry->state = NETLINK_NEW;
	file_set_kind(&snapshot, file, &file_kind_netlink);
	return 0;
}

static int end(void **state unused)
{
	snapshot_free(&snapshot);
	return 0;
}

static void fails(const char *words)
{
	assert_true(netlink_check(&snapshot, file) < 0);
	if (!strstr(failure_text(), words))
		fail_msg("%s: not %s", failure_text(), words);
	failure_clear();
}

static void good_one(void **state unused)
{
	assert_int_equal(netlink_check(&snapshot, file), 0);
	entry->portid = 0xffffff01;
	entry->state = NETLINK_CONNECTED;
	message_array(entry, groups, 2);
	entry->groups[0] = 1;
	entry->groups[1] = 1; /* 33 */
	assert_int_equal(netlink_check(&snapshot, file), 0);
}

static void forged(void **state unused)
{
	message_set(entry, type, SOCK_STREAM);
	fails("file 7 is a netlink socket: its type");
	entry->type = SOCK_DGRAM;
	entry->protocol = 77;
	fails("no such protocol");
	entry->protocol = NETLINK_ROUTE;
	entry->dst_portid = 4;
	fails("its connection");
	entry->portid = 4;
	entry->dst_group = 33;
	fails("its connection");
	entry->dst_group = 0;
	message_array(entry, switched_on, 1);
	entry->switched_on[0] = NETLINK_ADD_MEMBERSHIP;
	fails("an option that criu does not know");
}

static void lacking(void **state unused)
{
	entry->protocol = MAX_LINKS - 1;
	fails("file 7 is a netlink socket of a protocol that this kernel lacks (protocol 31)");
	entry->protocol = NETLINK_ROUTE;
	message_array(entry, groups, 20);
	entry->groups[19] = 1U << 31;
	fails("netlink socket (route): cannot join its group 640");
}

static void port_in_use(void **state unused)
{
	const struct sockaddr_nl address = { .nl_family = AF_NETLINK, .nl_pid = 0xffffff02 };
	autoclose int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);

	assert_int_equal(bind(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
	entry->portid = address.nl_pid;
	fails("(route): another socket has its port 4294967042");
}

static void named_groups(void **state unused)
{
	NetlinkGroupEntry *named = message_new(NetlinkGroupEntry, netlink_group_entry);

	named->group = 16;
	named->number = 16;
	named->family = copy_text("nlctrl");
	named->name = copy_text("notify");
	*grow(&entry->generic_groups, &entry->n_generic_groups) = named;
	message_array(entry, groups, 1);
	fails("the name of a group");
	entry->groups[0] = 1 << 15;
	fails("the name of a group");
	entry->protocol = NETLINK_GENERIC;
	assert_int_equal(netlink_check(&snapshot, file), 0);
	named->name[0] = 'N';
	fails("this kernel has no group Notify of the family nlctrl");
}

static void found_names(void **state unused)
{
	entry->protocol = NETLINK_GENERIC;
	message_array(entry, groups, 1);
	entry->groups[0] = 1 << 15;
	assert_int_equal(netlink_name_groups(entry), 0);
	assert_int_equal(entry->n_generic_groups, 1);
	assert_string_equal(entry->generic_groups[0]->family, "nlctrl");
	assert_string_equal(entry->generic_groups[0]->name, "notify");
	assert_int_equal(entry->generic_groups[0]->group, 16);
}

/* As /proc/net/netfilter/nfnetlink_queue has it. */
static void ports_in_text(void **state unused)
{
	const char *text = "    7   4711     0 2 65531     0     0        0  1\n"
			   "   12 -4097      0 2 65531     0     0        0  1\n"
			   "   13   99     0 2 65531     0     0        0  1\n";

	assert_true(netlink_text_has_port(text, 4711));
	assert_true(netlink_text_has_port(text, 99));
	assert_false(netlink_text_has_port(text, 7));
	assert_false(netlink_text_has_port(text, 12));
	assert_false(netlink_text_has_port("", 7));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(good_one, begin, end),
		cmocka_unit_test_setup_teardown(forged, begin, end),
		cmocka_unit_test_setup_teardown(lacking, begin, end),
		cmocka_unit_test_setup_teardown(port_in_use, begin, end),
		cmocka_unit_test_setup_teardown(named_groups, begin, end),
		cmocka_unit_test_setup_teardown(found_names, begin, end),
		cmocka_unit_test(ports_in_text),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
