/*
 * moments.c - the table of moments, and how receivers are told of one. See moments.h.
 */
#include <errno.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "base/moments.h"

static const struct {
	const char *name;
	const char *too_late; /* what has happened already, for the warning; NULL: a receiver can stop it */
} rows[MOMENTS] = {
	[MOMENT_PRE_DUMP] = { "pre-dump", NULL },
	[MOMENT_POST_DUMP] = { "post-dump", NULL },
	[MOMENT_PRE_RESTORE] = { "pre-restore", NULL },
	[MOMENT_POST_RESTORE] = { "post-restore", NULL },
	[MOMENT_PRE_RESUME] = { "pre-resume", NULL },
	[MOMENT_POST_RESUME] = { "post-resume", "the processes run" },
};

void moments_add(struct moments *moments, const struct receiver *receiver)
{
	*grow(&moments->receivers, &moments->count) = *receiver;
}

void moments_free(struct moments *moments)
{
	free(moments->receivers);
	*moments = (struct moments){ 0 };
}

static int tell_receiver(const struct receiver *receiver, const struct news *news)
{
	int result = receiver->receive(receiver->context, news);

	if (result > 0)
		return fail(0, "%s at %s returned %d", receiver->name, news->name, result);
	if (result < 0 && !has_failed())
		return fail(-result, "%s failed at %s", receiver->name, news->name);
	return result;
}

static void tell_too_late(const struct receiver *receiver, const struct news *news, const char *too_late)
{
	struct attempt attempt;

	attempt_begin(&attempt);
	if (tell_receiver(receiver, news))
		log_warning("%s, but %s", too_late, failure_text());
	attempt_forget(&attempt);
}

int moments_send(const struct moments *moments, enum moment moment, pid_t root)
{
	const struct news news = { .moment = moment, .name = rows[moment].name, .root = root };
	const char *too_late = rows[moment].too_late;
	int result = 0;

	for (size_t i = 0; !result && i < moments->count; i++)
		if (too_late)
			tell_too_late(&moments->receivers[i], &news, too_late);
		else
			result = tell_receiver(&moments->receivers[i], &news);
	return result;
}
