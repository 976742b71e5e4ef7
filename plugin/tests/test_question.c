/* SPDX-License-Identifier: GPL-2.0-or-later */
#include <unistd.h>

#include "check.h"
#include "clock.h"
#include "question.h"

static const char *const envp[] = {"PATH=/usr/bin:/bin", NULL};

/* What a script comes to. Those that hang are bounded closely, the others generously. */
static const struct {
	const char *script;
	bool once;
	enum outcome outcome;
	const char *words; /* What is said, or why not. */
} cases[] = {
	{"echo IAM_URL=x", false, ANSWERED, "IAM_URL=x\n"},
	{"echo error: no; exit 1", false, ANSWERED, "error: no\n"},
	{"exit 75", false, ANSWERED, ""},
	{"echo wait: Nobody is there.; exit 75", false, UNANSWERED, "Nobody is there."},
	{"echo wait: Nobody is there.; exit 75", true, UNANSWERED, "Nobody is there."},
	{"sleep 100", false, UNANSWERED, "/bin/sh gives no answer: it did not end in time."},
	{"sleep 100", true, BROKEN, "it did not end in time"},
	{"kill -9 $$", false, UNANSWERED, "/bin/sh gives no answer: it was killed by signal 9."},
	{"kill -9 $$", true, BROKEN, "it was killed by signal 9"},
	{"exec /nowhere", false, BROKEN, "it could not be started"},
	{"yes", false, BROKEN, "its output is too long"},
};

static void ask_once(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		const char *const argv[] = {"/bin/sh", "-c", cases[i].script, NULL};
		const struct question question = {argv, envp, cases[i].once};
		int longest = strstr(cases[i].script, "sleep") != NULL ? 300 : 20000;
		struct helper_answer answer;
		struct problem why;
		enum outcome outcome = question_ask(&question, HELPER_APART, longest, &answer, &why);

		CHECK(outcome == cases[i].outcome, cases[i].script);
		if (outcome == ANSWERED)
			CHECK(strcmp(answer.text, cases[i].words) == 0, answer.text);
		else
			CHECK(strstr(why.text, cases[i].words) != NULL, why.text);
		CHECK((answer.text != NULL) == (outcome == ANSWERED), cases[i].script);
		helper_free(&answer);
	}
}

static void count(void *context, const struct problem *why)
{
	CHECK(strcmp(why->text, "Nobody is there.") == 0, why->text);
	++*(int *)context;
}

/* It says that nobody is there until it was asked often enough. */
static void ask_until_there_is_an_answer(void)
{
	static const char script[] = "echo >>$FILE; [ $(wc -l <$FILE) -gt 2 ] && echo IAM_URL=x && exit; "
				     "echo wait: Nobody is there.; exit 75";
	static const char *const argv[] = {"/bin/sh", "-c", script, NULL};
	char name[] = "/tmp/qpu_slurm-XXXXXX", file[64];
	const char *own[] = {"PATH=/usr/bin:/bin", file, NULL};
	const struct question question = {argv, own, false};
	int fd = mkstemp(name), heard = 0;
	struct helper_answer answer;
	struct problem why;

	CHECK(fd >= 0, name);
	snprintf(file, sizeof(file), "FILE=%s", name);
	CHECK(question_pursue(&question, HELPER_APART, clock_now() + 60000, count, &heard, &answer, &why) == ANSWERED,
	      why.text);
	CHECK(strcmp(answer.text, "IAM_URL=x\n") == 0, answer.text);
	CHECK(heard == 2, "it was told each time");
	helper_free(&answer);
	close(fd);
	unlink(name);
}

static void give_up(void)
{
	static const char *const argv[] = {"/bin/sh", "-c", "echo wait: Nobody is there.; exit 75", NULL};
	const struct question question = {argv, envp, false};
	int64_t until = clock_now() + 1200;
	struct helper_answer answer;
	struct problem why;

	CHECK(question_pursue(&question, HELPER_APART, until, NULL, NULL, &answer, &why) == UNANSWERED, "there is none");
	CHECK(clock_now() >= until, "it was asked for long enough");
	CHECK(strcmp(why.text, "Nobody is there.") == 0, why.text);
	/* The moment is over already: it is asked all the same. */
	CHECK(question_pursue(&question, HELPER_APART, until, NULL, NULL, &answer, &why) == UNANSWERED, "there is none");
}

int main(void)
{
	ask_once();
	ask_until_there_is_an_answer();
	give_up();
	return 0;
}
