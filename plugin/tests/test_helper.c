/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <signal.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "helper.h"

enum { LIMIT = 1000, TIMEOUT = 300 };

static const struct {
	const char *script;
	const char *text; /* What it says; NULL: it fails, */
	int exit_code;
	const char *reason; /* with these words. */
} cases[] = {
	{"echo IAM_URL=$KEY", "IAM_URL=secret\n", 0, NULL},
	{"exit 3", "", 3, NULL},
	{"echo said; exit 1", "said\n", 1, NULL},
	{"pwd", "/\n", 0, NULL},
	{"cat; echo unseen >&2", "", 0, NULL},
	{"echo $(env | cut -d= -f1 | sort | grep -v -e PWD -e _)", "KEY PATH\n", 0, NULL},
	/* ls has one more, for the directory that it lists. */
	{"set -- $(ls /proc/self/fd); echo $#", "4\n", 0, NULL},
	/* The lower 28 signals: some of the upper ones belong to the C library, which does not give them away. */
	{"sed -n 's/^Sig\\(Blk\\|Ign\\):.*\\(.......\\)$/\\2/p' /proc/self/status", "0000000\n0000000\n", 0, NULL},
	{"printf %1000d 1 | wc -c", "1000\n", 0, NULL},
	{"printf %1001d 1", NULL, 0, "said too much"},
	{"yes", NULL, 0, "said too much"},
	{"sleep 100", NULL, 0, "took too long"},
	{"exec >&-; sleep 100", NULL, 0, "took too long"},
	{"sleep 100 & echo left behind", NULL, 0, "took too long"},
	{"kill -9 $$", NULL, 0, "killed by signal 9"},
	{"exec /nowhere", NULL, 0, "could not be started"},
};

static void run_scripts(void)
{
	static const char *const envp[] = {"PATH=/usr/bin:/bin", "KEY=secret", NULL};

	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *const argv[] = {"/bin/sh", "-c", cases[i].script, NULL};
		/* Most are bounded generously, since a busy machine is slow; those that hang are not. */
		bool hangs = strstr(cases[i].script, "sleep") != NULL;
		struct helper_answer answer;
		struct problem why = {""};
		bool fine = helper_run(&answer, argv, envp, hangs ? TIMEOUT : 20000, LIMIT, &why);

		CHECK(fine == (cases[i].text != NULL), cases[i].script);
		if (fine) {
			CHECK(strcmp(answer.text, cases[i].text) == 0, answer.text);
			CHECK(answer.length == strlen(cases[i].text), cases[i].script);
			CHECK(answer.exit_code == cases[i].exit_code, cases[i].script);
		} else {
			CHECK(strstr(why.text, cases[i].reason) != NULL, why.text);
			CHECK(answer.text == NULL, cases[i].script);
		}
		helper_free(&answer);
	}
}

static void leave_nothing_behind(void)
{
	static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};
	static const char *const argv[] = {"/bin/sh", "-c", "sleep 100 >&- & echo $!", NULL};
	static const struct timespec pause = {.tv_nsec = 10000000};
	struct helper_answer answer;
	struct problem why;
	pid_t child;

	CHECK(helper_run(&answer, argv, envp, 20000, LIMIT, &why), why.text);
	child = (pid_t)atoi(answer.text);
	helper_free(&answer);
	CHECK(child > 1, "it started a child");
	/* Killed, it is only a name until whoever inherits orphans has looked at it. */
	for (int tries = 0; tries < 500; tries++) {
		char path[64], state = 'X';
		FILE *stat;

		snprintf(path, sizeof(path), "/proc/%d/stat", (int)child);
		stat = fopen(path, "r");
		if (stat == NULL)
			return;
		if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
			state = 'X';
		fclose(stat);
		if (state == 'Z' || state == 'X')
			return;
		nanosleep(&pause, NULL);
	}
	CHECK(false, "the child is gone");
}

static void say_what_is_missing(void)
{
	static const char *const envp[] = {NULL};
	static const char *const argv[] = {"/nowhere/qpu-slurm", NULL};
	struct helper_answer answer;
	struct problem why;

	CHECK(!helper_run(&answer, argv, envp, 20000, LIMIT, &why), "a missing program");
	CHECK(strcmp(why.text, "it could not be started") == 0, why.text);
}

int main(void)
{
	sigset_t all;

	/* As in slurmstepd, which blocks and ignores signals: none of that may reach the helper. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGPIPE, SIG_IGN);
	run_scripts();
	leave_nothing_behind();
	say_what_is_missing();
	return 0;
}
