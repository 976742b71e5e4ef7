/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The names of the environment variables that the plugin writes and reads. */
#ifndef QPU_SLURM_VARIABLES_H
#define QPU_SLURM_VARIABLES_H

/* Published with the job (spank_job_control_setenv); hooks see them as SPANK_<name>, */
#define PUBLISHED_QPU "QPU_SLURM_QPU"	      /* the value of --qpu, */
#define PUBLISHED_SESSION "QPU_SLURM_SESSION"	      /* of --qpu-session, */
#define PUBLISHED_API_KEY "QPU_SLURM_API_KEY" /* the user's own key; */

/* and the job's batch script and steps as SLURM_SPANK_<name>. */
#define JOB_QPU "SLURM_SPANK_" PUBLISHED_QPU
#define JOB_SESSION "SLURM_SPANK_" PUBLISHED_SESSION
#define JOB_API_KEY "SLURM_SPANK_" PUBLISHED_API_KEY

/* In which Slurm itself hands the options on: to the commands in a job, and from a command to slurmstepd. */
#define QPU_OPTION "_SLURM_SPANK_OPTION_qpu_slurm_qpu"
#define SESSION_OPTION "_SLURM_SPANK_OPTION_qpu_slurm_qpu_session"
#define JOB_QPU_OPTION "SLURM_SPANK_" QPU_OPTION
#define JOB_SESSION_OPTION "SLURM_SPANK_" SESSION_OPTION

/* What the user exports, as IBM's own tools read it. */
#define USER_API_KEY "QISKIT_IBM_TOKEN"

/*
 * What the plugin tells a step's programs of itself; src/qpu_slurm/job reads both. The node says
 * whether the plugin ran where a program runs, for a step inherits the variables of the step that started it.
 * The step, JOB.STEP and a number that no other step has, stands where its end is reported: with it, the tasks
 * that it leaves are found.
 */
#define STEP_NODE "QPU_SLURM_NODE"
#define STEP_ID "QPU_SLURM_STEP"

/* How srun tells slurmstepd that the step may belong to a job in which srun itself does not run. */
#define ATTACHED "SLURM_SPANK_QPU_SLURM_ATTACHED"

/* What the helper gives to every job that has a QPU, whoever's option asked for it. */
#define JOB_RESOURCES "SLURM_JOB_QPU_RESOURCES"

/* What the helper has to tell the job's user, such as that a budget is nearly used up. */
#define JOB_NOTICE "QRMI_JOB_NOTICE"

/* Which name a file of authorities; the helper gives both where the gateway has an authority of its own. */
#define TRUST_OF_PYTHON "REQUESTS_CA_BUNDLE"
#define TRUST_OF_OPENSSL "SSL_CERT_FILE"

/* What the helper's environment consists of: this, and the user's key where there is one. */
#define HELPER_PATH "PATH=/usr/bin:/bin"
#define HELPER_API_KEY "QPU_SLURM_API_KEY"

/* More than any key is long, and little enough for an environment. */
enum { API_KEY_LENGTH = 4096 };

#endif
