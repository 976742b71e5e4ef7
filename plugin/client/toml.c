/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/toml.h"

#include <string.h>

#include "text.h"

#define BARE_KEY LETTERS DIGITS "_-"

/* What a number, a date or a boolean is made of. */
#define BARE_VALUE LETTERS DIGITS "+-_.:"

struct key {
	size_t depth;
	const char *path[TOML_DEPTH];
	char text[TOML_KEY]; /* The parts, with a NUL behind each. */
	size_t used;
};

struct reader {
	const char *next;
	const char *end;
	toml_take *take;
	void *data;
	struct key table; /* Of the last header. */
};

static bool at(const struct reader *reader, const char *what)
{
	size_t length = strlen(what);

	return (size_t)(reader->end - reader->next) >= length && memcmp(reader->next, what, length) == 0;
}

static bool is_any(char c, const char *set)
{
	return c != '\0' && strchr(set, c) != NULL;
}

/* Pass over one of these characters. */
static bool skip(struct reader *reader, char c)
{
	if (reader->next == reader->end || *reader->next != c)
		return false;
	reader->next++;
	return true;
}

static void skip_blanks(struct reader *reader)
{
	while (reader->next < reader->end && is_any(*reader->next, " \t"))
		reader->next++;
}

/* Whether TOML forbids a byte in comments and strings: controls other than the tab. */
static bool is_control(char c)
{
	return ((unsigned char)c < ' ' && c != '\t') || c == 0x7f;
}

static bool skip_line_end(struct reader *reader)
{
	return at(reader, "\r\n") ? (reader->next += 2, true) : skip(reader, '\n');
}

static bool skip_comment(struct reader *reader)
{
	if (!skip(reader, '#'))
		return true;
	while (reader->next < reader->end && *reader->next != '\n' && !at(reader, "\r\n"))
		if (is_control(*reader->next++))
			return false;
	return true;
}

/* What may stand between the values of an array: blanks, comments, line ends. */
static bool skip_between(struct reader *reader)
{
	do {
		skip_blanks(reader);
		if (!skip_comment(reader))
			return false;
	} while (skip_line_end(reader));
	return true;
}

/* Pass over what follows a backslash in a string. */
static bool skip_escape(struct reader *reader, bool lines)
{
	static const char hexadecimal[] = DIGITS "abcdefABCDEF";
	size_t digits;

	if (reader->next == reader->end)
		return false;
	if (lines && is_any(*reader->next, " \t\r\n")) {
		/* A line end with the blanks around it. */
		skip_blanks(reader);
		if (!skip_line_end(reader))
			return false;
		do
			skip_blanks(reader);
		while (skip_line_end(reader));
		return true;
	}
	digits = *reader->next == 'u' ? 4 : *reader->next == 'U' ? 8 : 0;
	if (digits == 0 && !is_any(*reader->next, "btnfr\"\\"))
		return false;
	reader->next++;
	for (size_t i = 0; i < digits; i++, reader->next++)
		if (reader->next == reader->end || !is_any(*reader->next, hexadecimal))
			return false;
	return true;
}

/* Pass over a string of several lines; its first three quotes are passed already. */
static bool skip_lines(struct reader *reader, char quote)
{
	const char close[] = {quote, quote, quote, '\0'};

	while (reader->next < reader->end) {
		if (at(reader, close)) {
			reader->next += 3;
			/* Up to two quotes more are the string's own. */
			(void)(skip(reader, quote) && skip(reader, quote));
			return true;
		}
		if (quote == '"' && skip(reader, '\\')) {
			if (!skip_escape(reader, true))
				return false;
		} else if (!skip_line_end(reader) && is_control(*reader->next++)) {
			return false;
		}
	}
	return false;
}

/* Read a string of one line. text: where it begins; NULL if it has an escape. */
static bool read_line(struct reader *reader, char quote, const char **text, size_t *length)
{
	const char *begin = reader->next;
	bool plain = true;

	while (reader->next < reader->end && *reader->next != quote) {
		char c = *reader->next++;

		if (is_control(c))
			return false;
		if (c != '\\' || quote != '"')
			continue;
		plain = false;
		if (!skip_escape(reader, false))
			return false;
	}
	*text = plain ? begin : NULL;
	*length = (size_t)(reader->next - begin);
	return skip(reader, quote);
}

static bool read_string(struct reader *reader, const char **text, size_t *length)
{
	char quote = *reader->next;
	const char open[] = {quote, quote, quote, '\0'};

	*text = NULL;
	if (at(reader, open)) {
		reader->next += 3;
		return skip_lines(reader, quote);
	}
	reader->next++;
	return read_line(reader, quote, text, length);
}

static bool add_part(struct key *key, const char *text, size_t length)
{
	char *part = key->text + key->used;

	if (key->depth == TOML_DEPTH || length >= sizeof(key->text) - key->used || memchr(text, '\0', length) != NULL)
		return false;
	memcpy(part, text, length);
	part[length] = '\0';
	key->used += length + 1;
	key->path[key->depth++] = part;
	return true;
}

/* Read a key, whose parts are added to those that are there. */
static bool read_key(struct reader *reader, struct key *key)
{
	do {
		const char *text;
		size_t length = 0;

		skip_blanks(reader);
		if (reader->next == reader->end)
			return false;
		if (*reader->next == '"' || *reader->next == '\'') {
			char quote = *reader->next++;

			if (!read_line(reader, quote, &text, &length) || text == NULL)
				return false;
		} else {
			for (text = reader->next; reader->next < reader->end && is_any(*reader->next, BARE_KEY);)
				reader->next++;
			length = (size_t)(reader->next - text);
			if (length == 0)
				return false;
		}
		if (!add_part(key, text, length))
			return false;
		skip_blanks(reader);
	} while (skip(reader, '.'));
	return true;
}

static void copy_key(struct key *to, const struct key *from)
{
	*to = (struct key){0};
	for (size_t i = 0; i < from->depth; i++)
		(void)add_part(to, from->path[i], strlen(from->path[i]));
}

static bool report(struct reader *reader, enum toml_kind kind, const struct key *key, const char *text, size_t length)
{
	struct toml_item item = {.kind = kind, .depth = key->depth, .text = text, .length = length};

	memcpy(item.path, key->path, sizeof(item.path));
	return reader->take(reader->data, &item);
}

static bool skip_value(struct reader *reader, int nesting);

static bool skip_array(struct reader *reader, int nesting)
{
	reader->next++;
	for (;;) {
		if (!skip_between(reader))
			return false;
		if (skip(reader, ']'))
			return true;
		if (!skip_value(reader, nesting + 1) || !skip_between(reader))
			return false;
		if (!skip(reader, ','))
			return skip(reader, ']');
	}
}

static bool skip_inline_table(struct reader *reader, int nesting)
{
	reader->next++;
	skip_blanks(reader);
	if (skip(reader, '}'))
		return true;
	do {
		struct key key = {0};

		if (!read_key(reader, &key) || !skip(reader, '='))
			return false;
		skip_blanks(reader);
		if (!skip_value(reader, nesting + 1))
			return false;
		skip_blanks(reader);
	} while (skip(reader, ','));
	return skip(reader, '}');
}

static bool skip_bare(struct reader *reader)
{
	const char *begin = reader->next;

	while (reader->next < reader->end && is_any(*reader->next, BARE_VALUE))
		reader->next++;
	/* A date and a time may have a blank between them. */
	if (reader->next - begin == 10 && begin[4] == '-' && reader->end - reader->next > 3 && reader->next[0] == ' ' &&
	    is_any(reader->next[1], DIGITS) && is_any(reader->next[2], DIGITS) && reader->next[3] == ':')
		for (reader->next++; reader->next < reader->end && is_any(*reader->next, BARE_VALUE);)
			reader->next++;
	return reader->next > begin;
}

/* Pass over a value; whether numbers and dates are well-formed is not looked at. */
static bool skip_value(struct reader *reader, int nesting)
{
	const char *text;
	size_t length;

	if (reader->next == reader->end || nesting > TOML_NESTING)
		return false;
	switch (*reader->next) {
	case '"':
	case '\'':
		return read_string(reader, &text, &length);
	case '[':
		return skip_array(reader, nesting);
	case '{':
		return skip_inline_table(reader, nesting);
	default:
		return skip_bare(reader);
	}
}

static bool read_value(struct reader *reader, const struct key *key)
{
	const char *begin = reader->next, *text = NULL;
	size_t length = 0;

	if (begin < reader->end && (*begin == '"' || *begin == '\''))
		return read_string(reader, &text, &length) &&
		       report(reader, text == NULL ? TOML_OTHER : TOML_STRING, key, text, length);
	if (!skip_value(reader, 0))
		return false;
	length = (size_t)(reader->next - begin);
	for (size_t i = 0; i < length; i++)
		if (!is_any(begin[i], DIGITS))
			return report(reader, TOML_OTHER, key, NULL, 0);
	/* 007 is no number. */
	return (length == 1 || begin[0] != '0') && report(reader, TOML_INTEGER, key, begin, length);
}

static bool read_header(struct reader *reader)
{
	bool element = at(reader, "[[");

	reader->next += element ? 2 : 1;
	reader->table = (struct key){0};
	return read_key(reader, &reader->table) && skip(reader, ']') && (!element || skip(reader, ']')) &&
	       report(reader, element ? TOML_ELEMENT : TOML_TABLE, &reader->table, NULL, 0);
}

static bool read_pair(struct reader *reader)
{
	struct key key;

	copy_key(&key, &reader->table);
	if (!read_key(reader, &key) || !skip(reader, '='))
		return false;
	skip_blanks(reader);
	return read_value(reader, &key);
}

bool toml_read(const char *text, size_t length, toml_take *take, void *data)
{
	struct reader reader = {.next = text, .end = text + length, .take = take, .data = data};

	while (reader.next < reader.end) {
		skip_blanks(&reader);
		if (reader.next < reader.end && !is_any(*reader.next, "#\r\n")) {
			if (!(*reader.next == '[' ? read_header(&reader) : read_pair(&reader)))
				return false;
			skip_blanks(&reader);
		}
		if (!skip_comment(&reader) || (reader.next < reader.end && !skip_line_end(&reader)))
			return false;
	}
	return true;
}
