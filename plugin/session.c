/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "session.h"

#include <string.h>

bool session_check(const char *value, struct problem *why)
{
	enum { SHOWN = 64 };

	if (strcmp(value, "job") == 0 || strcmp(value, "task") == 0)
		return true;
	return problem_set(why, "--qpu-session: '%.*s' is neither job nor task; write --qpu-session=task to hold "
			   "the QPU only while a task is executed", SHOWN, value);
}
