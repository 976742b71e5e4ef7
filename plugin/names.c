/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "names.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

static bool is_word(const char *name, const char *characters)
{
	return strspn(name, LETTERS) > 0 && text_is_made_of(name, characters) && strlen(name) <= NAME_LENGTH;
}

bool name_is_qpu(const char *name)
{
	return is_word(name, LETTERS DIGITS "_");
}

bool name_is_guess(const char *name)
{
	return is_word(name, LETTERS DIGITS "_:-");
}

bool name_is_partition(const char *name)
{
	return strcmp(name, "*") == 0 ||
	       (text_is_made_of(name, LETTERS DIGITS "_-.+") && strlen(name) <= NAME_LENGTH);
}

bool names_contain(const struct names *names, const char *name)
{
	for (size_t i = 0; i < names->count; i++)
		if (strcmp(names->items[i], name) == 0)
			return true;
	return false;
}

bool names_parse(struct names *names, const char *what, const char *value, name_shape *shape, size_t max,
		 struct problem *why)
{
	size_t room = 1;

	*names = (struct names){0};
	for (const char *c = value; *c != '\0'; c++)
		room += *c == ',';
	if (room > max)
		return problem_set(why, "%s: more than %zu names", what, max);

	names->text = strdup(value);
	names->items = calloc(room, sizeof(*names->items));
	if (names->text == NULL || names->items == NULL) {
		problem_set(why, "%s: out of memory", what);
		goto fail;
	}
	for (char *rest = names->text, *name; (name = strsep(&rest, ",")) != NULL;) {
		if (!shape(name)) {
			problem_set(why, "%s: '%.*s' is not a name; write NAME or NAME,NAME", what, NAME_LENGTH,
				    name);
			goto fail;
		}
		if (names_contain(names, name)) {
			problem_set(why, "%s: '%s' is named twice", what, name);
			goto fail;
		}
		names->items[names->count++] = name;
	}
	return true;
fail:
	names_free(names);
	return false;
}

const char *names_join(const struct names *names, char *text, size_t size)
{
	size_t used = 0;

	text[0] = '\0';
	for (size_t i = 0; i < names->count; i++) {
		const char *separator = i == 0 ? "" : ", ";
		size_t length = strlen(separator) + strlen(names->items[i]);

		if (used + length >= size)
			break;
		strcpy(text + used, separator);
		strcat(text + used, names->items[i]);
		used += length;
	}
	return text;
}

void names_free(struct names *names)
{
	free(names->items);
	free(names->text);
	*names = (struct names){0};
}
