/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The files that start the client. */
#include "client/launch.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	struct problem why = {""};
	struct launch launch;

	if (launch_parse(&launch, text, size, &why)) {
		const char *const paths[] = {launch.qpu_slurm, launch.config, launch.scontrol, launch.slurm_conf};

		for (size_t i = 0; i < sizeof(paths) / sizeof(paths[0]); i++)
			MUST(paths[i][0] == '/' && strchr(paths[i], '\n') == NULL);
		MUST(launch.run != NULL && launch.gres_partitions != NULL);
	} else {
		fuzz_must_be_a_sentence(why.text);
	}
	free(text);
	return 0;
}
