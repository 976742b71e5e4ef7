/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "step.h"

#include <stdbool.h>
#include <string.h>

#include "text.h"

static const char *without_directories(const char *path)
{
	const char *slash = strrchr(path, '/');

	return slash == NULL ? path : slash + 1;
}

/* python, python3, python3.11, a shell, or what starts something else. */
static bool is_interpreter(const char *program)
{
	static const char *const others[] = {"bash", "dash", "env", "ksh", "perl", "sh", "zsh"};
	static const char python[] = "python";

	if (strncmp(program, python, strlen(python)) == 0) {
		const char *version = program + strlen(python);

		return version[0] == '\0' || text_is_made_of(version, DIGITS ".");
	}
	for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
		if (strcmp(program, others[i]) == 0)
			return true;
	return false;
}

/* Not an option, and not a variable for env. */
static bool is_program(const char *argument)
{
	return argument[0] != '\0' && argument[0] != '-' && strchr(argument, '=') == NULL;
}

void step_name(char name[STEP_NAME_LENGTH + 1], int argc, char *const argv[])
{
	const char *program = argc > 0 ? without_directories(argv[0]) : "";
	size_t length = 0;

	/* `env python result.py` is result.py. */
	for (int i = 1; i < argc && is_interpreter(program) && is_program(argv[i]); i++)
		program = without_directories(argv[i]);
	for (; program[length] != '\0' && length < STEP_NAME_LENGTH; length++) {
		const char character[] = {program[length], '\0'};

		name[length] = text_is_made_of(character, LETTERS DIGITS "._+-") ? program[length] : '_';
	}
	if (length == 0)
		name[length++] = '_';
	name[length] = '\0';
}
