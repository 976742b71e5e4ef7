/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "allocator.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "option.h"
#include "output.h"
#include "variables.h"

extern char **environ;

/* sbatch and salloc always submit a job; srun does so outside of one, and starts a step of it inside. */
static bool submits_a_job(void)
{
	return spank_context() == S_CTX_ALLOCATOR || getenv("SLURM_JOB_ID") == NULL;
}

/*
 * Whether srun's command line has --jobid, or an abbreviation of it. SPANK tells no one of it, so the first
 * kilobytes of the command line are read. A program's own --jobid behind it counts as well, which only costs a
 * question: see allocator_mark_attached.
 */
static bool names_a_job(void)
{
	static const char shortest[] = "--jobi";
	char line[16384];
	int file = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC);
	ssize_t length = file < 0 ? -1 : read(file, line, sizeof(line) - 1);

	if (file >= 0)
		close(file);
	if (length <= 0)
		return false;
	line[length] = '\0';
	for (const char *argument = line; argument < line + length; argument += strlen(argument) + 1)
		if (strncmp(argument, shortest, strlen(shortest)) == 0)
			return true;
	return false;
}

/* Whether the environment names a job without being that of a program in one, which has the job's nodes. */
static bool exports_a_job(void)
{
	bool named = getenv("SLURM_JOB_ID") != NULL || getenv("SLURM_JOBID") != NULL;

	return named && getenv("SLURM_JOB_NODELIST") == NULL;
}

void allocator_mark_attached(void)
{
	if (spank_context() == S_CTX_LOCAL && (exports_a_job() || names_a_job()))
		(void)setenv(ATTACHED, "1", 1);
	else
		(void)unsetenv(ATTACHED);
}

/* The key that is in the environment is the one that the helper put there, not one that the user exported. */
static bool key_is_of_outer_job(const char *key)
{
	for (char **entry = environ; key != NULL && *entry != NULL; entry++) {
		const char *equals = strchr(*entry, '=');
		const char *qrmi = strstr(*entry, "_QRMI_");

		if (equals != NULL && qrmi != NULL && qrmi < equals && strcmp(equals + 1, key) == 0)
			return true;
	}
	return false;
}

/* Unset all that the helper may have set. */
static void unset_variables_of_outer_job(void)
{
	for (size_t i = 0; environ != NULL && environ[i] != NULL;) {
		const char *equals = strchr(environ[i], '=');
		char *name = equals == NULL ? NULL : strndup(environ[i], (size_t)(equals - environ[i]));

		/* unsetenv moves the rest of the list up: the next one is then at this place. */
		if (name == NULL || strcmp(name, USER_API_KEY) == 0 || !output_is_ours(name) ||
		    unsetenv(name) != 0)
			i++;
		free(name);
	}
}

void allocator_forget_outer_job(void)
{
	static const char *const handed_on[] = {JOB_QPU,	JOB_SESSION,   JOB_API_KEY,    QPU_OPTION,
						SESSION_OPTION, JOB_QPU_OPTION, JOB_SESSION_OPTION};
	const char *key = getenv(JOB_API_KEY);

	if (!submits_a_job())
		return;
	if (getenv(JOB_QPU) != NULL || getenv(JOB_RESOURCES) != NULL) {
		/* The outer job's key may be one that the admin shares: give the user's own one back. */
		if (key_is_of_outer_job(getenv(USER_API_KEY))) {
			if (key == NULL || setenv(USER_API_KEY, key, 1) != 0)
				unsetenv(USER_API_KEY);
		}
		unset_variables_of_outer_job();
	}
	for (size_t i = 0; i < sizeof(handed_on) / sizeof(handed_on[0]); i++)
		unsetenv(handed_on[i]);
}

bool allocator_is_scrontab(void)
{
	return strcmp(program_invocation_short_name, "scrontab") == 0;
}

/* The first of these QPUs that is used with the user's own key, or NULL. */
static const char *needs_key(const struct arguments *arguments, const struct names *qpus)
{
	for (size_t i = 0; i < qpus->count; i++)
		if (names_contain(&arguments->user_credentials, qpus->items[i]))
			return qpus->items[i];
	return NULL;
}

/*
 * A QPU for which the job has to have the user's own key, or NULL: one that it gets, or all that it may be given
 * instead of each other.
 */
static const char *must_have_key(const struct arguments *arguments, const struct option *option)
{
	const struct names *offered = option->any ? &arguments->qpus : &option->offered;
	const char *qpu = needs_key(arguments, &option->named);

	if (qpu != NULL || !option_has_choice(option))
		return qpu;
	for (size_t i = 0; i < offered->count; i++)
		if (!names_contain(&arguments->user_credentials, offered->items[i]))
			return NULL;
	return offered->items[0];
}

static bool check_known(const struct arguments *arguments, const struct names *qpus, struct problem *why)
{
	char known[sizeof(why->text) / 2];

	for (size_t i = 0; i < qpus->count; i++)
		if (!names_contain(&arguments->qpus, qpus->items[i]))
			return problem_set(why, "--qpu: no QPU is called '%s'; this cluster has: %s", qpus->items[i],
					   names_join(&arguments->qpus, known, sizeof(known)));
	return true;
}

static bool may_need_key(const struct arguments *arguments, const struct option *option)
{
	return needs_key(arguments, &option->named) != NULL || needs_key(arguments, &option->offered) != NULL ||
	       (option->any && arguments->user_credentials.count > 0);
}

/* The message never holds the key. */
static bool check_key(const char *qpu, struct problem *why)
{
	const char *key = getenv(USER_API_KEY);
	size_t length;

	if (key == NULL || key[0] == '\0')
		return problem_set(why,
				   "--qpu: %s needs your own API key: "
				   "export " USER_API_KEY "=<your key> before you submit",
				   qpu);
	length = strlen(key);
	for (const char *c = key; *c != '\0'; c++)
		if (*c <= ' ' || *c > '~')
			length = API_KEY_LENGTH + 1;
	if (length > API_KEY_LENGTH)
		return problem_set(why, "--qpu: the value of " USER_API_KEY " is not an API key");
	return true;
}

bool allocator_check(const struct arguments *arguments, const char *value, struct problem *why)
{
	const char *checked_before = getenv(JOB_QPU);
	const char *qpu;
	struct option option;
	bool fine;

	/* A step inherits its job's option. What was right when the job was submitted is right for it. */
	if (!submits_a_job() && checked_before != NULL && strcmp(value, checked_before) == 0)
		return true;
	if (!option_parse(&option, value, name_is_guess, why))
		return false;
	fine = check_known(arguments, &option.named, why) && check_known(arguments, &option.offered, why);
	qpu = must_have_key(arguments, &option);
	if (fine && qpu != NULL && submits_a_job())
		fine = check_key(qpu, why);
	option_free(&option);
	return fine;
}

/*
 * Publish one variable. sbatch and salloc put it into the job's environment besides, even under
 * --export=NONE; srun does not, so it is done here.
 */
static bool publish(spank_t spank, const char *name, const char *job_name, const char *value)
{
	if (spank_job_control_setenv(spank, name, value, 1) != ESPANK_SUCCESS)
		return false;
	return spank_context() != S_CTX_LOCAL || setenv(job_name, value, 1) == 0;
}

static bool publish_qpu(spank_t spank, const struct arguments *arguments, const char *value,
			struct problem *why)
{
	struct option option;
	struct problem no_key;
	bool published;

	if (!option_parse(&option, value, name_is_qpu, why))
		return false;
	published = publish(spank, PUBLISHED_QPU, JOB_QPU, value);
	/* Where there is a choice, a job without a key gets a QPU that needs none. */
	if (published && may_need_key(arguments, &option) &&
	    (must_have_key(arguments, &option) != NULL || check_key("", &no_key)))
		published = publish(spank, PUBLISHED_API_KEY, JOB_API_KEY, getenv(USER_API_KEY));
	option_free(&option);
	return published || problem_set(why, "--qpu: Slurm cannot store it in the job");
}

bool allocator_publish(spank_t spank, const struct arguments *arguments, const char *qpu, const char *session,
		       struct problem *why)
{
	if (!submits_a_job())
		return true;
	if (qpu != NULL && !publish_qpu(spank, arguments, qpu, why))
		return false;
	return session == NULL || publish(spank, PUBLISHED_SESSION, JOB_SESSION, session) ||
	       problem_set(why, "--qpu-session: Slurm cannot store it in the job");
}
