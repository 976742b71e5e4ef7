/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "remote.h"

#include <inttypes.h>
#include <slurm/slurm.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "helper.h"
#include "output.h"
#include "step.h"
#include "variables.h"

enum {
	/*
	 * Below Slurm's MessageTimeout (10 s): slurmd does not answer for a job, such as to scancel, before its
	 * slurmstepd has come so far, and would count as not responding.
	 */
	HELPER_MILLISECONDS = 8000,
	HELPER_LIMIT = 64 * 1024,
	/* For telling that a step has ended. */
	REPORT_SECONDS = 8,
};

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))
#define PATH_ONLY "PATH=/usr/bin:/bin"
#define NUMBER_LENGTH (sizeof("4294967295") - 1)
#define TIME_LENGTH (sizeof("18446744073709551615.999") - 1)

/* How the helper is told which step this is. */
static char job[NUMBER_LENGTH + 1];
static char step_id[sizeof("interactive")]; /* As Slurm writes it; empty if this node does not report it. */
static bool began;			    /* It was told that it began. */

/* Why this job must not run; empty if it may. Tasks are forks of slurmstepd, so they see it. */
static struct problem refusal;

static bool is_set(spank_t spank, const char *name)
{
	char value[2] = ""; /* What does not fit is cut, and said so: set it is. */

	return spank_getenv(spank, name, value, sizeof(value)) != ESPANK_ENV_NOEXIST && value[0] != '\0';
}

static bool in_gres_partition(spank_t spank, const struct names *partitions)
{
	char partition[NAME_LENGTH + 1];

	if (names_contain(partitions, "*"))
		return true;
	return spank_getenv(spank, "SLURM_JOB_PARTITION", partition, sizeof(partition)) == ESPANK_SUCCESS &&
	       names_contain(partitions, partition);
}

/*
 * Whether the step's job may have a QPU. Each of these can be forged by the user, who gains nothing: what
 * the helper says does not depend on it.
 */
static bool may_have_qpu(spank_t spank, const struct arguments *arguments, bool option_given)
{
	uint32_t step = 0;

	(void)spank_get_item(spank, S_JOB_STEPID, &step);
	if (step == SLURM_EXTERN_CONT)
		return false; /* It runs nothing of the user's. */
	if (option_given || is_set(spank, JOB_QPU) || is_set(spank, JOB_RESOURCES))
		return true;
	if (arguments == NULL)
		return false;
	if (in_gres_partition(spank, &arguments->gres_partitions))
		return true;
	/*
	 * --qpu of another component leaves no trace in a heterogeneous job's script. So such scripts ask;
	 * their steps inherit the answer.
	 */
	return (step == SLURM_BATCH_SCRIPT || step == SLURM_INTERACTIVE_STEP) && is_set(spank, "SLURM_HET_SIZE");
}

/*
 * Find the user's key: the published one, or where only another component published it, the exported one.
 * Once the helper's variables are there, the latter may be a key that the admin shares.
 */
static bool find_key(spank_t spank, char *key, int size)
{
	return spank_getenv(spank, JOB_API_KEY, key, size) == ESPANK_SUCCESS ||
	       (!is_set(spank, JOB_RESOURCES) && spank_getenv(spank, USER_API_KEY, key, size) == ESPANK_SUCCESS);
}

/* Write the time as the helper reads it: seconds, with a fraction. */
static void write_now(char text[TIME_LENGTH + 1])
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(text, TIME_LENGTH + 1, "%ju.%03ld", (uintmax_t)now.tv_sec, now.tv_nsec / 1000000);
}

/* Find out what the step is called, on its first node: the others would report the same. */
static void find_step(spank_t spank, char name[STEP_NAME_LENGTH + 1])
{
	uint32_t id = SLURM_EXTERN_CONT, node = 1;
	char **argv = NULL;
	int argc = 0;

	if (spank_get_item(spank, S_JOB_STEPID, &id) != ESPANK_SUCCESS ||
	    spank_get_item(spank, S_JOB_NODEID, &node) != ESPANK_SUCCESS || node != 0)
		return;
	if (spank_get_item(spank, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS || argv == NULL)
		argc = 0;
	step_name(name, argc, argv);
	if (id == SLURM_BATCH_SCRIPT) {
		/* What runs is Slurm's copy of the script, which has no name of the user's. */
		strcpy(step_id, "batch");
		strcpy(name, "batch");
	} else if (id == SLURM_INTERACTIVE_STEP) {
		strcpy(step_id, "interactive");
	} else {
		snprintf(step_id, sizeof(step_id), "%" PRIu32, id);
	}
}

/* What a user can do nothing about; the log of slurmd has it as well. */
static void refuse(const char *what, const char *why)
{
	char node[256] = "this node";

	(void)gethostname(node, sizeof(node) - 1);
	(void)problem_set(&refusal, "the QPU cannot be used on %s: %s: %s; tell your administrator", node, what,
			  why);
	slurm_info("qpu_slurm: %s", refusal.text);
}

static void set_all(spank_t spank, const struct output *output)
{
	for (size_t i = 0; i < output->count; i++) {
		const struct variable *variable = &output->variables[i];

		if (spank_setenv(spank, variable->name, variable->value, 1) != ESPANK_SUCCESS)
			refuse(variable->name, "it cannot be set");
	}
}

/* Take what the helper said: the job's variables, or why it must not run. */
static void take(spank_t spank, const struct helper_answer *answer, const char *helper)
{
	struct problem why;
	struct output output;
	bool parsed = output_parse(&output, answer->text, answer->length, &why);

	if (parsed && output.error != NULL) {
		(void)problem_set(&refusal, "%s", output.error);
	} else if (answer->exit_code != 0) {
		(void)problem_set(&why, "it ended with %d", answer->exit_code);
		refuse(helper, why.text);
	} else if (!parsed) {
		refuse(helper, why.text);
	} else {
		set_all(spank, &output);
		began = step_id[0] != '\0' && output.count > 0;
	}
	if (output.dropped > 0)
		slurm_info("qpu_slurm: %s: %zu variables are none of ours and were left out, such as %s", helper,
			   output.dropped, output.first_dropped);
	output_free(&output);
}

void remote_set_variables(spank_t spank, const struct arguments *arguments, const struct problem *mistake,
			  bool option_given)
{
	char key[sizeof(HELPER_API_KEY "=") + API_KEY_LENGTH] = HELPER_API_KEY "=";
	char *value = key + strlen(key);
	const int room = API_KEY_LENGTH + 1;
	const char *envp[] = {PATH_ONLY, NULL, NULL};
	/* Of one piece, since it may begin with a hyphen. */
	char name[sizeof("--name=") + STEP_NAME_LENGTH] = "--name=";
	char at[TIME_LENGTH + 1];
	struct helper_answer answer;
	struct problem why;
	uint32_t job_id;

	if (!may_have_qpu(spank, arguments, option_given))
		return;
	if (arguments == NULL) {
		refuse("plugstack.conf", mistake->text);
		return;
	}
	if (spank_get_item(spank, S_JOB_ID, &job_id) != ESPANK_SUCCESS) {
		refuse("Slurm", "it does not say which job this is");
		return;
	}
	snprintf(job, sizeof(job), "%" PRIu32, job_id);
	find_step(spank, name + strlen(name));
	write_now(at);
	const char *const report[] = {"--step", step_id, name, "--at", at, NULL};
	const char *argv[5 + COUNT(report)] = {arguments->helper, "--config", arguments->config, "job-env", job};
	if (step_id[0] != '\0')
		memcpy(argv + 5, report, sizeof(report));
	if (arguments->user_credentials.count > 0 && find_key(spank, value, room)) {
		envp[1] = key;
		/* Steps find it there, whatever the helper puts into QISKIT_IBM_TOKEN. */
		(void)spank_setenv(spank, JOB_API_KEY, value, 1);
	}
	if (helper_run(&answer, argv, envp, HELPER_MILLISECONDS, HELPER_LIMIT, &why)) {
		take(spank, &answer, arguments->helper);
		helper_free(&answer);
	} else {
		refuse(arguments->helper, why.text);
	}
	explicit_bzero(key, sizeof(key));
}

void remote_check_task(spank_t spank)
{
	int task = 0;

	if (refusal.text[0] == '\0')
		return;
	(void)spank_get_item(spank, S_TASK_ID, &task);
	if (task == 0)
		dprintf(STDERR_FILENO, "qpu_slurm: %s\n", refusal.text);
	/*
	 * As Slurm does when a plugin's task_init fails, but without two lines of its own about plugins, and
	 * under `optional` in plugstack.conf as well. The job is FAILED, and the node stays as it is.
	 */
	_exit(1);
}

void remote_report_end(const struct arguments *arguments)
{
	const char *const envp[] = {PATH_ONLY, NULL};
	char at[TIME_LENGTH + 1];
	struct problem why;

	if (!began)
		return;
	write_now(at);
	const char *const argv[] = {
		arguments->helper, "--config", arguments->config, "step-end", job, step_id, "--at", at, NULL,
	};
	if (!helper_leave(argv, envp, REPORT_SECONDS, &why))
		slurm_info("qpu_slurm: %s: %s", arguments->helper, why.text);
}
