/*
 * unix_identity.c - restore: makes what the kernel remembers the maker of.
 *
 * SO_PEERCRED names the process that has called socketpair() (at both ends), listen() (at the client's end) or
 * connect() (at the accepted end), by its process id, its effective ids and its groups, as they were then. That process
 * may be gone long since. So a child of criu with this id makes the call, and is gone before the tree is born
 * (kernel/place.h). The root exists already: it makes its own calls, in a thread of its own.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "kernel/place.h"
#include "sockets/unix_steps.h"

struct unix_work *unix_work_add(struct unix_works *works, enum unix_work_kind kind, const UnixPeerEntry *peer)
{
	struct unix_work *work = grow(&works->items, &works->count);

	*work = (struct unix_work){ .kind = kind,
				    .uid = -1,
				    .gid = -1,
				    .fd = -1,
				    .listener = -1,
				    .made = { -1, -1 },
				    .number = works->count };
	if (!peer)
		return work;
	work->pid = peer->pid;
	work->uid = peer->uid;
	work->gid = peer->gid;
	work->groups = works->group_count;
	work->group_count = peer->n_groups;
	for (size_t i = 0; i < peer->n_groups; i++)
		*grow(&works->groups, &works->group_count) = peer->groups[i];
	return work;
}

void unix_works_free(struct unix_works *works)
{
	free(works->items);
	free(works->groups);
	*works = (struct unix_works){ 0 };
}

/* ---- the calls ---- */

static int make_pair(struct unix_work *work)
{
	if (socketpair(AF_UNIX, work->type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, work->made) < 0)
		return fail(errno, "cannot create a pair of unix sockets");
	return 0;
}

/* Does not wait for room in the queue of a listener, which nobody would make. 0, or the error. */
static int connect_at_once(const struct unix_work *work)
{
	int flags = fcntl(work->fd, F_GETFL), error = 0;

	if (!(flags & O_NONBLOCK))
		ignore(fcntl(work->fd, F_SETFL, flags | O_NONBLOCK));
	if (connect(work->fd, (struct sockaddr *)&work->address, work->address_size) < 0)
		error = errno;
	if (!(flags & O_NONBLOCK))
		ignore(fcntl(work->fd, F_SETFL, flags));
	return error;
}

static int connect_and_accept(struct unix_work *work)
{
	int error = connect_at_once(work);

	if (error == EAGAIN) {
		fail_advice("raise net.core.somaxconn");
		return fail(EAGAIN,
			    "cannot connect a unix socket: too many connections wait for the listener");
	}
	if (error)
		return fail(error, "cannot connect a unix socket");
	if (work->listener < 0)
		return 0;
	work->made[0] = accept4(work->listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	return work->made[0] < 0 ? fail(errno, "cannot accept a connection of unix sockets") : 0;
}

static int do_work(struct unix_work *work)
{
	switch (work->kind) {
	case UNIX_PAIR:
		return make_pair(work);
	case UNIX_LISTEN:
		return listen(work->fd, work->backlog) < 0 ? fail(errno, "a unix socket cannot listen") : 0;
	case UNIX_CONNECT:
		return connect_and_accept(work);
	}
	return -EINVAL;
}

/* Neighbours with the same maker. */
struct batch {
	struct unix_work *works;
	const gid_t *groups;
	size_t count;
};

static int do_batch(void *argument)
{
	struct batch *batch = argument;
	int result = 0;

	for (size_t i = 0; !result && i < batch->count; i++)
		result = do_work(&batch->works[i]);
	return result;
}

/* The ids belong to the child: it is privileged in no other way than they are. */
static int do_as(const struct batch *batch, pid_t pid)
{
	const struct unix_work *first = batch->works;
	struct place place = PLACE_HERE;
	const gid_t none = 0;

	place.pid = pid;
	place.uid = first->uid;
	place.gid = first->gid;
	place.groups = first->uid == (uid_t)-1 ? NULL : (batch->groups ?: &none) + first->groups;
	place.group_count = first->group_count;
	return run_in(&place, do_batch, (void *)batch);
}

/* ---- by the root ---- */

/*
 * What the root gets: a batch, its works and its groups, one behind the other. Nothing leads to memory that only criu
 * has written.
 */
struct errand {
	size_t count, group_count;
	struct unix_work works[];
};

static int do_errand(void *bytes)
{
	struct errand *errand = bytes;
	const struct batch batch = { errand->works, (const gid_t *)(errand->works + errand->count),
				     errand->count };

	return do_as(&batch, getpid());
}

static int do_by_root(struct snapshot *snapshot, const struct batch *batch)
{
	const struct unix_work *first = batch->works;
	size_t works = batch->count * sizeof(*first), groups = first->group_count * sizeof(gid_t);
	autofree struct errand *errand = allocate(sizeof(*errand) + works + groups);
	int result;

	errand->count = batch->count;
	memcpy(errand->works, batch->works, works);
	for (size_t i = 0; i < batch->count; i++)
		errand->works[i].groups = 0;
	if (groups)
		memcpy((char *)errand->works + works, batch->groups + first->groups, groups);
	result = snapshot->ask_root(snapshot, do_errand, errand, sizeof(*errand) + works + groups);
	for (size_t i = 0; i < batch->count; i++)
		memcpy(batch->works[i].made, errand->works[i].made, sizeof(errand->works[i].made));
	return result;
}

/* ---- all ---- */

static bool have_same_maker(const struct unix_works *works, const struct unix_work *a,
			    const struct unix_work *b)
{
	if (a->pid != b->pid || a->uid != b->uid || a->gid != b->gid || a->group_count != b->group_count)
		return false;
	return !a->group_count ||
	       !memcmp(works->groups + a->groups, works->groups + b->groups, a->group_count * sizeof(gid_t));
}

static int compare_works(const void *left, const void *right, void *argument)
{
	const struct unix_works *works = argument;
	const struct unix_work *a = left, *b = right;
	int order;

	if (a->pid != b->pid)
		return a->pid < b->pid ? -1 : 1;
	if (a->uid != b->uid)
		return a->uid < b->uid ? -1 : 1;
	if (a->gid != b->gid)
		return a->gid < b->gid ? -1 : 1;
	if (a->group_count != b->group_count)
		return a->group_count < b->group_count ? -1 : 1;
	order = a->group_count ? memcmp(works->groups + a->groups, works->groups + b->groups,
					a->group_count * sizeof(gid_t)) :
				 0;
	return order ? order : a->number < b->number ? -1 : 1;
}

void unix_works_sort(struct unix_works *works)
{
	if (works->count)
		qsort_r(works->items, works->count, sizeof(*works->items), compare_works, works);
}

/* If the id is not free, other processes do not see who has made it: it has criu's id. */
static int do_for(struct snapshot *snapshot, const struct batch *batch)
{
	pid_t pid = batch->works->pid;
	struct attempt attempt;
	int result;

	if (pid == snapshot->root->pid)
		return do_by_root(snapshot, batch);
	attempt_begin(&attempt);
	result = do_as(batch, pid);
	if (result != -EEXIST || !pid) {
		attempt_count(&attempt);
		return result;
	}
	attempt_forget(&attempt);
	log_warning(
		"process id %d is in use: to the peer of a unix socket that process %d has made, SO_PEERCRED names another one",
		pid, pid);
	return do_as(batch, 0);
}

int unix_works_do(struct snapshot *snapshot, struct unix_works *works)
{
	int result = 0;

	for (size_t first = 0, next; !result && first < works->count; first = next) {
		struct batch batch = { works->items + first, works->groups, 0 };

		for (next = first + 1;
		     next < works->count && have_same_maker(works, batch.works, &works->items[next]); next++)
			;
		batch.count = next - first;
		result = do_for(snapshot, &batch);
	}
	return result;
}
