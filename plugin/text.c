/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "text.h"

#include <string.h>

bool text_is_made_of(const char *text, const char *characters)
{
	return text[0] != '\0' && text[strspn(text, characters)] == '\0';
}

void text_make_printable(char *text)
{
	for (; *text != '\0'; text++) {
		unsigned char byte = (unsigned char)*text;

		/* Bytes of 0x80 and above are UTF-8: names of people and places, left as they are. */
		if (byte < ' ' || byte == 0x7f)
			*text = '?';
	}
}
