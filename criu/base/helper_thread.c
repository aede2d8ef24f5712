/*
 * helper_thread.c - a second thread for work that can be halved. See helper_thread.h.
 */
#include <stdbool.h>
#include <stdlib.h>
#include "base/error.h"
#include "base/helper_thread.h"
#include "base/memory.h"
#include "base/thread.h"

struct helper_thread {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	void (*work)(void *argument); /* NULL: nothing to be done */
	void *argument;
	struct attempt *attempt; /* the attempt of the thread it works for */
	bool is_ending;
};

static void *serve_owner(void *argument)
{
	struct helper_thread *helper = argument;

	pthread_mutex_lock(&helper->lock);
	for (;;) {
		while (!helper->work && !helper->is_ending)
			pthread_cond_wait(&helper->changed, &helper->lock);
		if (!helper->work)
			break;
		pthread_mutex_unlock(&helper->lock);
		attempt_join(helper->attempt);
		helper->work(helper->argument);
		pthread_mutex_lock(&helper->lock);
		helper->work = NULL;
		pthread_cond_broadcast(&helper->changed);
	}
	pthread_mutex_unlock(&helper->lock);
	return NULL;
}

struct helper_thread *helper_thread_start(void)
{
	struct helper_thread *helper = allocate(sizeof(*helper));

	pthread_mutex_init(&helper->lock, NULL);
	pthread_cond_init(&helper->changed, NULL);
	if (!thread_start(&helper->thread, serve_owner, helper))
		return helper;
	free(helper);
	return NULL;
}

void helper_thread_run(struct helper_thread *helper, void (*work)(void *argument), void *argument)
{
	pthread_mutex_lock(&helper->lock);
	helper->work = work;
	helper->argument = argument;
	helper->attempt = attempt_current();
	pthread_cond_broadcast(&helper->changed);
	pthread_mutex_unlock(&helper->lock);
}

void helper_thread_wait(struct helper_thread *helper)
{
	pthread_mutex_lock(&helper->lock);
	while (helper->work)
		pthread_cond_wait(&helper->changed, &helper->lock);
	pthread_mutex_unlock(&helper->lock);
}

void helper_thread_end(struct helper_thread *helper)
{
	if (!helper)
		return;
	pthread_mutex_lock(&helper->lock);
	helper->is_ending = true;
	pthread_cond_broadcast(&helper->changed);
	pthread_mutex_unlock(&helper->lock);
	pthread_join(helper->thread, NULL);
	pthread_mutex_destroy(&helper->lock);
	pthread_cond_destroy(&helper->changed);
	free(helper);
}

struct shared_work {
	size_t count, at_a_time;
	size_t taken; /* so many are done, or are being done; atomic */
	void (*work)(void *context, size_t i);
	void *context;
};

/* A few at a time, until none is left: so a thread that gets no processor keeps the other waiting for a few only. */
static void *take_shares(void *argument)
{
	struct shared_work *shared = argument;
	size_t first;

	while ((first = __atomic_fetch_add(&shared->taken, shared->at_a_time, __ATOMIC_RELAXED)) <
	       shared->count)
		for (size_t i = first; i < min(first + shared->at_a_time, shared->count); i++)
			shared->work(shared->context, i);
	return NULL;
}

void share_work(size_t count, size_t worth, void (*work)(void *context, size_t i), void *context)
{
	struct shared_work shared = {
		.count = count,
		.at_a_time = max(count / 128, (size_t)1),
		.work = work,
		.context = context,
	};

	threads_run(count >= worth ? 1 : 0, take_shares, &shared);
}
