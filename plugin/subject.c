/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "subject.h"

#include <inttypes.h>
#include <slurm/slurm.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "environment.h"
#include "step.h"
#include "variables.h"

static bool in_gres_partition(spank_t spank, const struct names *partitions)
{
	char partition[NAME_LENGTH + 1];

	if (names_contain(partitions, "*"))
		return true;
	return spank_getenv(spank, "SLURM_JOB_PARTITION", partition, sizeof(partition)) == ESPANK_SUCCESS &&
	       names_contain(partitions, partition);
}

bool subject_may_have_qpu(struct subject *subject, spank_t spank, const struct arguments *arguments,
			  const char *option)
{
	uint32_t step = 0;

	(void)spank_get_item(spank, S_JOB_STEPID, &step);
	if (step == SLURM_EXTERN_CONT)
		return false; /* It runs nothing of the user's. */
	if (option != NULL || environment_has(spank, JOB_QPU) || environment_has(spank, JOB_RESOURCES) ||
	    environment_has(spank, ATTACHED))
		return true;
	if (arguments == NULL)
		return false;
	/* sbatch leaves the directory that it was called in there, whatever --export says. */
	subject->unasked = step == SLURM_BATCH_SCRIPT && !environment_has(spank, "SLURM_SUBMIT_DIR");
	if (subject->unasked || in_gres_partition(spank, &arguments->gres_partitions))
		return true;
	/*
	 * --qpu of another component leaves no trace in a heterogeneous job's script. So such scripts ask;
	 * their steps inherit the answer.
	 */
	return (step == SLURM_BATCH_SCRIPT || step == SLURM_INTERACTIVE_STEP) &&
	       environment_has(spank, "SLURM_HET_SIZE");
}

/*
 * Find the user's key: the published one, or where only another component published it, the exported one.
 * Once the helper's variables are there, the latter may be a key that the admin shares.
 */
static bool find_key(spank_t spank, char *key, int size)
{
	return spank_getenv(spank, JOB_API_KEY, key, size) == ESPANK_SUCCESS ||
	       (!environment_has(spank, JOB_RESOURCES) &&
		spank_getenv(spank, USER_API_KEY, key, size) == ESPANK_SUCCESS);
}

void subject_write_now(char text[SUBJECT_TIME_LENGTH + 1])
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	snprintf(text, SUBJECT_TIME_LENGTH + 1, "%ju.%03ld", (uintmax_t)now.tv_sec, now.tv_nsec / 1000000);
}

static void mark_step(struct subject *subject)
{
	uint64_t number;

	if (getrandom(&number, sizeof(number), GRND_NONBLOCK) == (ssize_t)sizeof(number))
		snprintf(subject->mark, sizeof(subject->mark), "%s.%s.%016" PRIx64, subject->job, subject->step,
			 number);
}

/* Find out what the step is called, on its first node: the others would report the same. */
static void find_step(struct subject *subject, spank_t spank, char name[STEP_NAME_LENGTH + 1])
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
		strcpy(subject->step, "batch");
		strcpy(name, "batch");
	} else if (id == SLURM_INTERACTIVE_STEP) {
		strcpy(subject->step, "interactive");
	} else {
		snprintf(subject->step, sizeof(subject->step), "%" PRIu32, id);
		mark_step(subject);
	}
}

bool subject_find(struct subject *subject, spank_t spank, const struct arguments *arguments)
{
	static const char *argv[14], *envp[] = {HELPER_PATH, NULL, NULL};
	static char name[sizeof("--name=") + STEP_NAME_LENGTH] = "--name="; /* Of one piece: see step_name. */
	static char at[SUBJECT_TIME_LENGTH + 1];
	char key[sizeof(HELPER_API_KEY "=") + API_KEY_LENGTH] = HELPER_API_KEY "=";
	char *value = key + strlen(key);
	const int room = API_KEY_LENGTH + 1;
	uint32_t job;
	uid_t user;
	size_t count = 0;

	if (spank_get_item(spank, S_JOB_ID, &job) != ESPANK_SUCCESS ||
	    spank_get_item(spank, S_JOB_UID, &user) != ESPANK_SUCCESS)
		return false;
	snprintf(subject->job, sizeof(subject->job), "%" PRIu32, job);
	snprintf(subject->user, sizeof(subject->user), "%" PRIu32, (uint32_t)user);
	find_step(subject, spank, name + strlen(name));
	argv[count++] = arguments->helper;
	argv[count++] = "--config";
	argv[count++] = arguments->config;
	argv[count++] = "job-env";
	argv[count++] = subject->job;
	argv[count++] = "--user";
	argv[count++] = subject->user;
	if (subject->unasked)
		argv[count++] = "--unasked";
	if (subject->step[0] != '\0') {
		subject_write_now(at);
		argv[count++] = "--step";
		argv[count++] = subject->step;
		argv[count++] = name;
		argv[count++] = "--at";
		argv[count++] = at;
	}
	if (arguments->user_credentials.count > 0 && find_key(spank, value, room)) {
		/* Steps find it there, whatever the helper puts into QISKIT_IBM_TOKEN. */
		(void)spank_setenv(spank, JOB_API_KEY, value, 1);
		subject->user_key = strdup(key);
		envp[1] = subject->user_key;
	}
	explicit_bzero(key, sizeof(key));
	subject->question = (struct question){argv, envp, subject->unasked};
	return true;
}
