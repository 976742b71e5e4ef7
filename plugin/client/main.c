/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * qpu-slurm-client: what Slurm waits for, with the gateway. It proves with MUNGE who asks, says which job, waits, and
 * prints the answer; the gateway does the work, and what it needs of Slurm it asks for many jobs at once. Without a
 * gateway, or where the client cannot ask it, it becomes the Python command (python.h).
 *
 * The files that start it (launch.h) name it in their first line: `#!/usr/libexec/qpu_slurm/qpu-slurm-client`.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sysexits.h>
#include <unistd.h>

#include "client/file.h"
#include "client/hook.h"
#include "client/launch.h"
#include "client/step.h"

int main(int argc, char *argv[])
{
	char *none[] = {NULL}, **inherited = environ, *text;
	struct launch launch;
	struct problem why;
	size_t length;

	if (argc < 2 || argv[1][0] == '-') {
		fputs("usage: qpu-slurm-client FILE [ARGUMENT...]\n"
		      "Slurm's hooks and the plugin qpu_slurm start it: FILE is one of those beside it that name it in\n"
		      "their first line.\n",
		      stderr);
		return EX_USAGE;
	}
	/* No library of ours is to be told anything by it. */
	environ = none;
	text = file_read(argv[1], LAUNCH_LIMIT, &length);
	if (text == NULL) {
		fprintf(stderr, "qpu-slurm-client: %s: cannot be read\n", argv[1]);
		return EX_NOINPUT;
	}
	if (!launch_parse(&launch, text, length, &why)) {
		fprintf(stderr, "qpu-slurm-client: %s: %s\n", argv[1], why.text);
		return EX_CONFIG;
	}
	if (strcmp(launch.run, "helper") == 0)
		return step_run(&launch, argv + 2, inherited);
	if (strcmp(launch.run, "prolog") == 0 || strcmp(launch.run, "epilog") == 0)
		return hook_run(&launch, inherited);
	fprintf(stderr, "qpu-slurm-client: %s: run = %s is not known\n", argv[1], launch.run);
	return EX_CONFIG;
}
