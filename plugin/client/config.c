/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/file.h"
#include "client/toml.h"
#include "text.h"

#define DAY 86400UL

/* What is known of the file so far. */
struct state {
	struct config *config;
	unsigned int seen;	/* The tables that have had their header, */
	unsigned int given;	/* and the keys below that have had a value: none may come twice. */
	bool gateway;		/* There is something of [gateway]. */
	bool default_gateway;	/* [defaults] credentials = "gateway" */
	bool default_given;
	bool qpu_given;		/* The last [[qpu]] has credentials of its own, */
	bool qpu_gateway;	/* namely these. */
	size_t qpus, qpus_gateway, qpus_default;
};

enum { GATEWAY, SLURM, OUTAGE, DEFAULTS, QPU, TABLES };

static const char *const tables[TABLES] = {"gateway", "slurm", "outage", "defaults", "qpu"};

static bool copy(char *to, size_t size, const struct toml_item *item)
{
	if (item->kind != TOML_STRING || item->length >= size || item->length == 0 ||
	    memchr(item->text, '\0', item->length) != NULL)
		return false;
	memcpy(to, item->text, item->length);
	to[item->length] = '\0';
	return true;
}

static bool copy_path(char *to, size_t size, const struct toml_item *item)
{
	return copy(to, size, item) && to[0] == '/';
}

/* Read a URL as src/qpu_slurm/config/model.py's Origin allows it: a scheme, a host, perhaps a port. */
static bool take_url(struct config *config, const struct toml_item *item)
{
	const char *rest, *end;
	bool bracket;
	size_t length;

	if (!copy(config->origin, sizeof(config->origin), item))
		return false;
	rest = config->origin;
	config->tls = strncmp(rest, "https://", 8) == 0;
	if (!config->tls && strncmp(rest, "http://", 7) != 0)
		return false;
	rest += config->tls ? 8 : 7;
	bracket = rest[0] == '[';
	rest += bracket;
	length = strspn(rest, bracket ? DIGITS "abcdefABCDEF:." : LETTERS DIGITS "._-");
	end = rest + length;
	if (length == 0 || length > CONFIG_HOST || (bracket && *end++ != ']'))
		return false;
	memcpy(config->host, rest, length);
	config->host[length] = '\0';
	if (*end == '\0') {
		strcpy(config->port, config->tls ? "443" : "80");
		return true;
	}
	if (*end++ != ':' || !text_is_made_of(end, DIGITS) || strlen(end) >= sizeof(config->port) ||
	    strtoul(end, NULL, 10) > 65535)
		return false;
	strcpy(config->port, end);
	return true;
}

/* Read a duration: a whole number of seconds, or a text such as "1h30m". */
static bool take_duration(unsigned long *seconds, const struct toml_item *item)
{
	static const struct {
		char letter;
		unsigned long seconds;
	} units[] = {{'d', DAY}, {'h', 3600}, {'m', 60}, {'s', 1}};
	char text[24], *rest = text;

	if (item->kind != TOML_INTEGER && item->kind != TOML_STRING)
		return false;
	if (item->length == 0 || item->length >= sizeof(text))
		return false;
	memcpy(text, item->text, item->length);
	text[item->length] = '\0';
	*seconds = 0;
	if (item->kind == TOML_INTEGER) {
		if (item->length > 8)
			return false;
		*seconds = strtoul(text, NULL, 10);
	} else {
		for (size_t i = 0; i < sizeof(units) / sizeof(units[0]) && *rest != '\0'; i++) {
			size_t digits = strspn(rest, DIGITS);

			if (digits == 0 || digits > 8 || rest[digits] == '\0')
				return false;
			if (rest[digits] != units[i].letter)
				continue;
			*seconds += strtoul(rest, NULL, 10) * units[i].seconds;
			rest += digits + 1;
		}
		if (*rest != '\0')
			return false;
	}
	return *seconds >= 1 && *seconds <= 366 * DAY;
}

/* Count the last [[qpu]]. */
static void end_qpu(struct state *state)
{
	if (state->qpus == 0)
		return;
	state->qpus_gateway += state->qpu_given && state->qpu_gateway;
	state->qpus_default += !state->qpu_given;
	state->qpu_given = false;
}

static bool take_credentials(struct state *state, bool of_qpu, const struct toml_item *item)
{
	bool *given = of_qpu ? &state->qpu_given : &state->default_given;
	char text[16];

	if (*given || !copy(text, sizeof(text), item))
		return false;
	*given = true;
	*(of_qpu ? &state->qpu_gateway : &state->default_gateway) = strcmp(text, "gateway") == 0;
	return true;
}

static bool take_value(struct state *state, int table, const struct toml_item *item)
{
	static const struct {
		int table;
		const char *key;
	} keys[] = {{GATEWAY, "url"}, {GATEWAY, "ca"}, {SLURM, "munge_socket"}, {OUTAGE, "acquire_timeout"}};
	struct config *config = state->config;
	size_t i = 0;

	if ((table == DEFAULTS || table == QPU) && strcmp(item->path[1], "credentials") == 0)
		return item->depth == 2 && take_credentials(state, table == QPU, item);
	while (i < sizeof(keys) / sizeof(keys[0]) && !(keys[i].table == table && strcmp(item->path[1], keys[i].key) == 0))
		i++;
	if (i == sizeof(keys) / sizeof(keys[0]))
		return true;
	if (item->depth != 2 || (state->given & 1u << i) != 0)
		return false;
	state->given |= 1u << i;
	switch (i) {
	case 0:
		return take_url(config, item);
	case 1:
		return copy_path(config->ca, sizeof(config->ca), item);
	case 2:
		return copy_path(config->munge_socket, sizeof(config->munge_socket), item);
	default:
		return take_duration(&config->acquire_seconds, item);
	}
}

static bool take(void *data, const struct toml_item *item)
{
	struct state *state = data;
	int table = 0;

	while (table < TABLES && strcmp(tables[table], item->path[0]) != 0)
		table++;
	if (table == TABLES)
		return true;
	state->gateway |= table == GATEWAY;
	if (item->kind == TOML_ELEMENT) {
		if (table != QPU || item->depth != 1)
			return false;
		end_qpu(state);
		state->qpus++;
		return true;
	}
	if (item->kind == TOML_TABLE) {
		/* Of these tables, none has another in it. */
		if (table == QPU || item->depth != 1 || (state->seen & 1u << table) != 0)
			return false;
		state->seen |= 1u << table;
		return true;
	}
	/* An inline table has keys that were not read. */
	if (item->depth < 2 || (table == QPU && state->qpus == 0))
		return false;
	return take_value(state, table, item);
}

bool config_parse(struct config *config, const char *text, size_t length)
{
	struct state state = {.config = config};

	*config = (struct config){.acquire_seconds = 60};
	if (!toml_read(text, length, take, &state) || !state.gateway || config->host[0] == '\0')
		return false;
	end_qpu(&state);
	config->gateway_keys =
		state.qpus > 0 && state.qpus_gateway + (state.default_gateway ? state.qpus_default : 0) == state.qpus;
	return true;
}

bool config_read(struct config *config, const char *path)
{
	size_t length;
	char *text = file_read(path, CONFIG_LIMIT, &length);
	bool read = text != NULL && config_parse(config, text, length);

	free(text);
	return read;
}
