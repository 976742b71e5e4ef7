/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What text may be made of. Not <ctype.h>: a locale must not change what a name is. */
#ifndef QPU_SLURM_TEXT_H
#define QPU_SLURM_TEXT_H

#include <stdbool.h>

#define UPPER "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
#define LETTERS UPPER "abcdefghijklmnopqrstuvwxyz"
#define DIGITS "0123456789"

/* Tell whether a text is made of these characters, and not empty. */
bool text_is_made_of(const char *text, const char *characters);

/*
 * Replace control characters, and what is no UTF-8, by `?`, in place: what users wrote must not drive a
 * terminal or forge a log.
 */
void text_make_printable(char *text);

#endif
