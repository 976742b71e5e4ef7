/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SHA-256 (FIPS 180-4), of what fits into memory. */
#ifndef QPU_SLURM_CLIENT_SHA256_H
#define QPU_SLURM_CLIENT_SHA256_H

#include <stddef.h>

enum { SHA256_DIGITS = 64 };

/* Write the hash of some bytes, as lower-case hexadecimal digits with a NUL behind them. */
void sha256_digits(char digits[SHA256_DIGITS + 1], const void *data, size_t length);

#endif
