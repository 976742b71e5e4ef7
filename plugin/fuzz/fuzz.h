/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the fuzz targets are written with. Each target reads one kind of input, hostile, and asserts what must
 * be so whatever the input is. clang's libFuzzer looks for inputs that break it (`make fuzz`); replay.c runs
 * those that are known, and some thousand like them (`make check`).
 */
#ifndef QPU_SLURM_FUZZ_H
#define QPU_SLURM_FUZZ_H

#include <locale.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "problem.h"

/* The target: always returns 0. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Unlike assert, it is there in every build. */
#define MUST(condition)                                                                                      \
	do {                                                                                                 \
		if (!(condition)) {                                                                          \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #condition);              \
			abort();                                                                             \
		}                                                                                            \
	} while (0)

/* Copy an input into memory of its own, no byte longer than it and a NUL, so that reading on is seen. */
static inline char *fuzz_text(const uint8_t *data, size_t size)
{
	char *text = malloc(size + 1);

	MUST(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	text[size] = '\0';
	return text;
}

/* A sentence for somebody's terminal or a log: one line, and no character that drives either. */
static inline void fuzz_must_be_a_sentence(const char *text)
{
	MUST(text[0] != '\0');
	MUST(strlen(text) < sizeof(((struct problem *)NULL)->text));
	for (const char *c = text; *c != '\0'; c++) {
		unsigned char byte = (unsigned char)*c;

		MUST(byte >= ' ' && byte != 0x7f);
		/* U+0080 to U+009F: some terminals take them for escape sequences. */
		MUST(byte != 0xc2 || (unsigned char)c[1] >= 0xa0);
	}
	/* The C library agrees that it is UTF-8, where it has a locale for it. */
	if (setlocale(LC_CTYPE, "C.UTF-8") != NULL)
		MUST(mbstowcs(NULL, text, 0) != (size_t)-1);
}

#endif
