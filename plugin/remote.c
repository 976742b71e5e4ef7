/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "remote.h"

#include <slurm/slurm.h>
#include <stdio.h>
#include <unistd.h>

#include "clock.h"
#include "environment.h"
#include "helper.h"
#include "option.h"
#include "output.h"
#include "question.h"
#include "subject.h"
#include "variables.h"
#include "waiting.h"

enum {
	/*
	 * For asking in slurmstepd, which does nothing else meanwhile: where tasks can wait, and where they cannot. Both
	 * are below Slurm's MessageTimeout (10 s), after which the node would count as not responding.
	 */
	SHORT_TRY = 1000,
	LONG_TRY = 7000,
	/* For telling that a step has ended. */
	REPORT_SECONDS = 8,
};

static struct subject subject;
static bool began;  /* The helper was told that the step began. */
static bool failed; /* A task of it failed, or was killed. */

/* Why this job must not run; empty if it may. Tasks are forks of slurmstepd, so they see it. */
static struct problem refusal;

/* What the job's user is told as the step begins; empty if there is nothing. Tasks see it likewise. */
static struct problem notice;

/* Where the tasks wait for the helper's answer, and until when; NULL if slurmstepd has it. */
static struct waiting *waiting;
static int64_t waiting_until;
static bool in_task;

/* Write into the node's log. A task's log is what its user reads. */
static void note(const char *about, const char *what)
{
	if (!in_task)
		slurm_info("qpu_slurm: %s: %s", about, what);
}

/* What a user can do nothing about; the log of slurmd has it as well. */
static void refuse(const char *what, const char *why)
{
	if (subject.unasked) {
		/* Most such jobs want no QPU: none of them may fail for our trouble. */
		note(what, why);
		return;
	}
	char node[256] = "this node";

	(void)gethostname(node, sizeof(node) - 1);
	(void)problem_set(&refusal,
			  "the QPU cannot be used on %s: %s: %s; report this to your cluster's admin", node, what,
			  why);
	note(what, why);
}

static void refuse_option(const char *asked, const char *has)
{
	(void)problem_set(&refusal,
			  "--qpu: this job does not have %s; it has %s. A job gets its QPUs when it is submitted, and a "
			  "step needs no --qpu.",
			  asked, has == NULL ? "no QPU" : has);
}

/*
 * Refuse a --qpu that the job does not have: a step gets no QPU of its own. A job for which nothing was acquired
 * goes on: its programs say why they have no QPU.
 */
static void check_option(spank_t spank, const struct output *output, const char *option)
{
	const char *has = output_value(output, JOB_RESOURCES);
	struct names held = {0};
	struct option asked;
	struct problem why;
	bool met;

	if (option == NULL || (has == NULL && environment_has(spank, JOB_QPU) && !environment_has(spank, ATTACHED)))
		return;
	if (!option_parse(&asked, option, name_is_guess, &why)) {
		(void)problem_set(&refusal, "%s", why.text);
		return;
	}
	if (has == NULL || names_parse(&held, JOB_RESOURCES, has, name_is_qpu, SIZE_MAX, &why)) {
		for (size_t i = 0; i < asked.named.count && refusal.text[0] == '\0'; i++)
			if (!names_contain(&held, asked.named.items[i]))
				refuse_option(asked.named.items[i], has);
		/* A choice was made when the job started. Here it is met by what the job has of it. */
		met = !option_has_choice(&asked) || (asked.any && held.count > 0);
		for (size_t i = 0; i < asked.offered.count; i++)
			met = met || names_contain(&held, asked.offered.items[i]);
		if (!met && refusal.text[0] == '\0')
			refuse_option(option, has);
	}
	option_free(&asked);
	names_free(&held);
}

/* Tell the step's programs that the plugin ran here, and which step it is if its end is reported. */
static void set_marks(spank_t spank)
{
	char node[256] = "";

	(void)gethostname(node, sizeof(node) - 1);
	(void)spank_setenv(spank, STEP_NODE, node, 1);
	if (began && subject.mark[0] != '\0')
		(void)spank_setenv(spank, STEP_ID, subject.mark, 1);
	else
		(void)spank_unsetenv(spank, STEP_ID);
}

/* Whether the step is known to have begun, where its end is told. */
static bool has_begun(const struct output *output)
{
	return subject.step[0] != '\0' && output->error == NULL && output->count > 0;
}

/* Take what the helper said: the job's variables, or why it must not run. */
static void take(spank_t spank, const struct helper_answer *answer, const struct arguments *arguments,
		 const char *option)
{
	const char *helper = arguments->helper, *unset;
	struct problem why;
	struct output output;
	bool parsed = output_parse(&output, answer->text, answer->length, &why);

	if (parsed && output.error != NULL) {
		(void)problem_set(&refusal, "%s", output.error);
	} else if (answer->exit_code != 0) {
		(void)problem_set(&why, "it exited with %d", answer->exit_code);
		refuse(helper, why.text);
	} else if (!parsed) {
		refuse(helper, why.text);
	} else {
		if (output.count > 0)
			subject.unasked = false; /* It has one: now whatever goes wrong is told. */
		if (output_value(&output, JOB_NOTICE) != NULL)
			(void)problem_set(&notice, "%s", output_value(&output, JOB_NOTICE));
		unset = environment_update(spank, &output, &arguments->qpus);
		if (unset != NULL)
			refuse(unset, "it cannot be set");
		began = has_begun(&output);
		set_marks(spank);
		check_option(spank, &output, option);
	}
	if (output.dropped > 0) {
		(void)problem_set(&why, "ignored %zu variables that are not the plugin's, such as %s", output.dropped,
				  output.first_dropped);
		note(helper, why.text);
	}
	output_free(&output);
}

/* Go on without an answer: the job must not run, unless most of its kind want no QPU. */
static void give_up(const struct problem *sentence)
{
	if (subject.unasked)
		note("the job starts without a QPU", sentence->text);
	else
		refusal = *sentence;
}

void remote_set_variables(spank_t spank, const struct arguments *arguments, const struct problem *mistake,
			  const char *option)
{
	struct helper_answer answer;
	enum outcome outcome;
	struct problem why;

	if (!subject_may_have_qpu(&subject, spank, arguments, option))
		return;
	if (arguments == NULL) {
		refuse("plugstack.conf", mistake->text);
		return;
	}
	if (!subject_find(&subject, spank, arguments)) {
		refuse("Slurm", "it does not report the job's number");
		return;
	}
	waiting_until = clock_now() + (int64_t)arguments->step_patience * 1000;
	if (arguments->step_patience > 0)
		outcome = question_ask(&subject.question, HELPER_APART, SHORT_TRY, &answer, &why);
	else
		outcome = question_pursue(&subject.question, HELPER_APART, clock_now() + LONG_TRY, NULL, NULL, &answer, &why);
	switch (outcome) {
	case ANSWERED:
		take(spank, &answer, arguments, option);
		helper_free(&answer);
		break;
	case UNANSWERED:
		waiting = arguments->step_patience > 0 ? waiting_start(&why) : NULL;
		if (waiting != NULL)
			note("the step waits", why.text);
		else
			give_up(&why);
		break;
	case BROKEN:
		refuse(arguments->helper, why.text);
		break;
	}
}

/* In the task: wait for what slurmstepd could not find out. */
static void wait_for_answer(spank_t spank, const struct arguments *arguments, const char *option, bool tells)
{
	struct helper_answer answer;
	struct problem why;

	switch (waiting_wait(waiting, &subject.question, waiting_until, tells ? STDERR_FILENO : -1, &answer, &why)) {
	case ANSWERED:
		take(spank, &answer, arguments, option);
		helper_free(&answer);
		break;
	case UNANSWERED:
		if (!subject.unasked)
			(void)problem_set(&refusal, "%s There was no answer for %lu s. Submit the job again later.",
					  why.text, arguments->step_patience);
		else if (tells)
			dprintf(STDERR_FILENO, "qpu_slurm: %s The job starts without a QPU.\n", why.text);
		break;
	case BROKEN:
		refuse(arguments->helper, why.text);
		break;
	}
}

void remote_start_task(spank_t spank, const struct arguments *arguments, const char *option)
{
	int task = 0;

	(void)spank_get_item(spank, S_TASK_ID, &task);
	in_task = true;
	if (waiting != NULL)
		wait_for_answer(spank, arguments, option, task == 0);
	if (refusal.text[0] == '\0') {
		if (task == 0 && notice.text[0] != '\0')
			dprintf(STDERR_FILENO, "qpu_slurm: %s\n", notice.text);
		return;
	}
	if (task == 0)
		dprintf(STDERR_FILENO, "qpu_slurm: %s\n", refusal.text);
	/*
	 * As Slurm does when a plugin's task_init fails, but without two lines of its own about plugins, and
	 * under `optional` in plugstack.conf as well. The job is FAILED, and the node stays as it is.
	 */
	_exit(1);
}

/* In slurmstepd: learn what the tasks have learnt. */
static void read_answer(void)
{
	struct helper_answer answer;
	struct problem why;
	struct output output;

	if (waiting_read(waiting, &answer, &why) != ANSWERED) {
		note("the step had no answer", why.text);
	} else if (output_parse(&output, answer.text, answer.length, &why)) {
		began = has_begun(&output);
		output_free(&output);
	}
	helper_free(&answer);
	waiting_end(waiting);
	waiting = NULL;
}

void remote_see_task_end(spank_t spank)
{
	int status = 0;

	if (spank_get_item(spank, S_TASK_EXIT_STATUS, &status) == ESPANK_SUCCESS && status != 0)
		failed = true;
}

void remote_report_end(const struct arguments *arguments)
{
	bool look = failed && subject.mark[0] != '\0'; /* for tasks that nobody waits for any more */
	const char *const envp[] = {HELPER_PATH, look ? subject.user_key : NULL, NULL};
	char at[SUBJECT_TIME_LENGTH + 1];
	struct problem why;

	if (waiting != NULL)
		read_answer();
	if (!began)
		return;
	subject_write_now(at);
	const char *const argv[] = {
		arguments->helper, "--config", arguments->config, "step-end", subject.job, subject.step,
		"--user", subject.user, "--at", at, look ? "--cancel" : NULL, subject.mark, NULL,
	};
	if (!helper_leave(argv, envp, REPORT_SECONDS, &why))
		slurm_info("qpu_slurm: %s: %s", arguments->helper, why.text);
}
