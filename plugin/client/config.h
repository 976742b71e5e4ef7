/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the client reads of the admin's config.toml: how the gateway is reached, and whether it alone has the keys.
 * src/qpu_slurm/config reads all of it, and says what is wrong with it.
 */
#ifndef QPU_SLURM_CLIENT_CONFIG_H
#define QPU_SLURM_CLIENT_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

enum { CONFIG_HOST = 253, CONFIG_LIMIT = 1 << 20 };

struct config {
	bool tls;
	char host[CONFIG_HOST + 1]; /* A name or an address, an IPv6 one without its brackets. */
	char port[sizeof("65535")];
	char origin[CONFIG_HOST + sizeof("https://[]:65535")]; /* [gateway] url, as it is written. */
	char ca[PATH_MAX];			  /* Empty: whom the machine trusts. */
	char munge_socket[PATH_MAX];		  /* Empty: libmunge knows. */
	unsigned long acquire_seconds;		  /* [outage] acquire_timeout */
	bool gateway_keys;			  /* Every QPU has credentials = "gateway". */
};

/*
 * Read the text of a config.toml.
 *
 * Returns false if it has no [gateway] table, or says something in a way that the client does not know.
 */
bool config_parse(struct config *config, const char *text, size_t length);

/* Read the file; likewise if it cannot be read. */
bool config_read(struct config *config, const char *path);

#endif
