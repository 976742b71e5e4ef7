/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Which variables of a step may be another step's, and no longer true: a step inherits those of the program
 * that started it, such as a session that was closed meanwhile.
 */
#ifndef QPU_SLURM_STALE_H
#define QPU_SLURM_STALE_H

#include <stdbool.h>

#include "names.h"

/*
 * Tell whether a variable is one that the helper wrote for an earlier step of this job, or for another job. A
 * step in which the helper does not set it must not have it.
 *
 * What users set themselves is not: QRMI_IBM_QCS_SESSION_ID and QRMI_IBM_QCS_TIMEOUT_SECONDS override what the
 * helper writes, and QISKIT_IBM_RUNTIME_LOG_LEVEL is theirs alone.
 *
 * name: the variable's.
 * qpus: the QPUs that the helper knows.
 * inherited: whether the step has the helper's list of QPUs from an earlier one. Without it, QISKIT_IBM_TOKEN
 *     and its like were exported by the user.
 */
bool stale_is(const char *name, const struct names *qpus, bool inherited);

#endif
