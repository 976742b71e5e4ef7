/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "remote.h"

#include <inttypes.h>
#include <slurm/slurm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "helper.h"
#include "output.h"
#include "stale.h"
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
#define RANDOM_LENGTH (sizeof("0123456789abcdef") - 1)
#define TIME_LENGTH (sizeof("18446744073709551615.999") - 1)

/* How the helper is told which step this is. */
static char job[NUMBER_LENGTH + 1];
static char step_id[sizeof("interactive")]; /* As Slurm writes it; empty if this node does not report it. */
static char step_mark[NUMBER_LENGTH + sizeof(step_id) + RANDOM_LENGTH + 2]; /* The value of STEP_ID, or "". */
static bool began;			    /* It was told that it began. */
static bool failed;			    /* A task of it failed, or was killed. */
static char *user_key;			    /* The user's own, for telling that it has ended; NULL without. */

/*
 * Whether nothing here says if the job has a QPU. A batch job that sbatch did not submit (but slurmrestd, say) has
 * nothing of ours in its environment, whatever the controller's hooks have done for it.
 */
static bool unasked;

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
static bool may_have_qpu(spank_t spank, const struct arguments *arguments, const char *option)
{
	uint32_t step = 0;

	(void)spank_get_item(spank, S_JOB_STEPID, &step);
	if (step == SLURM_EXTERN_CONT)
		return false; /* It runs nothing of the user's. */
	if (option != NULL || is_set(spank, JOB_QPU) || is_set(spank, JOB_RESOURCES) || is_set(spank, ATTACHED))
		return true;
	if (arguments == NULL)
		return false;
	/* sbatch leaves the directory that it was called in there, whatever --export says. */
	unasked = step == SLURM_BATCH_SCRIPT && !is_set(spank, "SLURM_SUBMIT_DIR");
	if (unasked || in_gres_partition(spank, &arguments->gres_partitions))
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
	if (unasked) {
		/* Most such jobs want no QPU: none of them may fail for our trouble. */
		slurm_info("qpu_slurm: %s: %s; the job starts without a QPU", what, why);
		return;
	}
	char node[256] = "this node";

	(void)gethostname(node, sizeof(node) - 1);
	(void)problem_set(&refusal,
			  "the QPU cannot be used on %s: %s: %s; report this to your cluster's admin", node, what,
			  why);
	slurm_info("qpu_slurm: %s", refusal.text);
}

/*
 * Have the step lose what an earlier step of the job, or another job, left in its environment and the helper
 * does not set: a session that is closed by now, say.
 */
static void unset_stale(spank_t spank, const struct output *output, const struct names *qpus)
{
	bool inherited = is_set(spank, JOB_RESOURCES);
	char **env = NULL;

	if (output->count == 0 && !(inherited && is_set(spank, ATTACHED)))
		return; /* What is there is the user's own. */
	if (spank_get_item(spank, S_JOB_ENV, &env) != ESPANK_SUCCESS || env == NULL)
		return;
	for (size_t i = 0; env[i] != NULL;) {
		const char *equals = strchr(env[i], '=');
		char *name = equals == NULL ? NULL : strndup(env[i], (size_t)(equals - env[i]));

		/* The rest of the list moves up: the next one is then at this place. */
		if (name == NULL || !stale_is(name, qpus, inherited) || output_value(output, name) != NULL ||
		    spank_unsetenv(spank, name) != ESPANK_SUCCESS)
			i++;
		free(name);
	}
}

static void set_all(spank_t spank, const struct output *output)
{
	for (size_t i = 0; i < output->count; i++) {
		const struct variable *variable = &output->variables[i];

		if (!(output_is_trust(variable->name) && is_set(spank, variable->name)) &&
		    spank_setenv(spank, variable->name, variable->value, 1) != ESPANK_SUCCESS)
			refuse(variable->name, "it cannot be set");
	}
}

/*
 * Refuse a --qpu that the job does not have: a step gets no QPU of its own. A job for which nothing was acquired
 * goes on: its programs say why they have no QPU.
 */
static void check_option(spank_t spank, const struct output *output, const char *option)
{
	const char *has = output_value(output, JOB_RESOURCES);
	struct names asked, held = {0};
	struct problem why;

	if (option == NULL || (has == NULL && is_set(spank, JOB_QPU) && !is_set(spank, ATTACHED)))
		return;
	if (!names_parse(&asked, "--qpu", option, name_is_guess, NAMES_MAX, &why)) {
		(void)problem_set(&refusal, "%s", why.text);
		return;
	}
	if (has == NULL || names_parse(&held, JOB_RESOURCES, has, name_is_qpu, SIZE_MAX, &why)) {
		for (size_t i = 0; i < asked.count && refusal.text[0] == '\0'; i++)
			if (!names_contain(&held, asked.items[i]))
				(void)problem_set(&refusal,
						  "--qpu: this job does not have %s; it has %s. A job gets its QPUs when "
						  "it is submitted, and a step needs no --qpu.",
						  asked.items[i], has == NULL ? "no QPU" : has);
	}
	names_free(&asked);
	names_free(&held);
}

/* Tell the step's programs that the plugin ran here, and which step it is if its end is reported. */
static void set_marks(spank_t spank)
{
	char node[256] = "";
	uint64_t number;

	(void)gethostname(node, sizeof(node) - 1);
	(void)spank_setenv(spank, STEP_NODE, node, 1);
	/* The batch script and the interactive step end with their job. */
	if (began && step_id[0] >= '0' && step_id[0] <= '9' &&
	    getrandom(&number, sizeof(number), GRND_NONBLOCK) == (ssize_t)sizeof(number))
		snprintf(step_mark, sizeof(step_mark), "%s.%s.%016" PRIx64, job, step_id, number);
	if (step_mark[0] != '\0')
		(void)spank_setenv(spank, STEP_ID, step_mark, 1);
	else
		(void)spank_unsetenv(spank, STEP_ID);
}

/* Take what the helper said: the job's variables, or why it must not run. */
static void take(spank_t spank, const struct helper_answer *answer, const struct arguments *arguments,
		 const char *option)
{
	const char *helper = arguments->helper;
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
			unasked = false; /* It has one: now whatever goes wrong is told. */
		unset_stale(spank, &output, &arguments->qpus);
		set_all(spank, &output);
		began = step_id[0] != '\0' && output.count > 0;
		set_marks(spank);
		check_option(spank, &output, option);
	}
	if (output.dropped > 0)
		slurm_info("qpu_slurm: %s: ignored %zu variables that are not the plugin's, such as %s", helper,
			   output.dropped, output.first_dropped);
	output_free(&output);
}

void remote_set_variables(spank_t spank, const struct arguments *arguments, const struct problem *mistake,
			  const char *option)
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

	if (!may_have_qpu(spank, arguments, option))
		return;
	if (arguments == NULL) {
		refuse("plugstack.conf", mistake->text);
		return;
	}
	if (spank_get_item(spank, S_JOB_ID, &job_id) != ESPANK_SUCCESS) {
		refuse("Slurm", "it does not report the job's number");
		return;
	}
	snprintf(job, sizeof(job), "%" PRIu32, job_id);
	find_step(spank, name + strlen(name));
	write_now(at);
	const char *const report[] = {"--step", step_id, name, "--at", at, NULL};
	const char *argv[6 + COUNT(report)] = {arguments->helper, "--config", arguments->config, "job-env", job};
	size_t count = 5;
	if (unasked)
		argv[count++] = "--unasked";
	if (step_id[0] != '\0')
		memcpy(argv + count, report, sizeof(report));
	if (arguments->user_credentials.count > 0 && find_key(spank, value, room)) {
		envp[1] = key;
		/* Steps find it there, whatever the helper puts into QISKIT_IBM_TOKEN. */
		(void)spank_setenv(spank, JOB_API_KEY, value, 1);
		user_key = strdup(key);
	}
	if (helper_run(&answer, argv, envp, HELPER_MILLISECONDS, HELPER_LIMIT, &why)) {
		take(spank, &answer, arguments, option);
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

void remote_see_task_end(spank_t spank)
{
	int status = 0;

	if (spank_get_item(spank, S_TASK_EXIT_STATUS, &status) == ESPANK_SUCCESS && status != 0)
		failed = true;
}

void remote_report_end(const struct arguments *arguments)
{
	bool look = failed && step_mark[0] != '\0'; /* for tasks that nobody waits for any more */
	const char *const envp[] = {PATH_ONLY, look ? user_key : NULL, NULL};
	char at[TIME_LENGTH + 1];
	struct problem why;

	if (!began)
		return;
	write_now(at);
	const char *const argv[] = {
		arguments->helper, "--config", arguments->config, "step-end", job, step_id, "--at", at,
		look ? "--cancel" : NULL, step_mark, NULL,
	};
	if (!helper_leave(argv, envp, REPORT_SECONDS, &why))
		slurm_info("qpu_slurm: %s: %s", arguments->helper, why.text);
}
