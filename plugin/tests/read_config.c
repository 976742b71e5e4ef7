/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Print what the client reads of a config.toml on stdin, for tests that compare it with Python's tomllib. */
#include <stdio.h>

#include "client/config.h"

int main(void)
{
	static char text[CONFIG_LIMIT];
	size_t length = fread(text, 1, sizeof(text), stdin);
	struct config config;

	if (!config_parse(&config, text, length))
		return 1;
	printf("%s\n%s\n%s\n%lu\n%d\n", config.origin, config.ca, config.munge_socket, config.acquire_seconds,
	       config.gateway_keys);
	return 0;
}
