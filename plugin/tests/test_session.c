/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "session.h"

static const char *const refused[] = {
	"",    " ",	 "Job",	     "JOB",   "jobs", "tas",	"task ",
	"job,", "job,task", "job\n", "task\r", "no", "$(reboot)", "\xff\xfe",
};

int main(void)
{
	struct problem why;

	CHECK(session_check("job", &why), why.text);
	CHECK(session_check("task", &why), why.text);
	for (size_t i = 0; i < COUNT(refused); i++) {
		CHECK(!session_check(refused[i], &why), refused[i]);
		CHECK(strstr(why.text, "neither job nor task") != NULL, why.text);
	}
	CHECK(!session_check("\x1b[2J%n%s", &why), "escape sequences and formats");
	CHECK(strstr(why.text, "'?[2J%n%s'") != NULL, why.text);
	return 0;
}
