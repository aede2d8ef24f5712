/*
 * task_of_two.h - a task of two threads for tests of parts; it has only credentials.
 */
#ifndef TEST_UNIT_TASK_OF_TWO_H
#define TEST_UNIT_TASK_OF_TWO_H

#include "image/message.h"
#include "model/snapshot.h"

#define PID 4711

static inline void give_capabilities(uint32_t **words, size_t *count, uint64_t set)
{
	*count = 2;
	*words = allocate_array(2, sizeof(**words));
	(*words)[0] = set;
	(*words)[1] = set >> 32;
}

static inline CredsEntry *new_credentials(void)
{
	CredsEntry *creds = message_new(CredsEntry, creds_entry);

	give_capabilities(&creds->cap_eff, &creds->n_cap_eff, 0);
	give_capabilities(&creds->cap_prm, &creds->n_cap_prm, 0);
	give_capabilities(&creds->cap_inh, &creds->n_cap_inh, 0);
	give_capabilities(&creds->cap_bnd, &creds->n_cap_bnd, ~0ULL);
	give_capabilities(&creds->cap_amb, &creds->n_cap_amb, 0);
	return creds;
}

static inline struct task *new_task(void)
{
	struct task *task = allocate(sizeof(*task));

	task_add_objects(task);
	task->pid = PID;
	task->here = PID;
	task_make_threads(task, 2);
	task->cores = allocate_array(2, sizeof(*task->cores));
	for (int i = 0; i < 2; i++) {
		task->threads[i].here = task->threads[i].tid = PID + i;
		task->cores[i] = message_new(CoreEntry, core_entry);
		task->cores[i]->thread_core = message_new(ThreadCoreEntry, thread_core_entry);
		task->cores[i]->thread_info = message_new(ThreadInfoX86, thread_info_x86);
		task->cores[i]->thread_core->creds = new_credentials();
	}
	task->cores[0]->tc = message_new(TaskCoreEntry, task_core_entry);
	task->cores[0]->tc->comm = copy_text("test");
	return task;
}

static inline void free_task(struct task *task)
{
	for (int i = 0; i < 2; i++)
		image_free(task->cores[i]);
	free(task->cores);
	task_free_threads(task);
	task_drop_objects(task);
	free(task);
}

static inline PosixTimerEntry *add_timer(struct task *task, uint32_t id, int clock, uint64_t left,
					 uint64_t interval)
{
	TaskCoreEntry *core = task->cores[0]->tc;
	PosixTimerEntry *timer = message_new(PosixTimerEntry, posix_timer_entry);

	if (!core->timers) {
		core->timers = message_new(TaskTimersEntry, task_timers_entry);
		core->timers->real = message_new(ItimerEntry, itimer_entry);
		core->timers->virt = message_new(ItimerEntry, itimer_entry);
		core->timers->prof = message_new(ItimerEntry, itimer_entry);
	}
	timer->it_id = id;
	timer->clock_id = clock;
	timer->si_signo = SIGUSR1;
	timer->vnsec = left;
	timer->insec = interval;
	*grow(&core->timers->posix, &core->timers->n_posix) = timer;
	return timer;
}

#endif
