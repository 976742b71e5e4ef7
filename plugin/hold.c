/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "hold.h"

#include <string.h>

bool hold_check(const char *value, struct problem *why)
{
	enum { SHOWN = 64 };

	if (strcmp(value, "job") == 0 || strcmp(value, "task") == 0)
		return true;
	return problem_set(why, "--qpu-hold: '%.*s' is neither job nor task; write --qpu-hold=task to hold "
			   "the QPU only while a task is executed", SHOWN, value);
}
