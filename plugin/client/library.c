/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "client/library.h"

#include <dlfcn.h>
#include <string.h>

bool library_load(const char *name, const struct library_function functions[], size_t count, struct problem *why)
{
	void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);

	if (library == NULL)
		return problem_set(why, "%s", dlerror());
	for (size_t i = 0; i < count; i++) {
		void *found = dlsym(library, functions[i].name);

		if (found == NULL)
			return problem_set(why, "%s has no %s", name, functions[i].name);
		/* As POSIX has it: a function's address fits into a pointer to void. */
		memcpy(functions[i].pointer, &found, sizeof(found));
	}
	return true;
}
