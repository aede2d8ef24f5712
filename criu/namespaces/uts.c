/*
 * uts.c - uts namespaces: the name of the host, and its NIS domain.
 */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>
#include "base/error.h"
#include "base/memory.h"
#include "image/message.h"
#include "kernel/place.h"
#include "namespaces/kind.h"
#include "utsns.pb-c.h"

#define LONGEST 64 /* the kernel's __NEW_UTS_LEN */

static int describe(struct namespace *namespace)
{
	UtsnsEntry *entry = message_new(UtsnsEntry, utsns_entry);
	struct utsname names;

	namespace->entry = &entry->base;
	if (uname(&names) < 0)
		return fail(errno, "cannot read the host name");
	entry->nodename = copy_text(names.nodename);
	entry->domainname = copy_text(names.domainname);
	return 0;
}

static int check(const struct namespace *namespace)
{
	const UtsnsEntry *entry = (const UtsnsEntry *)namespace->entry;

	if (strlen(entry->nodename) > LONGEST || strlen(entry->domainname) > LONGEST)
		return fail(EINVAL, "utsns-%u.img holds a name of more than %d bytes", namespace->id,
			    LONGEST);
	return 0;
}

static int fill(const struct namespace *namespace)
{
	const UtsnsEntry *entry = (const UtsnsEntry *)namespace->entry;

	if (sethostname(entry->nodename, strlen(entry->nodename)) < 0)
		return fail(errno, "cannot set the host name to %s", entry->nodename);
	if (setdomainname(entry->domainname, strlen(entry->domainname)) < 0)
		return fail(errno, "cannot set the domain name to %s", entry->domainname);
	return 0;
}

const struct namespace_kind namespace_kind_uts = {
	.name = "uts",
	.clone_flag = CLONE_NEWUTS,
	.place = offsetof(struct place, uts),
	.image = IMAGE_UTSNS,
	.message = &utsns_entry__descriptor,
	.describe = describe,
	.check = check,
	.fill = fill,
};
