/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/hook.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <syslog.h>
#include <unistd.h>

#include "client/ask.h"
#include "client/fields.h"
#include "client/python.h"
#include "helper.h"
#include "text.h"

enum {
	OK = 200,
	CONFLICT = 409,
	/* What Python's hook exits with for a job that must not start (hooks/controller.py). */
	NOT_STARTED = 10,
	/* Beyond acquire_timeout: what the gateway asks of Slurm, and what it gives back, take time as well. */
	MORE_SECONDS = 120,
	END_SECONDS = 30,
	AWAY_MILLISECONDS = 3000,
	TELL_MILLISECONDS = 5000,
	TOLD_LIMIT = 4096,
};

enum { JOB, HET_JOB, USER, PARTITION, CLUSTER, RESTARTS, QPU, SESSION, KEY, VARIABLES };

/* All that is read of the environment, with what Slurm means where it sets nothing; slurm/job.py reads the same. */
static const struct {
	const char *name;
	const char *missing;
} variables[VARIABLES] = {
	[JOB] = {"SLURM_JOB_ID", ""},
	[HET_JOB] = {"SLURM_HET_JOB_ID", "0"},
	[USER] = {"SLURM_JOB_UID", ""},
	[PARTITION] = {"SLURM_JOB_PARTITION", ""},
	[CLUSTER] = {"SLURM_CLUSTER_NAME", ""},
	[RESTARTS] = {"SLURM_JOB_RESTART_COUNT", "0"},
	[QPU] = {"SPANK_QPU_SLURM_QPU", ""},
	[SESSION] = {"SPANK_QPU_SLURM_SESSION", ""},
	[KEY] = {"SPANK_QPU_SLURM_API_KEY", ""},
};

struct hook {
	const struct launch *launch;
	bool prolog;
	const char *values[VARIABLES];
};

static struct fields fields;

/* What the last resort ends with: what has a QPU must not start without it. */
static volatile sig_atomic_t late_code;

static void find(struct hook *hook, char *const environ[])
{
	for (int i = 0; i < VARIABLES; i++) {
		size_t length = strlen(variables[i].name);

		hook->values[i] = variables[i].missing;
		for (char *const *entry = environ; *entry != NULL; entry++) {
			if (strncmp(*entry, variables[i].name, length) == 0 && (*entry)[length] == '=') {
				/* The shell's ${NAME:-0}. */
				if ((*entry)[length + 1] != '\0')
					hook->values[i] = *entry + length + 1;
				break;
			}
		}
	}
}

/* A gres is in no hook's environment, so in these partitions every job is looked up. */
static bool may_have_gres(const struct hook *hook)
{
	const char *listed = hook->launch->gres_partitions, *partition = hook->values[PARTITION];

	for (size_t length; *listed != '\0'; listed += length + (listed[length] == ',')) {
		length = strcspn(listed, ",");
		if ((length == 1 && listed[0] == '*') ||
		    (length > 0 && strlen(partition) == length && memcmp(listed, partition, length) == 0))
			return true;
	}
	return false;
}

static void be_late(int number)
{
	(void)number;
	_exit(late_code);
}

/* End the process if it takes too long: the last resort, for a resolver that knows no time-out. */
static void bound(unsigned int seconds, int code)
{
	sigset_t alarms;

	late_code = code;
	(void)signal(SIGALRM, be_late);
	sigemptyset(&alarms);
	sigaddset(&alarms, SIGALRM);
	(void)sigprocmask(SIG_UNBLOCK, &alarms, NULL);
	(void)alarm(seconds);
}

/* Have the gateway do it. Returns the exit code; -1 if it was not done. */
static int ask_gateway(const struct hook *hook)
{
	struct config config;
	struct answer answer;
	struct problem why;
	char path[64];
	int code = -1;
	unsigned long seconds;

	if (strlen(hook->values[JOB]) > 10 || !text_is_made_of(hook->values[JOB], DIGITS) ||
	    !config_read(&config, hook->launch->config))
		return -1;
	seconds = hook->prolog ? config.acquire_seconds + MORE_SECONDS : END_SECONDS;
	if (seconds > 366UL * 86400)
		return -1;
	for (int i = 0; i < VARIABLES; i++)
		if (!fields_add(&fields, variables[i].name, hook->values[i]))
			goto end;
	snprintf(path, sizeof(path), "/qpu-slurm/v1/jobs/%s/%s", hook->values[JOB], hook->prolog ? "start" : "end");
	const struct question question = {"POST", path, fields.data, fields.length};
	/* poll's longest wait is 24 days. */
	const int answer_ms = seconds > 2000000 ? 2000000000 : (int)seconds * 1000;

	bound((unsigned int)seconds + 10, hook->prolog && hook->values[QPU][0] != '\0');
	if (ask(&answer, &config, &question, (struct patience){answer_ms, AWAY_MILLISECONDS}, &why) == ASK_ANSWERED) {
		if (answer.status == OK && answer.text)
			code = 0;
		else if (answer.status == CONFLICT && answer.text)
			code = 1;
	}
	(void)alarm(0);
end:
	explicit_bzero(&fields, sizeof(fields));
	return code;
}

/*
 * Have a process of its own ask: Slurm takes a prolog that a signal kills for one that exited with 0, and starts the
 * job. Returns what ask_gateway does; above 1, what a shell has for a process that was killed.
 */
static int ask_apart(const struct hook *hook)
{
	enum { NOT_DONE = 2 };
	pid_t pid = fork();
	int status, code;

	if (pid == 0) {
		(void)prctl(PR_SET_PDEATHSIG, SIGKILL);
		code = ask_gateway(hook);
		_exit(code < 0 ? NOT_DONE : code);
	}
	if (pid < 0)
		return -1;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -1;
	if (WIFSIGNALED(status))
		return 128 + WTERMSIG(status);
	return WEXITSTATUS(status) == NOT_DONE ? -1 : WEXITSTATUS(status);
}

static int run_python(const struct hook *hook)
{
	const struct launch *launch = hook->launch;
	const char *const argv[] = {launch->qpu_slurm, "--config", launch->config, "hook", launch->run, NULL};
	const char *envp[VARIABLES + 3] = {PYTHON_PATH, PYTHON_LOCALE};
	int code = -1, count = 0;

	/* It starts with the variables named here and no other. */
	while (count < VARIABLES) {
		const char *name = variables[count].name, *value = hook->values[count];
		size_t size = strlen(name) + strlen(value) + 2;
		char *entry = malloc(size);

		if (entry == NULL)
			break;
		snprintf(entry, size, "%s=%s", name, value);
		envp[2 + count++] = entry;
	}
	if (count == VARIABLES)
		code = python_run(argv, envp);
	for (int i = 0; i < count; i++) {
		char *entry = (char *)(uintptr_t)envp[2 + i];

		explicit_bzero(entry, strlen(entry));
		free(entry);
	}
	return code;
}

/* Run scontrol, whose answer nobody needs; whether it did what it should. */
static bool control(const struct hook *hook, const char *verb, const char *what, const char *value)
{
	const char *const argv[] = {hook->launch->scontrol, verb, what, value, NULL};
	char conf[sizeof("SLURM_CONF=") + LAUNCH_LIMIT] = "SLURM_CONF=";
	const char *const envp[] = {PYTHON_PATH, conf, NULL};
	struct helper_answer answer;
	struct problem why;
	bool done;

	strncat(conf, hook->launch->slurm_conf, LAUNCH_LIMIT - 1);
	if (helper_run(&answer, argv, envp, HELPER_APART, TELL_MILLISECONDS, TOLD_LIMIT, &why) != HELPER_ENDED)
		return false;
	done = answer.exit_code == 0;
	helper_free(&answer);
	return done;
}

/* Neither the gateway nor Python could say what is to become of the job. */
static int report(const struct hook *hook, int code)
{
	const char *job = text_is_made_of(hook->values[JOB], DIGITS) ? hook->values[JOB] : "";
	char problem[160], sentence[224], comment[256], target[sizeof("JobId=+0") + 32];

	snprintf(problem, sizeof(problem), "The %s of qpu_slurm failed on the controller: qpu-slurm ended with code %d.",
		 hook->launch->run, code);
	openlog("qpu_slurm", 0, LOG_DAEMON);
	syslog(LOG_ERR, "job %.16s: %s", job, problem);
	closelog();
	if (!hook->prolog)
		return 1;
	/* Whether a job without --qpu asks for a QPU by a gres takes qpu-slurm to know: do not stop those that do not. */
	if (hook->values[QPU][0] == '\0')
		return 0;
	/*
	 * Slurm requeues a batch job, for two minutes, and ends any other. The comment is made of words of ours alone, so
	 * nothing in it has to be quoted. `N+0` is this job alone, also if it is the last element of an array, whose
	 * number means all of them; a component of a heterogeneous job has its number alone.
	 */
	snprintf(sentence, sizeof(sentence), "qpu_slurm: %s Tell your cluster's admin.", problem);
	(void)control(hook, "notify", job, sentence);
	snprintf(comment, sizeof(comment), "AdminComment={\"qpu_slurm\":{\"waiting\":\"%s\"}}", problem);
	snprintf(target, sizeof(target), "JobId=%.16s+0", job);
	if (!control(hook, "update", target, comment)) {
		snprintf(target, sizeof(target), "JobId=%.16s", job);
		(void)control(hook, "update", target, comment);
	}
	return 1;
}

int hook_run(const struct launch *launch, char *const environ[])
{
	struct hook hook = {.launch = launch, .prolog = strcmp(launch->run, "prolog") == 0};
	int code;

	find(&hook, environ);
	if (hook.values[QPU][0] == '\0' && !may_have_gres(&hook))
		return 0;
	code = ask_apart(&hook);
	if (code == 0 || code == 1)
		return code;
	if (code < 0)
		code = run_python(&hook);
	switch (code) {
	case 0:
		return 0;
	case NOT_STARTED:
		return 1;
	default:
		return report(&hook, code);
	}
}
