/*
 * json.c - writes indented JSON. See json.h.
 */
#include <inttypes.h>
#include <string.h>
#include "cli/json.h"
#include "cli/show.h"

static void json_text(struct json *json, const char *text)
{
	size_t left = strlen(text), size;
	bool is_valid, is_printable;

	fputc('"', json->out);
	for (; left; text += size, left -= size) {
		size = show_character(text, left, &is_valid, &is_printable);
		if (!is_valid)
			fputs("\\ufffd", json->out);
		else if (*text == '"' || *text == '\\')
			fprintf(json->out, "\\%c", *text);
		else if ((unsigned char)*text < 0x20 || *text == 0x7f)
			fprintf(json->out, "\\u%04x", *text);
		else
			fwrite(text, 1, size, json->out);
	}
	fputc('"', json->out);
}

/* Writes what precedes a value: a comma, a new line, and the key. */
static void json_key(struct json *json, const char *key)
{
	if (!json->is_first)
		fputc(',', json->out);
	if (json->depth)
		fputc('\n', json->out);
	for (unsigned i = 0; i < json->depth; i++)
		fputs("  ", json->out);
	json->is_first = false;
	if (key) {
		json_text(json, key);
		fputs(": ", json->out);
	}
}

void json_open(struct json *json, const char *key, char bracket)
{
	json_key(json, key);
	fputc(bracket, json->out);
	json->depth++;
	json->is_first = true;
}

void json_close(struct json *json, char bracket)
{
	bool was_empty = json->is_first;

	json->depth--;
	json->is_first = false;
	if (!was_empty) {
		fputc('\n', json->out);
		for (unsigned i = 0; i < json->depth; i++)
			fputs("  ", json->out);
	}
	fputc(bracket, json->out);
}

void json_number(struct json *json, const char *key, uint64_t number)
{
	json_key(json, key);
	fprintf(json->out, "%" PRIu64, number);
}

void json_signed(struct json *json, const char *key, int64_t number)
{
	json_key(json, key);
	fprintf(json->out, "%" PRId64, number);
}

void json_bool(struct json *json, const char *key, bool value)
{
	json_key(json, key);
	fputs(value ? "true" : "false", json->out);
}

void json_string(struct json *json, const char *key, const char *text)
{
	json_key(json, key);
	if (text)
		json_text(json, text);
	else
		fputs("null", json->out);
}
