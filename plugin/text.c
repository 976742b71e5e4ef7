/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "text.h"

#include <stdint.h>
#include <string.h>

bool text_is_made_of(const char *text, const char *characters)
{
	return text[0] != '\0' && text[strspn(text, characters)] == '\0';
}

/* How many bytes the character has that a text begins with; 0 if it is none that can be printed. */
static size_t printable(const char *text)
{
	static const uint32_t least[] = {0, ' ', 0xa0, 0x800, 0x10000}; /* in so many bytes; no controls */
	const unsigned char *byte = (const unsigned char *)text;
	size_t length = 0;
	uint32_t character;

	/* How many ones the first byte begins with. */
	while (length < 8 && (byte[0] & 0x80u >> length) != 0)
		length++;
	if (length == 1 || length > 4)
		return 0;
	character = byte[0] & 0x7fu >> length;
	if (length == 0)
		length = 1;

	for (size_t i = 1; i < length; i++) {
		/* A NUL is none of these, so nothing behind it is read. */
		if ((byte[i] & 0xc0) != 0x80)
			return 0;
		character = character << 6 | (byte[i] & 0x3f);
	}
	if (character < least[length] || character == 0x7f || character > 0x10ffff ||
	    (character >= 0xd800 && character <= 0xdfff))
		return 0;
	return length;
}

void text_make_printable(char *text)
{
	while (*text != '\0') {
		size_t length = printable(text);

		if (length == 0)
			*text++ = '?';
		else
			text += length;
	}
}
