/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "arguments.h"
#include "check.h"

enum { MAX = 6 };

static const struct {
	char *argv[MAX];
	const char *reason; /* NULL: fine. */
} cases[] = {
	{{"qpus=ibm_fez"}, NULL},
	{{"qpus=ibm_fez,ibm_torino", "user_credentials=ibm_fez", "gres_partitions=quantum,*",
	  "helper=/opt/x/qpu-slurm", "config=/etc/x.toml"},
	 NULL},
	{{"user_credentials=a", "qpus=a"}, NULL},
	{{NULL}, "the argument qpus is missing"},
	{{"config=/etc/x.toml"}, "the argument qpus is missing"},
	{{"qpus="}, "qpus: '' is not a name"},
	{{"qpus=a,9"}, "qpus: '9' is not a name"},
	{{"qpus=a,a"}, "qpus: 'a' is named twice"},
	{{"qpus=a", "qpus=b"}, "the argument qpus is given twice"},
	{{"qpus=a", "helper=/x", "helper=/y"}, "the argument helper is given twice"},
	{{"qpus"}, "'qpus' is not an argument of this plugin"},
	{{"=a"}, "'=a' is not an argument of this plugin"},
	{{""}, "'' is not an argument of this plugin"},
	{{"qpus=a", "qpu=b"}, "'qpu=b' is not an argument of this plugin"},
	{{"qpus=a", "qpuss=b"}, "'qpuss=b' is not an argument of this plugin"},
	{{"qpus=a", "helper=qpu-slurm"}, "helper: 'qpu-slurm' is not an absolute path"},
	{{"qpus=a", "config="}, "config: '' is not an absolute path"},
	{{"qpus=a", "user_credentials=b"}, "user_credentials: 'b' is not one of qpus"},
	{{"qpus=a", "gres_partitions=a b"}, "gres_partitions: 'a b' is not a name"},
	{{"qpus=a", "step_patience=0"}, NULL},
	{{"qpus=a", "step_patience=86400"}, NULL},
	{{"qpus=a", "step_patience=86401"}, "step_patience: '86401' is not a number of seconds from 0 to 86400"},
	{{"qpus=a", "step_patience=99999999999999999999"}, "is not a number of seconds"},
	{{"qpus=a", "step_patience=000001"}, "is not a number of seconds"},
	{{"qpus=a", "step_patience="}, "step_patience: '' is not a number of seconds"},
	{{"qpus=a", "step_patience=-1"}, "step_patience: '-1' is not a number of seconds"},
	{{"qpus=a", "step_patience=10m"}, "step_patience: '10m' is not a number of seconds"},
	{{"qpus=a", "step_patience=1", "step_patience=2"}, "the argument step_patience is given twice"},
};

static void read_what_admins_write(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct problem why = {""};
		struct arguments arguments;
		int argc = 0;
		bool fine;

		while (argc < MAX && cases[i].argv[argc] != NULL)
			argc++;
		fine = arguments_parse(&arguments, argc, cases[i].argv, &why);
		CHECK(fine == (cases[i].reason == NULL), why.text);
		if (!fine) {
			CHECK(strstr(why.text, cases[i].reason) != NULL, why.text);
			CHECK(arguments.qpus.count == 0 && arguments.helper == NULL, "nothing is left of it");
		}
		arguments_free(&arguments);
	}
}

static void keep_what_was_read(void)
{
	char *argv[] = {"qpus=a,b", "user_credentials=b", "gres_partitions=q", "config=/c", "step_patience=90"};
	struct problem why;
	struct arguments arguments;

	CHECK(arguments_parse(&arguments, (int)COUNT(argv), argv, &why), why.text);
	CHECK(names_contain(&arguments.qpus, "a") && names_contain(&arguments.qpus, "b"), "qpus");
	CHECK(arguments.user_credentials.count == 1, "user_credentials");
	CHECK(names_contain(&arguments.gres_partitions, "q"), "gres_partitions");
	CHECK(strcmp(arguments.config, "/c") == 0, "config");
	CHECK(arguments.step_patience == 90, "step_patience");
	CHECK(strcmp(arguments.helper, "/opt/qpu_slurm/bin/qpu-slurm") == 0, "the default of helper");
	arguments_free(&arguments);
}

int main(void)
{
	read_what_admins_write();
	keep_what_was_read();
	return 0;
}
