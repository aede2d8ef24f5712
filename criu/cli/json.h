/*
 * json.h - writes JSON to a stream, one value at a time. Texts from images can hold any bytes; the output is always
 * valid UTF-8.
 */
#ifndef CRIU_CLI_JSON_H
#define CRIU_CLI_JSON_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

/* Begin with `{ .out = …, .is_first = true }`. */
struct json {
	FILE *out;
	unsigned depth;
	bool is_first; /* in the object or array that is open */
};

/* `key` is NULL in an array, and for the outermost value. Brackets are '{' and '}', or '[' and ']'. */
void json_open(struct json *json, const char *key, char bracket);
void json_close(struct json *json, char bracket);
void json_number(struct json *json, const char *key, uint64_t number);
void json_signed(struct json *json, const char *key, int64_t number);
void json_bool(struct json *json, const char *key, bool value);
void json_string(struct json *json, const char *key, const char *text); /* NULL is null */

#endif
