/* SPDX-License-Identifier: GPL-2.0-or-later */
/* config.toml, as the client reads it: the admin's, but it says where keys are asked for. */
#include "client/config.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	/* Without a NUL behind it, so that reading on is seen. */
	char *text = calloc(1, size == 0 ? 1 : size);
	struct config config;

	MUST(text != NULL);
	if (size > 0)
		memcpy(text, data, size);
	if (config_parse(&config, text, size)) {
		MUST(config.host[0] != '\0' && strlen(config.host) <= CONFIG_HOST);
		MUST(strspn(config.host, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-:") ==
		     strlen(config.host));
		MUST(config.port[0] != '\0' && strspn(config.port, "0123456789") == strlen(config.port));
		/* It becomes a line of a request, and of an error. */
		MUST(strncmp(config.origin, config.tls ? "https://" : "http://", config.tls ? 8 : 7) == 0);
		MUST(strpbrk(config.origin, " \r\n\"@?#") == NULL);
		MUST(config.ca[0] == '\0' || (config.ca[0] == '/' && strchr(config.ca, '\n') == NULL));
		MUST(config.munge_socket[0] == '\0' || config.munge_socket[0] == '/');
		MUST(config.acquire_seconds >= 1 && config.acquire_seconds <= 366 * 86400);
		MUST(size > 0 && memmem(text, size, config.origin, strlen(config.origin)) != NULL);
	}
	free(text);
	return 0;
}
