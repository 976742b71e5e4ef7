/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "waiting.h"

enum { TASKS = 5 };

/* The script writes down who asks it, and has an answer when the file `there` is. */
static const char script[] = "echo $PPID >>asked; [ -e there ] && echo IAM_URL=x && exit; "
			     "echo wait: Nobody is there.; exit 75";
static char directory[] = "/tmp/qpu_slurm-XXXXXX";
static char in_directory[] = "cd /tmp/qpu_slurm-XXXXXX && . ./script";

static const struct problem nobody = {"Nobody was there."};

/* A helper begins in /: this one goes where the test's files are. */
static struct question question_here(void)
{
	static const char *here[] = {"/bin/sh", "-c", in_directory, NULL};
	static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};

	return (struct question){here, envp, false};
}

static size_t read_file(const char *name, char *text, size_t size)
{
	FILE *file = fopen(name, "r");
	size_t length = file == NULL ? 0 : fread(text, 1, size - 1, file);

	if (file != NULL)
		fclose(file);
	text[length] = '\0';
	return length;
}

static void write_file(const char *name, const char *text)
{
	FILE *file = fopen(name, "w");

	CHECK(file != NULL, name);
	fputs(text, file);
	fclose(file);
}

static void wait_for_lines(const char *name, int count)
{
	char text[4096];

	for (int tries = 0; tries < 2000; tries++) {
		int lines = 0;

		(void)read_file(name, text, sizeof(text));
		for (const char *c = text; *c != '\0'; c++)
			lines += *c == '\n';
		if (lines >= count)
			return;
		clock_sleep(10);
	}
	CHECK(false, name);
}

/* A task's exit code is what came of its waiting; the first one tells. */
static pid_t start_task(struct waiting *waiting, int64_t until, bool tells)
{
	pid_t task = fork();

	CHECK(task >= 0, "fork");
	if (task == 0) {
		int terminal = tells ? open("terminal", O_WRONLY | O_CREAT | O_APPEND, 0600) : -1;
		const struct question question = question_here();
		struct helper_answer answer;
		struct problem why = {""};
		char name[16] = "";
		enum outcome outcome = waiting_wait(waiting, &question, until, terminal, &answer, &why);

		(void)prctl(PR_GET_NAME, name);
		if (strcmp(name, "test_waiting") != 0)
			_exit(100);
		if (outcome == ANSWERED && strcmp(answer.text, "IAM_URL=x\n") != 0)
			_exit(101);
		helper_free(&answer);
		_exit((int)outcome);
	}
	return task;
}

static int exit_code(pid_t task)
{
	int status;

	CHECK(waitpid(task, &status, 0) == task, "it was there");
	CHECK(WIFEXITED(status), "it ended by itself");
	return WEXITSTATUS(status);
}

static void clear(void)
{
	unlink("there");
	unlink("asked");
	unlink("terminal");
}

/* While one task asks, the others wait for it; if it is killed, the next one asks. */
static void share_an_answer(bool asker_is_killed)
{
	struct waiting *waiting = waiting_start(&nobody);
	int64_t until = clock_now() + 120000;
	pid_t tasks[TASKS], asker = 0;
	struct helper_answer answer;
	struct problem why;
	char text[4096];
	int others = 0;

	CHECK(waiting != NULL, "there is memory");
	CHECK(waiting_read(waiting, &answer, &why) == UNANSWERED, "nobody has asked");
	CHECK(strcmp(why.text, nobody.text) == 0, why.text);
	for (int i = 0; i < TASKS; i++)
		tasks[i] = start_task(waiting, until, i == 0);
	wait_for_lines("asked", 2);
	wait_for_lines("terminal", 1);
	(void)read_file("asked", text, sizeof(text));
	asker = (pid_t)atoi(text);
	if (asker_is_killed) {
		CHECK(kill(asker, SIGKILL) == 0, "it asks");
		CHECK(waitpid(asker, NULL, 0) == asker, "it was killed");
	}
	write_file("there", "");
	for (int i = 0; i < TASKS; i++)
		if (!(asker_is_killed && tasks[i] == asker))
			CHECK(exit_code(tasks[i]) == ANSWERED, "it has the answer");
	CHECK(waiting_read(waiting, &answer, &why) == ANSWERED, "the answer is known");
	CHECK(strcmp(answer.text, "IAM_URL=x\n") == 0, answer.text);
	CHECK(answer.length == strlen(answer.text) && answer.exit_code == 0, answer.text);
	helper_free(&answer);
	/* One at a time has asked. */
	(void)read_file("asked", text, sizeof(text));
	for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
		others += (pid_t)atoi(line) != asker;
	CHECK(asker_is_killed ? others > 0 : others == 0, "who asked");
	(void)read_file("terminal", text, sizeof(text));
	CHECK(strncmp(text, "qpu_slurm: Nobody is there. This step waits for an answer until 20",
		      strlen("qpu_slurm: Nobody is there. This step waits for an answer until 20")) == 0,
	      text);
	CHECK(strchr(text, '\n') == text + strlen(text) - 1, "it was told once");
	waiting_end(waiting);
	clear();
}

static void do_nothing(int number)
{
	(void)number;
}

/* A signal that slurmstepd handles ends a task that waits; one that does not wait any more has the handler again. */
static void end_by_a_signal(void)
{
	struct waiting *waiting = waiting_start(&nobody);
	int64_t until = clock_now() + 120000;
	const struct question question = question_here();
	struct helper_answer answer;
	struct problem why;
	struct sigaction now;
	pid_t task;
	int status;

	CHECK(waiting != NULL, "there is memory");
	CHECK(signal(SIGTERM, do_nothing) != SIG_ERR, "it is handled");
	task = start_task(waiting, until, false);
	wait_for_lines("asked", 2);
	CHECK(kill(task, SIGTERM) == 0, "it waits");
	CHECK(waitpid(task, &status, 0) == task, "it was there");
	CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM, "the signal ended it");
	write_file("there", "");
	CHECK(waiting_wait(waiting, &question, until, -1, &answer, &why) == ANSWERED, why.text);
	helper_free(&answer);
	CHECK(sigaction(SIGTERM, NULL, &now) == 0 && now.sa_handler == do_nothing, "it is handled again");
	CHECK(signal(SIGTERM, SIG_DFL) != SIG_ERR, "it is not handled");
	waiting_end(waiting);
	clear();
}

static void give_up_together(void)
{
	struct waiting *waiting = waiting_start(&nobody);
	int64_t until = clock_now() + 1500;
	pid_t tasks[TASKS];
	struct helper_answer answer;
	struct problem why;

	CHECK(waiting != NULL, "there is memory");
	for (int i = 0; i < TASKS; i++)
		tasks[i] = start_task(waiting, until, false);
	for (int i = 0; i < TASKS; i++)
		CHECK(exit_code(tasks[i]) == UNANSWERED, "there is none");
	CHECK(clock_now() >= until, "they waited");
	CHECK(waiting_read(waiting, &answer, &why) == UNANSWERED, "there is none");
	CHECK(strcmp(why.text, "Nobody is there.") == 0, why.text);
	waiting_end(waiting);
	clear();
}

int main(void)
{
	char *place = strstr(in_directory, "/tmp/");

	CHECK(mkdtemp(directory) != NULL, directory);
	memcpy(place, directory, strlen(directory));
	CHECK(chdir(directory) == 0, directory);
	write_file("script", script);
	share_an_answer(false);
	share_an_answer(true);
	end_by_a_signal();
	give_up_together();
	CHECK(unlink("script") == 0 && chdir("/") == 0 && rmdir(directory) == 0, "nothing is left");
	return 0;
}
