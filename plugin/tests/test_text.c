/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "text.h"

static const struct {
	const char *text, *printable;
} cases[] = {
	{"", ""},
	{"plain text~", "plain text~"},
	{"a\tb\nc\x1b[2J\x7f", "a?b?c?[2J?"},
	{"\xc3\xa9t\xc3\xa9", "\xc3\xa9t\xc3\xa9"},
	{"\xe9\x87\x8f\xe5\xad\x90 \xf0\x9f\x90\x88", "\xe9\x87\x8f\xe5\xad\x90 \xf0\x9f\x90\x88"},
	{"\xc2\xa0", "\xc2\xa0"},
	{"\xc2\x9b" "2J", "??2J"}, /* a control sequence, in 8 bits */
	{"\x9b" "2J", "?2J"},
	{"\xff\xfe", "??"},
	{"\xc3", "?"}, /* cut */
	{"\xe2\x82", "??"},
	{"\xf0\x9f\x90", "???"},
	{"\xc0\x8a", "??"}, /* a line end in too many bytes */
	{"\xe0\x80\x8a", "???"},
	{"\xed\xa0\x80", "???"}, /* half a pair */
	{"\xf4\x90\x80\x80", "????"}, /* beyond the last */
	{"\xf8\x88\x80\x80\x80", "?????"},
	{"\xfa\xae\xae\xae", "????"}, /* no beginning of four */
	{"\xc3(", "?("},
};

int main(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = strdup(cases[i].text);

		text_make_printable(text);
		CHECK(strcmp(text, cases[i].printable) == 0, text);
		free(text);
	}
	CHECK(text_is_made_of("abc", LETTERS) && !text_is_made_of("", LETTERS), "made of");
	CHECK(!text_is_made_of("ab\xc3\xa9", LETTERS DIGITS), "made of more");
	return 0;
}
