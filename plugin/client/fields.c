/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/fields.h"

#include <string.h>

bool fields_add(struct fields *fields, const char *name, const char *value)
{
	size_t name_length = strlen(name), length = strlen(value);
	char *next = fields->data + fields->length;

	if (length > FIELD_LIMIT || name_length + length + 2 > sizeof(fields->data) - fields->length)
		return false;
	memcpy(next, name, name_length);
	next[name_length] = '=';
	memcpy(next + name_length + 1, value, length + 1);
	fields->length += name_length + length + 2;
	return true;
}
