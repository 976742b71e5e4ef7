/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/step.h"

#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <sysexits.h>
#include <time.h>
#include <unistd.h>

#include "client/ask.h"
#include "client/fields.h"
#include "client/python.h"
#include "text.h"
#include "variables.h"

enum {
	OK = 200,
	ARGUMENTS = 32,
	/* The plugin ends it after 15 s, and asks again (question.c): that is all the patience that is needed here. */
	ENV_MILLISECONDS = 13000,
	ENV_AWAY_MILLISECONDS = 0,
	ENV_SECONDS = 14,
	END_MILLISECONDS = 4000,
	END_AWAY_MILLISECONDS = 3000,
	NOBODYS_GROUP = 65534,
	LONGEST_AGO = 60,
};

/* What the arguments say; NULL where they do not. */
struct step {
	const char *config;
	const char *command;
	const char *job;
	const char *id;
	const char *name;
	const char *at;
	const char *user;
	const char *cancel;
	bool unasked;
};

static const char late[] = "wait: The gateway does not answer in time.\n";

static bool take_option(struct step *step, char *const **next)
{
	const struct {
		const char *name;
		const char **value;
	} options[] = {
		{"--config", &step->config}, {"--step", &step->id},	{"--name", &step->name},
		{"--at", &step->at},	     {"--user", &step->user},	{"--cancel", &step->cancel},
	};
	const char *argument = **next;

	if (strcmp(argument, "--unasked") == 0)
		return step->unasked = true;
	for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		size_t length = strlen(options[i].name);

		if (strncmp(argument, options[i].name, length) != 0)
			continue;
		if (argument[length] == '=') {
			*options[i].value = argument + length + 1;
			return true;
		}
		if (argument[length] == '\0' && (*next)[1] != NULL) {
			*options[i].value = *++*next;
			return true;
		}
	}
	return false;
}

static bool is_number(const char *text)
{
	return strlen(text) <= 10 && text_is_made_of(text, DIGITS) && (text[0] != '0' || text[1] == '\0');
}

static bool is_step(const char *text)
{
	return strcmp(text, "batch") == 0 || strcmp(text, "interactive") == 0 || is_number(text);
}

/* Read the arguments. Returns false for those that are for Python to read, or to refuse. */
static bool parse(struct step *step, char *const arguments[])
{
	const char **words[] = {&step->command, &step->job, &step->id};
	size_t count = 0;

	for (char *const *next = arguments; *next != NULL; next++) {
		if ((*next)[0] == '-') {
			if (!take_option(step, &next))
				return false;
		} else if (count == sizeof(words) / sizeof(words[0])) {
			return false;
		} else {
			*words[count++] = *next;
		}
	}
	if (count < 2 || !is_number(step->job) || (step->user != NULL && !is_number(step->user)) ||
	    (step->id != NULL && !is_step(step->id)) || (step->name != NULL && strlen(step->name) > 64))
		return false;
	if (strcmp(step->command, "job-env") == 0)
		return count == 2 && step->cancel == NULL;
	return strcmp(step->command, "step-end") == 0 && count == 3 && step->at != NULL && !step->unasked &&
	       step->name == NULL && (step->cancel == NULL || text_is_made_of(step->cancel, DIGITS "abcdef."));
}

/* Write how long ago something was: the clocks of nodes and gateway differ. */
static bool write_ago(char *text, size_t size, const char *at)
{
	struct timespec now;
	double seconds;
	char *end;

	errno = 0;
	seconds = strtod(at, &end);
	if (errno != 0 || end == at || *end != '\0' || strspn(at, DIGITS ".") != strlen(at))
		return false;
	clock_gettime(CLOCK_REALTIME, &now);
	seconds = (double)now.tv_sec + (double)now.tv_nsec / 1e9 - seconds;
	/* A clock that was set meanwhile makes no news of it. */
	seconds = seconds < 0 ? 0 : seconds > LONGEST_AGO ? LONGEST_AGO : seconds;
	snprintf(text, size, "%.3f", seconds);
	return true;
}

/* Become the job's user, with nobody's groups, for good: MUNGE says who asks, and nothing else is to be opened. */
static bool become_user(const struct step *step)
{
	const gid_t group = NOBODYS_GROUP;
	uid_t user;

	if (step->user == NULL || strtoul(step->user, NULL, 10) >= UINT32_MAX)
		return false;
	user = (uid_t)strtoul(step->user, NULL, 10);
	if (geteuid() != 0)
		return geteuid() == user;
	/* Half of it must not stay. */
	if (setgroups(0, NULL) != 0 || setresgid(group, group, group) != 0 || setresuid(user, user, user) != 0)
		_exit(EX_OSERR);
	return true;
}

static bool write_all(const char *text, size_t length)
{
	while (length > 0) {
		ssize_t written = write(STDOUT_FILENO, text, length);

		if (written < 0 && errno == EINTR)
			continue;
		if (written <= 0)
			return false;
		text += written;
		length -= (size_t)written;
	}
	return true;
}

static void be_late(int number)
{
	(void)number;
	if (write(STDOUT_FILENO, late, sizeof(late) - 1) < 0)
		_exit(EX_OSERR);
	_exit(EX_TEMPFAIL);
}

static bool begins(const struct answer *answer, const char *prefix)
{
	return answer->length >= strlen(prefix) && memcmp(answer->body, prefix, strlen(prefix)) == 0;
}

/* Print whom the job's programs have to trust to reach the gateway, where the admin names them. */
static bool print_trust(const struct config *config)
{
	char text[sizeof(TRUST_OF_PYTHON "=\n" TRUST_OF_OPENSSL "=\n") + 2 * sizeof(config->ca)];
	int length;

	if (!config->tls || config->ca[0] == '\0')
		return true;
	length = snprintf(text, sizeof(text), TRUST_OF_PYTHON "=%s\n" TRUST_OF_OPENSSL "=%s\n", config->ca, config->ca);
	return length > 0 && write_all(text, (size_t)length);
}

/* Print what the gateway says. Returns the exit code; -1 if it says nothing that is for the plugin. */
static int print_answer(const struct answer *answer, const struct config *config)
{
	if (!answer->text)
		return -1;
	if (answer->status == OK)
		return write_all(answer->body, answer->length) && (answer->length == 0 || print_trust(config)) ? 0
													       : EX_OSERR;
	if (!begins(answer, "error: ") && !begins(answer, "wait: "))
		return -1;
	if (!write_all(answer->body, answer->length))
		return EX_OSERR;
	return begins(answer, "wait: ") ? EX_TEMPFAIL : 0;
}

static int print_away(const struct problem *why)
{
	char node[256] = "this node";

	(void)gethostname(node, sizeof(node) - 1);
	printf("wait: %s: %s\n", node, why->text);
	return fflush(stdout) == 0 ? EX_TEMPFAIL : EX_OSERR;
}

static int job_env(const struct step *step, const struct config *config)
{
	static struct fields fields;
	const struct patience patience = {ENV_MILLISECONDS, ENV_AWAY_MILLISECONDS};
	struct answer answer;
	struct problem why;
	char path[64], ago[32];
	int code = -1;

	if (step->id != NULL && step->name != NULL && step->at != NULL &&
	    !(write_ago(ago, sizeof(ago), step->at) && fields_add(&fields, "step", step->id) &&
	      fields_add(&fields, "name", step->name) && fields_add(&fields, "ago", ago)))
		return -1;
	snprintf(path, sizeof(path), "/qpu-slurm/v1/jobs/%s/variables", step->job);
	const struct question question = {"POST", path, fields.data, fields.length};

	(void)signal(SIGALRM, be_late);
	(void)alarm(ENV_SECONDS);
	switch (ask(&answer, config, &question, patience, &why)) {
	case ASK_ANSWERED:
		/* Did the job's script ask for a QPU where nobody reads it? Python looks for that. */
		if (!(step->unasked && answer.status == OK && answer.length == 0))
			code = print_answer(&answer, config);
		break;
	case ASK_AWAY:
		code = print_away(&why);
		break;
	case ASK_BROKEN:
		break;
	}
	(void)alarm(0);
	ask_wipe();
	return code;
}

static int step_end(const struct step *step, const struct config *config)
{
	const struct patience patience = {END_MILLISECONDS, END_AWAY_MILLISECONDS};
	struct answer answer;
	struct problem why;
	char path[256], ago[32];

	if (!write_ago(ago, sizeof(ago), step->at))
		return -1;
	snprintf(path, sizeof(path), "/qpu-slurm/v1/jobs/%s/steps/%s?ago=%s%s%.64s", step->job, step->id, ago,
		 step->cancel == NULL ? "" : "&cancel=", step->cancel == NULL ? "" : step->cancel);
	const struct question question = {"DELETE", path, "", 0};

	switch (ask(&answer, config, &question, patience, &why)) {
	case ASK_ANSWERED:
		return answer.status == OK ? 0 : EX_UNAVAILABLE;
	case ASK_AWAY:
		return EX_TEMPFAIL;
	default:
		return -1;
	}
}

int step_run(const struct launch *launch, char *const arguments[], char *const environ[])
{
	const char *argv[ARGUMENTS + 2] = {launch->qpu_slurm}, *envp[4] = {PYTHON_PATH, PYTHON_LOCALE};
	struct step step = {0};
	struct config config;
	int code = -1;

	for (size_t i = 0; arguments[i] != NULL; i++) {
		if (i == ARGUMENTS) {
			fputs("qpu-slurm-client: too many arguments\n", stderr);
			return EX_USAGE;
		}
		argv[1 + i] = arguments[i];
	}
	for (char *const *entry = environ; *entry != NULL; entry++)
		if (strncmp(*entry, HELPER_API_KEY "=", sizeof(HELPER_API_KEY)) == 0)
			envp[2] = *entry;
	if (parse(&step, arguments) && config_read(&config, step.config == NULL ? launch->config : step.config) &&
	    config.gateway_keys && become_user(&step))
		code = strcmp(step.command, "job-env") == 0 ? job_env(&step, &config) : step_end(&step, &config);
	return code >= 0 ? code : python_become(argv, envp);
}
