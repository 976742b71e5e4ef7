/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "option.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

#define ANY "any"
#define OPERATORS "=<>!"
#define VALUES LETTERS DIGITS "_.*+-"

/* What can be asked of a QPU, and what is compared first. */
static const char *const attributes[] = {
	"qubits", "processor", "error",	   "clops",	     "max_shots",    "simulator", "name",
	"type",	  "num_qubits", "n_qubits", "processor_type", "is_simulator", "by",
};

static bool is_attribute(const char *text, size_t length)
{
	for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++)
		if (strlen(attributes[i]) == length && strncmp(attributes[i], text, length) == 0)
			return true;
	return false;
}

/* One constraint: an attribute, an operator and a value. */
static bool check_term(const char *term, struct problem *why)
{
	size_t length = strcspn(term, OPERATORS);
	size_t signs = strspn(term + length, OPERATORS);
	const char *sign = term + length, *value = sign + signs;
	bool one = signs == 1 && sign[0] != '!';
	bool two = signs == 2 && sign[0] != '=' && sign[1] == '=';

	if (length == 0 || !(one || two) || !text_is_made_of(value, VALUES) || strlen(value) > OPTION_VALUE_LENGTH)
		return problem_set(why,
				   "--qpu: '%.*s' is not a constraint; write ATTRIBUTE, one of = != >= <= > <, and a "
				   "value, such as qubits>=100",
				   NAME_LENGTH, term);
	if (!is_attribute(term, length))
		return problem_set(why,
				   "--qpu: '%.*s' is not an attribute; known are qubits, processor, error, clops, "
				   "max_shots, simulator, name, type",
				   (int)(length < NAME_LENGTH ? length : NAME_LENGTH), term);
	if (strncmp(term, "by", length) == 0 && strcmp(term, "by=wait") != 0 && strcmp(term, "by=error") != 0)
		return problem_set(why, "--qpu: '%.*s': write by=wait or by=error", NAME_LENGTH, term);
	return true;
}

static bool add_alternatives(struct option *option, char *pool, struct problem *why)
{
	struct names pieces = {0};
	char *listed[OPTION_LENGTH / 2 + 1];

	pieces.items = listed;
	for (char *rest = pool, *name; (name = strsep(&rest, "|")) != NULL;) {
		if (!name_is_qpu(name) || strcmp(name, ANY) == 0)
			return problem_set(why, "--qpu: '%.*s' is not a name; alternatives are names: NAME|NAME",
					   NAME_LENGTH, name);
		if (names_contain(&pieces, name))
			return problem_set(why, "--qpu: '%s' is named twice", name);
		pieces.items[pieces.count++] = name;
		if (!names_contain(&option->offered, name))
			option->offered.items[option->offered.count++] = name;
	}
	return true;
}

static bool add_name(struct option *option, char *name, name_shape *shape, struct problem *why)
{
	if (!shape(name))
		return problem_set(why,
				   "--qpu: '%.*s' is not a name; write NAME, NAME,NAME, NAME|NAME, any or any:qubits>=100",
				   NAME_LENGTH, name);
	if (names_contain(&option->named, name))
		return problem_set(why, "--qpu: '%s' is named twice", name);
	option->named.items[option->named.count++] = name;
	return true;
}

/* An item that no comma divides: a name, or a wish with its first constraint. */
static bool add_item(struct option *option, char *item, name_shape *shape, bool *open, struct problem *why)
{
	size_t length = strcspn(item, ":");
	bool any = length == strlen(ANY) && strncmp(item, ANY, length) == 0;
	bool several = memchr(item, '|', length) != NULL;
	bool terms = item[length] == ':';

	*open = false;
	if (!any && !several) {
		if (terms && strpbrk(item + length, OPERATORS) != NULL) {
			item[length] = '\0';
			return problem_set(why, "--qpu: '%.*s' is one QPU, so there is nothing to choose; write any:%.*s",
					   NAME_LENGTH, item, NAME_LENGTH, item + length + 1);
		}
		return add_name(option, item, shape, why);
	}
	item[length] = '\0';
	if (any)
		option->any = true;
	else if (!add_alternatives(option, item, why))
		return false;
	*open = terms;
	return !terms || check_term(item + length + 1, why);
}

bool option_parse(struct option *option, const char *value, name_shape *shape, struct problem *why)
{
	size_t count = 0;
	bool open = false; /* Whether constraints may follow. */

	*option = (struct option){0};
	if (strlen(value) > OPTION_LENGTH)
		return problem_set(why, "--qpu: more than %d characters", OPTION_LENGTH);
	/* No more names than characters. */
	option->text = strdup(value);
	option->named.items = calloc(strlen(value) + 1, sizeof(char *));
	option->offered.items = calloc(strlen(value) + 1, sizeof(char *));
	if (option->text == NULL || option->named.items == NULL || option->offered.items == NULL) {
		problem_set(why, "--qpu: out of memory");
		goto fail;
	}
	for (char *rest = option->text, *part; (part = strsep(&rest, ",")) != NULL;) {
		bool term = strcspn(part, OPERATORS) < strcspn(part, ":");

		if (term && open) {
			if (!check_term(part, why))
				goto fail;
			continue;
		}
		if (term && count > 0) {
			problem_set(why, "--qpu: '%.*s' has no colon before it; write any:qubits>=100", NAME_LENGTH, part);
			goto fail;
		}
		if (++count > NAMES_MAX) {
			problem_set(why, "--qpu: more than %d names", NAMES_MAX);
			goto fail;
		}
		if (!add_item(option, part, shape, &open, why))
			goto fail;
	}
	return true;
fail:
	option_free(option);
	return false;
}

bool option_has_choice(const struct option *option)
{
	return option->any || option->offered.count > 0;
}

void option_free(struct option *option)
{
	names_free(&option->named);
	names_free(&option->offered);
	free(option->text);
	*option = (struct option){0};
}
