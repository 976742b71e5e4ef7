/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Read TOML as far as the client needs it: every value is found and passed over as tomllib does it, and those that
 * are short strings or whole numbers are reported. What a file says in a way that this reader does not know (an escape
 * in a key, say) makes it give up: the Python command then reads the file.
 */
#ifndef QPU_SLURM_CLIENT_TOML_H
#define QPU_SLURM_CLIENT_TOML_H

#include <stdbool.h>
#include <stddef.h>

/* How deep a key may be, tables included, and how many bytes all its parts may have. */
enum { TOML_DEPTH = 8, TOML_KEY = 256, TOML_NESTING = 32 };

enum toml_kind {
	TOML_TABLE,   /* A header [a.b]: `path` is its whole key. */
	TOML_ELEMENT, /* A header [[a.b]]. */
	TOML_STRING,  /* A string without escapes, on one line: `text` is what it holds. */
	TOML_INTEGER, /* Digits alone: `text` has them. */
	TOML_OTHER,   /* Any other value; `text` is NULL. */
};

struct toml_item {
	enum toml_kind kind;
	size_t depth;
	const char *path[TOML_DEPTH]; /* The key, with those of the table that it is in. */
	const char *text;	      /* Not terminated. */
	size_t length;
};

/* Take one item. Returns false to stop reading: the file is none that the client understands. */
typedef bool toml_take(void *data, const struct toml_item *item);

/*
 * Read a file's text.
 *
 * Returns false if it is not TOML, is written in a way that is not known here, or `take` stopped.
 */
bool toml_read(const char *text, size_t length, toml_take *take, void *data);

#endif
