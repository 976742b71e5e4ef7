/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A small file's content. */
#ifndef QPU_SLURM_CLIENT_FILE_H
#define QPU_SLURM_CLIENT_FILE_H

#include <stddef.h>

/*
 * Read a regular file.
 *
 * limit: how many bytes it may have.
 * length: how many it has; a NUL stands behind them.
 *
 * Returns its content, for free(); NULL if it cannot be read or is larger.
 */
char *file_read(const char *path, size_t limit, size_t *length);

#endif
