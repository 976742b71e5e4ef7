/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the admin wrote behind the plugin's name in plugstack.conf:
 *
 *     required qpu_slurm.so qpus=ibm_fez,ibm_torino user_credentials=ibm_fez step_patience=600
 *
 * `qpu-slurm plugstack` prints this line for the configuration file.
 */
#ifndef QPU_SLURM_ARGUMENTS_H
#define QPU_SLURM_ARGUMENTS_H

#include "names.h"
#include "problem.h"

struct arguments {
	struct names qpus;	       /* qpus=: the QPUs that there are; has to be given. */
	struct names user_credentials; /* user_credentials=: those used with each user's own key. */
	struct names gres_partitions;  /* gres_partitions=: where a gres asks for a QPU; `*` is everywhere. */
	unsigned long step_patience;   /* step_patience=: seconds that a step waits for an answer; 0: none. */
	const char *helper;	       /* helper=: the absolute path of qpu-slurm. */
	const char *config;	       /* config=: the absolute path of its configuration. */
};

/*
 * Read the arguments.
 *
 * argv: as SPANK gives them; `arguments` points into them afterwards.
 *
 * Returns false, with the reason, if one is unknown, malformed or given twice; `arguments` is empty then.
 */
bool arguments_parse(struct arguments *arguments, int argc, char *const argv[], struct problem *why);

void arguments_free(struct arguments *arguments);

#endif
