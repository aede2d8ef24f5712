/*
 * aside.c - a second thread for work that can be halved. See aside.h.
 */
#include <stdbool.h>
#include <stdlib.h>
#include "base/aside.h"
#include "base/error.h"
#include "base/memory.h"
#include "base/thread.h"

struct aside {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under the lock */
	void (*work)(void *argument); /* NULL: nothing to be done */
	void *argument;
	struct attempt *attempt; /* of whom it works for */
	bool is_ending;
};

static void *serve(void *argument)
{
	struct aside *aside = argument;

	pthread_mutex_lock(&aside->lock);
	for (;;) {
		while (!aside->work && !aside->is_ending)
			pthread_cond_wait(&aside->changed, &aside->lock);
		if (!aside->work)
			break;
		pthread_mutex_unlock(&aside->lock);
		attempt_join(aside->attempt);
		aside->work(aside->argument);
		pthread_mutex_lock(&aside->lock);
		aside->work = NULL;
		pthread_cond_broadcast(&aside->changed);
	}
	pthread_mutex_unlock(&aside->lock);
	return NULL;
}

struct aside *aside_start(void)
{
	struct aside *aside = allocate(sizeof(*aside));

	pthread_mutex_init(&aside->lock, NULL);
	pthread_cond_init(&aside->changed, NULL);
	if (!thread_start(&aside->thread, serve, aside))
		return aside;
	free(aside);
	return NULL;
}

void aside_do(struct aside *aside, void (*work)(void *argument), void *argument)
{
	pthread_mutex_lock(&aside->lock);
	aside->work = work;
	aside->argument = argument;
	aside->attempt = attempt_current();
	pthread_cond_broadcast(&aside->changed);
	pthread_mutex_unlock(&aside->lock);
}

void aside_wait(struct aside *aside)
{
	pthread_mutex_lock(&aside->lock);
	while (aside->work)
		pthread_cond_wait(&aside->changed, &aside->lock);
	pthread_mutex_unlock(&aside->lock);
}

void aside_end(struct aside *aside)
{
	if (!aside)
		return;
	pthread_mutex_lock(&aside->lock);
	aside->is_ending = true;
	pthread_cond_broadcast(&aside->changed);
	pthread_mutex_unlock(&aside->lock);
	pthread_join(aside->thread, NULL);
	pthread_mutex_destroy(&aside->lock);
	pthread_cond_destroy(&aside->changed);
	free(aside);
}
