/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "step.h"

enum { MAX = 5 };

#define LONGEST "a234567890123456789012345678901234567890123456789012345678901234"

static const struct {
	char *argv[MAX];
	const char *name;
} cases[] = {
	{{"task_runner", "ibm_fez", "in.json"}, "task_runner"},
	{{"/opt/qpu_slurm/bin/task_runner"}, "task_runner"},
	{{"./a.out"}, "a.out"},
	{{"g++-12"}, "g++-12"},
	{{"python", "map_optimize.py"}, "map_optimize.py"},
	{{"/usr/bin/python3.11", "/home/ada/result.py", "out.json"}, "result.py"},
	{{"python3", "-m", "http.server"}, "python3"},
	{{"python3"}, "python3"},
	{{"python3", ""}, "python3"},
	{{"pythonic", "x"}, "pythonic"},
	{{"python3-config", "x"}, "python3-config"},
	{{"bash", "job.sh"}, "job.sh"},
	{{"sh", "-c", "sleep 1"}, "sh"},
	{{"env", "python3", "result.py"}, "result.py"},
	{{"env", "A=b", "python3", "result.py"}, "env"},
	{{"hostname", "result.py"}, "hostname"},
	{{"-bash"}, "-bash"},
	{{"--name"}, "--name"},
	{{NULL}, "_"},
	{{""}, "_"},
	{{"/"}, "_"},
	{{"bin/"}, "_"},
	{{"my program\n"}, "my_program_"},
	{{"$(reboot);'\""}, "__reboot____"},
	{{"\x1b[2J\xff"}, "__2J_"},
	{{"python", "\xc3\xa9t\xc3\xa9.py"}, "__t__.py"},
	{{LONGEST}, LONGEST},
	{{LONGEST "5"}, LONGEST},
};

int main(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		char name[STEP_NAME_LENGTH + 1];
		int argc = 0;

		while (argc < MAX && cases[i].argv[argc] != NULL)
			argc++;
		step_name(name, argc, cases[i].argv);
		CHECK(strcmp(name, cases[i].name) == 0, name);
	}
	return 0;
}
