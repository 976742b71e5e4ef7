/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <signal.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "check.h"
#include "helper.h"

enum { LIMIT = 1000, TIMEOUT = 300 };

static const struct {
	const char *script;
	const char *text; /* What it says; NULL: it fails, */
	int exit_code;
	const char *reason; /* with these words; */
	bool stopped;	    /* and it may help to run it again. */
} cases[] = {
	{"echo IAM_URL=$KEY", "IAM_URL=secret\n", 0, NULL, false},
	{"exit 3", "", 3, NULL, false},
	{"echo said; exit 1", "said\n", 1, NULL, false},
	{"pwd", "/\n", 0, NULL, false},
	{"cat; echo unseen >&2", "", 0, NULL, false},
	{"echo $(env | cut -d= -f1 | sort | grep -v -e PWD -e _)", "KEY PATH\n", 0, NULL, false},
	/* ls has one more, for the directory that it lists. */
	{"set -- $(ls /proc/self/fd); echo $#", "4\n", 0, NULL, false},
	/* The lower 28 signals: some of the upper ones belong to the C library, which does not give them away. */
	{"sed -n 's/^Sig\\(Blk\\|Ign\\):.*\\(.......\\)$/\\2/p' /proc/self/status", "0000000\n0000000\n", 0, NULL, false},
	{"printf %1000d 1 | wc -c", "1000\n", 0, NULL, false},
	{"printf %1001d 1", NULL, 0, "output is too long", false},
	{"yes", NULL, 0, "output is too long", false},
	{"sleep 100", NULL, 0, "did not end in time", true},
	{"exec >&-; sleep 100", NULL, 0, "did not end in time", true},
	{"sleep 100 & echo left behind", NULL, 0, "did not end in time", true},
	{"kill -9 $$", NULL, 0, "killed by signal 9", true},
	{"exec /nowhere", NULL, 0, "could not be started", false},
};

static void run_script(const char *script, const char *text, int exit_code, const char *reason, bool stopped,
		       enum helper_place place)
{
	static const char *const envp[] = {"PATH=/usr/bin:/bin", "KEY=secret", NULL};
	const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	/* Most are bounded generously, since a busy machine is slow; those that hang are not. */
	bool hangs = strstr(script, "sleep") != NULL;
	struct helper_answer answer;
	struct problem why = {""};
	enum helper_end end = helper_run(&answer, argv, envp, place, hangs ? TIMEOUT : 20000, LIMIT, &why);

	if (text != NULL) {
		CHECK(end == HELPER_ENDED, why.text);
		CHECK(strcmp(answer.text, text) == 0, answer.text);
		CHECK(answer.length == strlen(text), script);
		CHECK(answer.exit_code == exit_code, script);
	} else {
		CHECK(end == (stopped ? HELPER_STOPPED : HELPER_FAILED), script);
		CHECK(strstr(why.text, reason) != NULL, why.text);
		CHECK(answer.text == NULL, script);
	}
	helper_free(&answer);
}

static void run_scripts(enum helper_place place)
{
	for (size_t i = 0; i < COUNT(cases); i++)
		run_script(cases[i].script, cases[i].text, cases[i].exit_code, cases[i].reason, cases[i].stopped,
			   place);
}

static void wait_a_moment(void)
{
	static const struct timespec pause = {.tv_nsec = 10000000};

	nanosleep(&pause, NULL);
}

/* Killed, a process is only a name until whoever inherits orphans has looked at it. */
static bool runs(pid_t pid)
{
	char path[64], state = 'X';
	FILE *stat;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	stat = fopen(path, "r");
	if (stat == NULL)
		return false;
	if (fscanf(stat, "%*d (%*[^)]) %c", &state) != 1)
		state = 'X';
	fclose(stat);
	return state != 'Z' && state != 'X';
}

static void wait_until_gone(pid_t pid)
{
	CHECK(pid > 1, "it was there");
	for (int tries = 0; tries < 2000; tries++) {
		if (!runs(pid))
			return;
		wait_a_moment();
	}
	CHECK(false, "it is gone");
}

static void leave_nothing_behind(void)
{
	static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};
	static const char *const argv[] = {"/bin/sh", "-c", "sleep 100 >&- & echo $!", NULL};
	struct helper_answer answer;
	struct problem why;
	pid_t child;

	CHECK(helper_run(&answer, argv, envp, HELPER_APART, 20000, LIMIT, &why) == HELPER_ENDED, why.text);
	child = (pid_t)atoi(answer.text);
	helper_free(&answer);
	wait_until_gone(child);
}

/* The program that is left to itself writes into a file what it is; this reads it, once it is whole. */
static void read_lines(const char *path, char *text, size_t size, int lines)
{
	for (int tries = 0; tries < 2000; tries++) {
		FILE *file = fopen(path, "r");
		size_t length = file == NULL ? 0 : fread(text, 1, size - 1, file);
		int found = 0;

		if (file != NULL)
			fclose(file);
		text[length] = '\0';
		for (const char *c = text; *c != '\0'; c++)
			found += *c == '\n';
		if (found == lines)
			return;
		wait_a_moment();
	}
	CHECK(false, text);
}

/* In a task, it is one of the task's process group, and it ends when the task is killed. */
static void end_with_the_task(void)
{
	static const char script[] = "read -r pid name state parent group rest </proc/self/stat\n"
				     "echo $$ $group >$FILE; exec sleep 100";
	static const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	char name[] = "/tmp/qpu_slurm-XXXXXX", file[64], text[64];
	const char *envp[] = {"PATH=/usr/bin:/bin", file, NULL};
	int fd = mkstemp(name), pid, group;
	struct helper_answer answer;
	struct problem why;
	pid_t task;

	CHECK(fd >= 0, name);
	snprintf(file, sizeof(file), "FILE=%s", name);
	task = fork();
	if (task == 0) {
		(void)setpgid(0, 0);
		(void)helper_run(&answer, argv, envp, HELPER_IN_TASK, 20000, LIMIT, &why);
		_exit(1);
	}
	read_lines(name, text, sizeof(text), 1);
	CHECK(sscanf(text, "%d %d\n", &pid, &group) == 2, text);
	CHECK(group == (int)task, text);
	CHECK(kill(task, SIGKILL) == 0, "it waits");
	CHECK(waitpid(task, NULL, 0) == task, "it was killed");
	wait_until_gone(pid);
	close(fd);
	unlink(name);
}

static void leave_to_itself(void)
{
	static const char script[] =
		"read -r pid name state parent group session rest </proc/self/stat\n"
		"set -- $(ls /proc/self/fd)\n"
		"{ echo $$ $parent; echo $((session == group)) $# $(pwd)\n"
		"sed -n 's/^Sig\\(Blk\\|Ign\\):.*\\(.......\\)$/\\2/p' /proc/self/status; } >$FILE\n"
		"echo unseen; echo unseen >&2; exec sleep 100";
	static const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	char name[] = "/tmp/qpu_slurm-XXXXXX", file[64], text[256];
	const char *envp[] = {"PATH=/usr/bin:/bin", file, NULL};
	int fd = mkstemp(name), pid, parent, length;
	struct problem why;

	CHECK(fd >= 0, name);
	snprintf(file, sizeof(file), "FILE=%s", name);
	/* It is killed by its own clock: here, nobody waits for it. */
	CHECK(helper_leave(argv, envp, 3, &why), why.text);
	read_lines(name, text, sizeof(text), 4);
	CHECK(sscanf(text, "%d %d\n%n", &pid, &parent, &length) == 2, text);
	CHECK(parent != (int)getpid(), "it is nobody's child");
	/* A group of its own in a session of its own, whose leader is gone; three files and one of ls's. */
	CHECK(strcmp(text + length, "0 4 /\n0000000\n0000000\n") == 0, text);
	CHECK(kill(pid, 0) == 0, "it runs");
	wait_until_gone(pid);
	close(fd);
	unlink(name);
}

/* slurmstepd may have closed any of the three. */
static void run_without_stdio(void)
{
	static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};
	static const char *const argv[] = {"/bin/sh", "-c", "cat; echo said; echo unseen >&2", NULL};
	struct helper_answer answer;
	struct problem why;
	int saved = dup(STDOUT_FILENO);
	enum helper_end end;

	close(STDIN_FILENO);
	close(STDOUT_FILENO);
	end = helper_run(&answer, argv, envp, HELPER_APART, 20000, LIMIT, &why);
	dup2(saved, STDOUT_FILENO);
	close(saved);
	CHECK(end == HELPER_ENDED, why.text);
	CHECK(strcmp(answer.text, "said\n") == 0, answer.text);
	helper_free(&answer);
}

static void say_what_is_missing(void)
{
	static const char *const envp[] = {NULL};
	static const char *const argv[] = {"/nowhere/qpu-slurm", NULL};
	struct helper_answer answer;
	struct problem why;

	CHECK(helper_run(&answer, argv, envp, HELPER_APART, 20000, LIMIT, &why) == HELPER_FAILED, "it is missing");
	CHECK(strcmp(why.text, "it could not be started") == 0, why.text);
}

int main(void)
{
	sigset_t all;

	/* As in slurmstepd, which blocks and ignores signals: none of that may reach the helper. */
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	signal(SIGPIPE, SIG_IGN);
	run_scripts(HELPER_APART);
	run_scripts(HELPER_IN_TASK);
	leave_nothing_behind();
	end_with_the_task();
	leave_to_itself();
	run_without_stdio();
	say_what_is_missing();
	return 0;
}
