/*
 * letter_test.c - what one process writes by a function, another one gets by the same function.
 */
#include "unit.h"
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include "base/letter.h"
#include "base/memory.h"

struct pair {
	int number, more;
};

struct told {
	int first, second;
	struct pair *pairs;
	size_t pair_count;
	char word[6];
};

static void pass(struct told *told, struct letter *letter)
{
	letter_number(letter, &told->first);
	letter_array(letter, &told->pairs, &told->pair_count);
	letter_value(letter, told->word, sizeof(told->word));
	letter_number(letter, &told->second);
}

static struct told *make(size_t pairs)
{
	struct told *told = allocate(sizeof(*told));

	told->first = -1;
	told->second = 7;
	strcpy(told->word, "hello");
	for (size_t i = 0; i < pairs; i++)
		*grow(&told->pairs, &told->pair_count) = (struct pair){ i, -(int)i };
	return told;
}

static void free_told(struct told *told)
{
	free(told->pairs);
	free(told);
}

/* The reader may know an older array, and may add to the new one. */
static void arrives(void **state unused)
{
	static const size_t counts[] = { 0, 1, 2, 3, 1000 };

	for (size_t i = 0; i < array_size(counts); i++) {
		struct told *here = make(counts[i]), *there = make(5);
		struct letter written = { 0 }, read;
		int fd = memfd_create("letter", MFD_CLOEXEC);

		memset(there->word, 0, sizeof(there->word));
		there->first = there->second = 99;
		pass(here, &written);
		assert_int_equal(letter_send(&written, fd), 0);
		assert_int_equal(letter_receive(&read, fd), 0);
		pass(there, &read);
		assert_false(read.is_shorter);
		assert_int_equal(read.at, read.size);
		assert_int_equal(there->first, -1);
		assert_int_equal(there->second, 7);
		assert_string_equal(there->word, "hello");
		assert_int_equal(there->pair_count, counts[i]);
		for (size_t j = 0; j < counts[i]; j++)
			assert_memory_equal(&there->pairs[j], &here->pairs[j], sizeof(struct pair));
		grow(&there->pairs, &there->pair_count)->number = 1;
		close(fd);
		letter_free(&written);
		letter_free(&read);
		free_told(here);
		free_told(there);
	}
}

/* A letter that ends too early is noticed, wherever it ends. */
static void too_short(void **state unused)
{
	struct told *here = make(3);
	struct letter written = { 0 };

	pass(here, &written);
	for (size_t size = 0; size < written.size; size++) {
		struct letter read = { .bytes = written.bytes, .size = size, .is_read = true };
		struct told *there = make(0);

		pass(there, &read);
		assert_true(read.is_shorter);
		free_told(there);
	}
	letter_free(&written);
	free_told(here);
}

/* A process that was forked before gets it through a file that both have. */
static void to_a_child(void **state unused)
{
	int fd = memfd_create("letter", MFD_CLOEXEC), go[2], status;
	struct told *told = make(0);
	struct letter letter = { 0 };
	pid_t child;

	assert_int_equal(pipe(go), 0);
	child = fork();
	if (child == 0) {
		char byte;

		if (read(go[0], &byte, 1) != 1 || letter_receive(&letter, fd))
			_exit(1);
		pass(told, &letter);
		_exit(letter.is_shorter || told->pair_count != 1 || told->pairs[0].number != 42);
	}
	grow(&told->pairs, &told->pair_count)->number = 42;
	pass(told, &letter);
	assert_int_equal(letter_send(&letter, fd), 0);
	assert_int_equal(write(go[1], "", 1), 1);
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_int_equal(status, 0);
	letter_free(&letter);
	free_told(told);
	close(fd);
	close(go[0]);
	close(go[1]);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(arrives),
		cmocka_unit_test(too_short),
		cmocka_unit_test(to_a_child),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
