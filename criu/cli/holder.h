/*
 * holder.h - `criu restore --mmap-images`: a process that holds the memory of a directory of images, for many restores.
 *
 *	criu restore --mmap-images            the holder (criu hold)         a child of it
 *	  connects; there is no holder:
 *	  makes one, and waits        ---->   loads the memory, listens
 *	  connects, asks              ---->   forks                  ---->   becomes like the one who asks (adopt.c),
 *	  waits                                                              restores as `criu restore` does,
 *	  exits with the same code    <----------------------------------    and tells the exit code
 *
 * The holder listens at a socket in the directory. It keeps the images locked. It ends when nobody has asked for
 * HOLDER_IDLE seconds, or when the socket is removed.
 */
#ifndef CRIU_CLI_HOLDER_H
#define CRIU_CLI_HOLDER_H

#include <sched.h>
#include <stdbool.h>
#include <sys/resource.h>
#include <sys/types.h>
#include "cli/options.h"
#include "compiler.h"

#define HOLDER_SOCKET ".mmap-images" /* beside the images */
#define HOLDER_IDLE   600	     /* seconds */

/* The caller asks by one byte. What the child of the holder answers: one byte, and what belongs to it. */
enum holder_answer {
	HOLDER_REFUSES = 'n', /* a text: why it cannot restore for the caller */
	HOLDER_BEGINS = 'b',
	HOLDER_ENDS = 'e', /* one byte: the exit code */
};

/* Restores by a holder, or, if there can be none, without one. */
int holder_restore(const struct options *options) must_check;

/*
 * holder.c. Never returns in the holder, and in its children. 0: it listens; -errno, recorded: there is none.
 */
int holder_begin(const struct options *options) must_check;
/* The address of a socket in a directory. */
struct sockaddr_un;
void holder_address(int directory, const char *name, struct sockaddr_un *address);

/* adopt.c. What a process takes over from the caller. To be freed with caller_free(). */
struct caller {
	int pidfd, proc; /* /proc/PID */
	int policy, nice;
	bool has_cpus;
	cpu_set_t cpus;
	struct rlimit limits[RLIM_NLIMITS];
	char **arguments, **environment;
	size_t argument_count;
	char *argument_text, *environment_text; /* they point into these */
};
int caller_look(struct caller *caller, pid_t pid) must_check;
void caller_free(struct caller *caller);
/* So that a child of the calling process is in the pid namespace where children of the caller are. */
int caller_enter_pids(const struct caller *caller) must_check;
/*
 * In the child: credentials that differ are an error, all else becomes as it is in the caller: namespaces, cgroups,
 * root and working directory, descriptors, limits, signals. `connection` gets another number. 0 or -errno, recorded.
 */
int caller_adopt(const struct caller *caller, int *connection) must_check;

#endif
