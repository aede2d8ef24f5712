/*
 * external.c - see external.h.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/distance.h"
#include "base/error.h"
#include "base/log.h"
#include "base/memory.h"
#include "model/external.h"

#define MOST_NEAREST 3

static const char *const option_names[] = {
	[EXTERNAL_SAVED] = "--external", [EXTERNAL_INHERITED] = "--inherit-fd"
};

/* Types that criu 4.2 knows, and that are refused by name. */
static const char *const later[] = { "dev", "macvlan", "mnt", "net", "netdev", "pid", "veth" };

/* ---- keys ---- */

/* Takes a number in hexadecimal, or decimal digits; `end` is what has to follow it. */
static bool take_number(const char **text, int base, char end, uint64_t *number)
{
	char *rest;

	if (!isxdigit((unsigned char)**text))
		return false;
	errno = 0;
	*number = strtoull(*text, &rest, base);
	if (errno || *rest != end)
		return false;
	*text = rest + 1;
	return true;
}

static bool parse_pair(const char *text, struct external_key *key)
{
	return take_number(&text, 16, ':', &key->numbers[0]) &&
	       take_number(&text, 16, ']', &key->numbers[1]) && !*text;
}

static bool begins_with(const char *text, const char *beginning)
{
	return !strncmp(text, beginning, strlen(beginning));
}

/* The length of TYPE in "TYPE[…"; 0: the text is a path. */
static size_t type_length(const char *text)
{
	size_t length = strcspn(text, "[:/");

	if (text[length] == ':' && text[length + 1] == '[')
		return length;
	return text[length] == '[' ? length : 0;
}

/* What is followed by an inode and "]". */
static const struct {
	const char *beginning;
	enum external_type type;
} inodes[] = {
	{ "pipe:[", EXTERNAL_PIPE },	{ "pipe[", EXTERNAL_PIPE }, { "socket:[", EXTERNAL_SOCKET },
	{ "socket[", EXTERNAL_SOCKET }, { "unix[", EXTERNAL_UNIX },
};

bool external_key_parse(const char *text, struct external_key *key)
{
	*key = (struct external_key){ 0 };
	if (begins_with(text, "file[")) {
		key->type = EXTERNAL_FILE;
		return parse_pair(text + strlen("file["), key);
	}
	if (begins_with(text, "tty[")) {
		key->type = EXTERNAL_TTY;
		return parse_pair(text + strlen("tty["), key);
	}
	for (size_t i = 0; i < array_size(inodes); i++)
		if (begins_with(text, inodes[i].beginning)) {
			const char *number = text + strlen(inodes[i].beginning);

			key->type = inodes[i].type;
			return take_number(&number, 10, ']', &key->numbers[0]) && !*number;
		}
	if (type_length(text))
		return false;
	key->type = EXTERNAL_PATH;
	key->path = text + strspn(text, "/");
	return *key->path && !begins_with(key->path, "memfd:");
}

char *external_key_text(const struct external_key *key)
{
	unsigned long long one = key->numbers[0], other = key->numbers[1];

	switch (key->type) {
	case EXTERNAL_FILE:
		return format_text("file[%llx:%llx]", one, other);
	case EXTERNAL_TTY:
		return format_text("tty[%llx:%llx]", one, other);
	case EXTERNAL_PIPE:
		return format_text("pipe:[%llu]", one);
	case EXTERNAL_SOCKET:
		return format_text("socket:[%llu]", one);
	case EXTERNAL_UNIX:
		return format_text("unix[%llu]", one);
	case EXTERNAL_PATH:
		return format_text("/%s", key->path);
	}
	return NULL;
}

static bool are_equal(const struct external_key *a, const struct external_key *b)
{
	if (a->type != b->type)
		return false;
	if (a->type == EXTERNAL_PATH)
		return !strcmp(a->path, b->path);
	return a->numbers[0] == b->numbers[0] && a->numbers[1] == b->numbers[1];
}

static uint64_t hash(enum external_option option, const struct external_key *key)
{
	uint64_t sum = index_mix(index_mix(option, key->type), key->numbers[0]);

	sum = index_mix(sum, key->numbers[1]);
	for (const char *letter = key->path; letter && *letter; letter++)
		sum = index_mix(sum, (unsigned char)*letter);
	return sum;
}

/* Keys that collide are beside each other: `hashed` becomes the place of the entry, or a free one. */
static struct external *look_up(const struct externals *externals, enum external_option option,
				const struct external_key *key, uint64_t *hashed)
{
	struct external *found;

	for (*hashed = hash(option, key); (found = index_find(&externals->by_key, *hashed)); ++*hashed)
		if (found->option == option && are_equal(&found->key, key))
			return found;
	return NULL;
}

static struct external_key copy_key(const struct external_key *key)
{
	struct external_key copy = *key;

	copy.path = key->path ? copy_text(key->path) : NULL;
	return copy;
}

/* ---- options ---- */

static int wrong_key(enum external_option option, const char *text, const char *key)
{
	const char *name = option_names[option];
	const char *first = key + strspn(key, "/");
	size_t length = type_length(key);
	autofree char *type = format_text("%.*s", (int)length, key);

	for (size_t i = 0; i < array_size(later); i++)
		if (!strcmp(type, later[i]))
			return fail(0, "%s %s: a resource of type %s is not supported yet", name, text, type);
	if (begins_with(first, "memfd:"))
		return fail(0, "%s %s: a memfd is not supported yet", name, text);
	if (option == EXTERNAL_SAVED)
		fail_advice(
			"file[MNT_ID:INODE] or tty[RDEV:DEV], with numbers in hexadecimal, or unix[INODE]");
	else
		fail_advice(
			"fd[N]: and then pipe:[INODE], socket:[INODE], /PATH, or file[MNT_ID:INODE] or tty[RDEV:DEV] with numbers in hexadecimal");
	return fail(0, "%s %s: '%s' is not the name of a resource", name, text, key);
}

/* "fd[N]:KEY" */
static int parse_descriptor(const char *text, int *fd, const char **key)
{
	const char *rest = text + strlen("fd[");
	uint64_t number;

	if (!begins_with(text, "fd[") || !isdigit((unsigned char)*rest) ||
	    !take_number(&rest, 10, ']', &number) || *rest != ':') {
		fail_advice("fd[N]:RESOURCE, where N is a number");
		return fail(0, "--inherit-fd %s: this does not begin with fd[N]:", text);
	}
	if (number > INT_MAX || fcntl(number, F_GETFD) < 0)
		return fail(0, "--inherit-fd %s: descriptor %llu is not open", text,
			    (unsigned long long)number);
	*fd = number;
	*key = rest + 1;
	return 0;
}

static bool is_type_for(enum external_option option, enum external_type type)
{
	if (option == EXTERNAL_SAVED)
		return type == EXTERNAL_FILE || type == EXTERNAL_TTY || type == EXTERNAL_UNIX;
	return type != EXTERNAL_UNIX;
}

int externals_add(struct externals *externals, enum external_option option, const char *text)
{
	struct external_key key;
	const char *name = text;
	struct external *added;
	uint64_t hashed;
	int fd = -1;
	int result = option == EXTERNAL_INHERITED ? parse_descriptor(text, &fd, &name) : 0;

	if (result)
		return result;
	if (!external_key_parse(name, &key) || !is_type_for(option, key.type))
		return wrong_key(option, text, name);
	added = look_up(externals, option, &key, &hashed);
	if (added && option == EXTERNAL_INHERITED)
		return fail(0, "--inherit-fd %s: this resource was already given by %s", text, added->text);
	if (added)
		return 0;
	added = *grow(&externals->items, &externals->count) = allocate(sizeof(*added));
	*added = (struct external){
		.option = option,
		.key = copy_key(&key),
		.text = copy_text(text),
		.fd = fd,
	};
	index_set(&externals->by_key, hashed, added);
	return 0;
}

bool externals_give(const struct externals *externals, int fd)
{
	for (size_t i = 0; i < externals->count; i++)
		if (externals->items[i]->option == EXTERNAL_INHERITED && externals->items[i]->fd == fd)
			return true;
	return false;
}

void externals_close_descriptors(struct externals *externals)
{
	for (size_t i = 0; externals && i < externals->count; i++) {
		struct external *external = externals->items[i];

		/* An entry before it may have had the same one. */
		if (external->fd > STDERR_FILENO)
			close(external->fd);
		external->fd = -1;
	}
}

void externals_free(struct externals *externals)
{
	for (size_t i = 0; i < externals->count; i++) {
		free((char *)externals->items[i]->key.path);
		free(externals->items[i]->text);
		free(externals->items[i]);
	}
	for (size_t i = 0; i < externals->missed_count; i++)
		free((char *)externals->missed[i].path);
	free(externals->items);
	free(externals->missed);
	index_free(&externals->by_key);
	*externals = (struct externals){ 0 };
}

/* ---- questions ---- */

struct external *externals_find(struct externals *externals, enum external_option option,
				const struct external_key *key)
{
	struct external *found;
	uint64_t hashed;

	if (!externals_any(externals))
		return NULL;
	found = look_up(externals, option, key, &hashed);
	if (found)
		found->is_used = true;
	else
		*grow(&externals->missed, &externals->missed_count) = copy_key(key);
	return found;
}

/* The candidates so far, the nearest first. */
struct nearest {
	char *texts[MOST_NEAREST];
	unsigned distances[MOST_NEAREST];
	size_t count;
};

/* Takes over the text. */
static void note_candidate(struct nearest *nearest, char *text, unsigned distance)
{
	size_t place = nearest->count;

	for (size_t i = 0; i < nearest->count; i++)
		if (!strcmp(nearest->texts[i], text)) {
			free(text);
			return;
		}
	if (place == MOST_NEAREST && distance >= nearest->distances[place - 1]) {
		free(text);
		return;
	}
	if (place == MOST_NEAREST)
		free(nearest->texts[--place]);
	for (; place > 0 && nearest->distances[place - 1] > distance; place--) {
		nearest->texts[place] = nearest->texts[place - 1];
		nearest->distances[place] = nearest->distances[place - 1];
	}
	nearest->texts[place] = text;
	nearest->distances[place] = distance;
	nearest->count = min(nearest->count + 1, (size_t)MOST_NEAREST);
}

char *externals_nearest(const struct externals *externals, const struct external *external)
{
	autofree char *wanted = external_key_text(&external->key);
	struct nearest nearest = { .count = 0 };
	char *all = NULL;

	for (size_t i = 0; i < externals->missed_count; i++) {
		char *text;

		if (externals->missed[i].type != external->key.type)
			continue;
		text = external_key_text(&externals->missed[i]);
		note_candidate(&nearest, text, text_distance(text, wanted));
	}
	for (size_t i = 0; i < nearest.count; i++) {
		autofree char *before = all, *text = nearest.texts[i];

		all = before ? format_text("%s, %s", before, text) : copy_text(text);
	}
	return all;
}

void externals_warn(const struct externals *externals, enum external_option option)
{
	for (size_t i = 0; externals && externals->is_complete && i < externals->count; i++) {
		const struct external *external = externals->items[i];
		autofree char *nearest = NULL;

		if (external->is_used || (external->option != option && option == EXTERNAL_SAVED))
			continue;
		if (external->option != option) {
			log_warning(
				"--external %s has no meaning for a restore, which uses --inherit-fd fd[N]:%s",
				external->text, external->text);
			continue;
		}
		nearest = externals_nearest(externals, external);
		log_warning("%s %s: no process has such a file open%s%s", option_names[option],
			    external->text, nearest ? "; the nearest are " : "", nearest ?: "");
	}
}
