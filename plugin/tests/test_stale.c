/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "stale.h"

/* Stale in any step, and only in one that has inherited the helper's list of QPUs. */
static const char *const always[] = {
	"ibm_fez_QRMI_JOB_ACQUISITION_TOKEN",
	"ibm_fez_QRMI_JOB_TIMEOUT_SECONDS",
	"ibm_fez_QRMI_QPU_SLURM_SESSION",
	"ibm_fez_QRMI_IBM_QCS_IAM_APIKEY",
	"ibm_fez_2_QRMI_JOB_ACQUISITION_TOKEN",
};

static const char *const inherited[] = {
	"IAM_URL",
	"GLOBAL_SEARCH_URL",
	"QISKIT_IBM_TOKEN",
	"IQM_TOKEN",
	"QRMI_JOB_QPU_RESOURCES",
	"SLURM_JOB_QPU_TYPES",
};

static const char *const never[] = {
	"",
	"PATH",
	"ibm_fez",
	"ibm_fez_QRMI_",
	"ibm_fez_QRMI_lower",
	"ibm_torino_QRMI_JOB_ACQUISITION_TOKEN", /* no QPU of ours */
	"garnet_QRMI_IQM_ISA_TOKEN",		 /* likewise: the user's own */
	"my_ibm_fez_QRMI_JOB_ACQUISITION_TOKEN",
	"ibm_fez_QRMI_IBM_QCS_SESSION_ID", /* what users override */
	"ibm_fez_QRMI_IBM_QRS_TIMEOUT_SECONDS",
	"QISKIT_IBM_RUNTIME_LOG_LEVEL",
	"SLURM_SPANK_QPU_SLURM_API_KEY",
};

int main(void)
{
	struct problem why;
	struct names qpus;

	CHECK(names_parse(&qpus, "qpus", "ibm_fez,ibm_fez_2", name_is_qpu, NAMES_MAX, &why), why.text);
	for (size_t i = 0; i < COUNT(always); i++)
		CHECK(stale_is(always[i], &qpus, false) && stale_is(always[i], &qpus, true), always[i]);
	for (size_t i = 0; i < COUNT(inherited); i++)
		CHECK(!stale_is(inherited[i], &qpus, false) && stale_is(inherited[i], &qpus, true), inherited[i]);
	for (size_t i = 0; i < COUNT(never); i++)
		CHECK(!stale_is(never[i], &qpus, false) && !stale_is(never[i], &qpus, true), never[i]);
	names_free(&qpus);
	return 0;
}
