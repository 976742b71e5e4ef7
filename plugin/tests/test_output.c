/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "output.h"

static const char *const ours[] = {
	"ibm_fez_QRMI_IBM_QRS_ENDPOINT",
	"a_QRMI_B_QRMI_C",
	"A_QRMI_X",
	"QRMI_JOB_QPU_RESOURCES",
	"SLURM_JOB_QPU_TYPES",
	"QISKIT_IBM_TOKEN",
	"IQM_TOKEN",
	"IAM_URL",
	"GLOBAL_SEARCH_URL",
	"GLOBAL_CATALOG_URL",
};

static const char *const not_ours[] = {
	"",
	"LD_PRELOAD",
	"PATH",
	"PYTHONPATH",
	"BASH_ENV",
	"IAM_URLS",
	"IQM_TOKENS_FILE",
	"_QRMI_X",
	"9_QRMI_X",
	"a_QRMI_",
	"a_QRMI_x",
	"a b_QRMI_X",
	"ibm-fez_QRMI_JOB_ACQUISITION_TOKEN",
	"a$_QRMI_X",
	"QISKIT_IBM_",
	"QISKIT_IBM_token",
	"QISKIT_IBM_TOKEN\x1b",
	"SLURM_JOB_ID",
	"SLURM_SPANK_QPU_SLURM_QPU",
	"QPU_SLURM_CONFIG",
	"BASH_FUNC_a_QRMI_X%%",
};

/* Taken from the helper, and the user's all the same: they stay in a nested job's environment. */
static const char *const trust[] = {
	"REQUESTS_CA_BUNDLE",
	"SSL_CERT_FILE",
};

static const struct {
	const char *text;
	size_t count, dropped;
	const char *error;
	const char *reason; /* Why the whole is refused; NULL: it is not. */
} cases[] = {
	{"", 0, 0, NULL, NULL},
	{"\n\n", 0, 0, NULL, NULL},
	{"QISKIT_IBM_TOKEN=a=b c\nIAM_URL=\n", 2, 0, NULL, NULL},
	{"IAM_URL=https://iam", 1, 0, NULL, NULL},
	{"LD_PRELOAD=/x.so\nIAM_URL=a\nPATH=/x\n", 1, 2, NULL, NULL},
	{"SSL_CERT_FILE=/ca.pem\nSSL_CERT_DIR=/x\nREQUESTS_CA_BUNDLE=/ca.pem\n", 2, 1, NULL, NULL},
	{"error: no.\n", 0, 0, "no.", NULL},
	{"error: \x1b[2J gone\n", 0, 0, "?[2J gone", NULL},
	{"error: a=b\n", 0, 0, "a=b", NULL},
	{"IAM_URL=a\nerror: and then this\n", 1, 0, "and then this", NULL},
	{"Traceback (most recent call last):\n", 0, 0, NULL, "neither NAME=value nor an error"},
	{"=x\n", 0, 0, NULL, "neither NAME=value nor an error"},
};

static void know_our_variables(void)
{
	for (size_t i = 0; i < COUNT(ours); i++)
		CHECK(output_is_ours(ours[i]), ours[i]);
	for (size_t i = 0; i < COUNT(not_ours); i++)
		CHECK(!output_is_ours(not_ours[i]) && !output_is_trust(not_ours[i]), not_ours[i]);
	for (size_t i = 0; i < COUNT(trust); i++)
		CHECK(output_is_trust(trust[i]) && !output_is_ours(trust[i]), trust[i]);
}

static void read_what_the_helper_says(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		char *text = strdup(cases[i].text);
		struct problem why = {""};
		struct output output;
		bool fine = output_parse(&output, text, strlen(text), &why);

		CHECK(fine == (cases[i].reason == NULL), cases[i].text);
		if (!fine)
			CHECK(strstr(why.text, cases[i].reason) != NULL, why.text);
		CHECK(output.count == cases[i].count && output.dropped == cases[i].dropped, cases[i].text);
		CHECK((output.error == NULL) == (cases[i].error == NULL), cases[i].text);
		if (output.error != NULL)
			CHECK(strcmp(output.error, cases[i].error) == 0, output.error);
		output_free(&output);
		free(text);
	}
}

static const struct {
	const char *text;
	int exit_code;
	const char *sentence; /* NULL: it is an answer. */
} waits[] = {
	{"wait: The gateway does not answer.\n", 75, "The gateway does not answer."},
	{"wait: no line end", 75, "no line end"},
	{"wait: one\nwait: two\n", 75, "one"},
	{"wait: \x1b[2J gone\n", 75, "?[2J gone"},
	{"wait: \n", 75, NULL},
	{"wait: The gateway does not answer.\n", 0, NULL},
	{"wait: The gateway does not answer.\n", 1, NULL},
	{"IAM_URL=a\nwait: x\n", 75, NULL},
	{" wait: x\n", 75, NULL},
	{"wait", 75, NULL},
	{"", 75, NULL},
};

static void know_when_there_is_no_answer_yet(void)
{
	for (size_t i = 0; i < COUNT(waits); i++) {
		struct problem sentence = {"untouched"};
		bool waiting = output_is_wait(waits[i].text, waits[i].exit_code, &sentence);

		CHECK(waiting == (waits[i].sentence != NULL), waits[i].text);
		CHECK(strcmp(sentence.text, waiting ? waits[i].sentence : "untouched") == 0, sentence.text);
	}
}

static void keep_values_as_they_are(void)
{
	char text[] = "QISKIT_IBM_TOKEN=a=b c\nIAM_URL=";
	struct problem why;
	struct output output;

	CHECK(output_parse(&output, text, strlen(text), &why), why.text);
	CHECK(strcmp(output.variables[0].name, "QISKIT_IBM_TOKEN") == 0, "the first name");
	CHECK(strcmp(output.variables[0].value, "a=b c") == 0, "the first value");
	CHECK(strcmp(output.variables[1].value, "") == 0, "an empty value");
	CHECK(output_value(&output, "QISKIT_IBM_TOKEN") == output.variables[0].value, "found by its name");
	CHECK(output_value(&output, "IAM_URLS") == NULL, "not there");
	output_free(&output);
}

static void refuse_a_nul(void)
{
	char text[] = "IAM_URL=a\0LD_PRELOAD=b";
	struct problem why;
	struct output output;

	CHECK(!output_parse(&output, text, sizeof(text) - 1, &why), "a NUL");
	CHECK(output.count == 0, "nothing is taken");
}

int main(void)
{
	know_our_variables();
	read_what_the_helper_says();
	know_when_there_is_no_answer_yet();
	keep_values_as_they_are();
	refuse_a_nul();
	return 0;
}
