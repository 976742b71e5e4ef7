/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/proof.h"

#include <dlfcn.h>
#include <munge.h>
#include <stdlib.h>
#include <string.h>

#include "client/library.h"

#define LIBRARY "libmunge.so.2"

struct munge {
	__typeof__(munge_ctx_create) *create;
	__typeof__(munge_ctx_destroy) *destroy;
	__typeof__(munge_ctx_set) *set;
	__typeof__(munge_ctx_strerror) *words;
	__typeof__(munge_encode) *encode;
};

static bool load(struct munge *munge, struct problem *why)
{
	const struct library_function functions[] = {
		{"munge_ctx_create", &munge->create},	{"munge_ctx_destroy", &munge->destroy},
		{"munge_ctx_set", &munge->set},		{"munge_ctx_strerror", &munge->words},
		{"munge_encode", &munge->encode},
	};

	return library_load(LIBRARY, functions, sizeof(functions) / sizeof(functions[0]), why);
}

char *proof_make(const char *socket, const char *payload, struct problem *why)
{
	char *credential = NULL;
	struct munge munge;
	munge_ctx_t context;
	munge_err_t error = EMUNGE_SUCCESS;

	if (!load(&munge, why))
		return NULL;
	context = munge.create();
	if (context == NULL) {
		problem_set(why, "out of memory");
		return NULL;
	}
	if (socket[0] != '\0')
		error = munge.set(context, MUNGE_OPT_SOCKET, socket);
	if (error == EMUNGE_SUCCESS)
		error = munge.encode(&credential, context, payload, (int)strlen(payload));
	if (error != EMUNGE_SUCCESS) {
		const char *words = munge.words(context);

		problem_set(why, "MUNGE made no credential: %s", words == NULL ? "an unknown error" : words);
		free(credential);
		credential = NULL;
	}
	munge.destroy(context);
	return credential;
}
