/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The SPANK plugin qpu_slurm: what Slurm calls, and where it goes from here.
 *
 *     sbatch, salloc, srun    allocator.c    check --qpu and --qpu-session, publish them
 *     slurmstepd, its tasks   remote.c       set the job's QPU variables, tell when the step has ended
 *     slurmd, its hooks       nothing        (PrologSlurmctld and EpilogSlurmctld do the work: hooks/)
 */
#include <slurm/slurm.h>
#include <stdlib.h>
#include <string.h>

/* Slurm looks these up by name; everything else of the plugin is hidden from it. */
#pragma GCC visibility push(default)
#include <slurm/spank.h>
SPANK_PLUGIN(qpu_slurm, 1)
#pragma GCC visibility pop

#include "allocator.h"
#include "arguments.h"
#include "session.h"
#include "problem.h"
#include "remote.h"

static struct arguments arguments;
static bool arguments_fine;
static struct problem mistake; /* in the arguments, unless they are fine. */

enum { QPU, HOLD, OPTIONS };

/* What was written behind each option; the last one counts, as with Slurm's own options. */
static char *given[OPTIONS];

static int take_option(int option, const char *value, int remote)
{
	struct problem why;
	char *copy;

	if (value == NULL)
		value = "";
	/* Where the job runs nothing is checked again: the controller's hooks have decided. */
	if (!remote) {
		if (allocator_is_scrontab()) {
			slurm_error("qpu_slurm: scrontab does not pass --%s on to its jobs; "
				    "let the entry submit the job instead: sbatch --qpu=NAME SCRIPT",
				    option == QPU ? "qpu" : "qpu-session");
			return -1;
		}
		if (!arguments_fine) {
			slurm_error("qpu_slurm: plugstack.conf: %s", mistake.text);
			return -1;
		}
		if (!(option == QPU ? allocator_check(&arguments, value, &why) : session_check(value, &why))) {
			slurm_error("qpu_slurm: %s", why.text);
			return -1;
		}
	}
	copy = strdup(value);
	if (copy == NULL) {
		slurm_error("qpu_slurm: out of memory");
		return remote ? 0 : -1;
	}
	free(given[option]);
	given[option] = copy;
	return 0;
}

static struct spank_option options[OPTIONS] = {
	[QPU] = {
		.name = (char *)"qpu",
		.arginfo = (char *)"NAME[,NAME]|any",
		.usage = (char *)"use these quantum processors (QPUs) in the job, or one that is chosen",
		.has_arg = 1,
		.val = QPU,
		.cb = take_option,
	},
	[HOLD] = {
		.name = (char *)"qpu-session",
		.arginfo = (char *)"job|task",
		.usage = (char *)"open the sessions when the job starts, or for its first task",
		.has_arg = 1,
		.val = HOLD,
		.cb = take_option,
	},
};

int slurm_spank_init(spank_t spank, int argc, char *argv[])
{
	spank_context_t context = spank_context();
	bool submitting = context == S_CTX_LOCAL || context == S_CTX_ALLOCATOR;

	if (!submitting && context != S_CTX_REMOTE)
		return 0;
	arguments_fine = arguments_parse(&arguments, argc, argv, &mistake);
	if (!arguments_fine && !submitting)
		slurm_info("qpu_slurm: plugstack.conf: %s", mistake.text);
	if (submitting) {
		allocator_forget_outer_job();
		allocator_mark_attached();
	}
	for (int option = 0; option < OPTIONS; option++) {
		if (spank_option_register(spank, &options[option]) != ESPANK_SUCCESS) {
			slurm_info("qpu_slurm: Slurm does not accept the option --%s", options[option].name);
			return submitting ? -1 : 0;
		}
	}
	if (!arguments_fine && submitting) {
		slurm_error("qpu_slurm: plugstack.conf: %s", mistake.text);
		return -1;
	}
	return 0;
}

int slurm_spank_init_post_opt(spank_t spank, int argc, char *argv[])
{
	struct problem why;

	(void)argc;
	(void)argv;
	switch (spank_context()) {
	case S_CTX_LOCAL:
	case S_CTX_ALLOCATOR:
		if (allocator_publish(spank, &arguments, given[QPU], given[HOLD], &why))
			return 0;
		slurm_error("qpu_slurm: %s", why.text);
		return -1;
	case S_CTX_REMOTE:
		remote_set_variables(spank, arguments_fine ? &arguments : NULL, &mistake,
				     given[QPU]);
		return 0;
	default:
		return 0;
	}
}

int slurm_spank_task_init(spank_t spank, int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	if (spank_context() == S_CTX_REMOTE)
		remote_start_task(spank, &arguments, given[QPU]);
	return 0;
}

int slurm_spank_task_exit(spank_t spank, int argc, char *argv[])
{
	(void)argc;
	(void)argv;
	if (spank_context() == S_CTX_REMOTE)
		remote_see_task_end(spank);
	return 0;
}

int slurm_spank_exit(spank_t spank, int argc, char *argv[])
{
	(void)spank;
	(void)argc;
	(void)argv;
	if (spank_context() == S_CTX_REMOTE)
		remote_report_end(&arguments);
	return 0;
}
