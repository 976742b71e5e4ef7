/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "problem.h"

#include <stdarg.h>
#include <stdio.h>

#include "text.h"

bool problem_set(struct problem *why, const char *format, ...)
{
	va_list values;

	va_start(values, format);
	if (vsnprintf(why->text, sizeof(why->text), format, values) < 0)
		why->text[0] = '\0';
	va_end(values);
	text_make_printable(why->text);
	return false;
}
