/* SPDX-License-Identifier: GPL-2.0-or-later */
/* A clock that nobody sets; it also goes on while a job is suspended. */
#ifndef QPU_SLURM_CLOCK_H
#define QPU_SLURM_CLOCK_H

#include <stdint.h>

/* Return the milliseconds since some moment in the past. */
int64_t clock_now(void);

/* Sleep for so many milliseconds; a signal that has a handler ends it early. */
void clock_sleep(int64_t milliseconds);

#endif
