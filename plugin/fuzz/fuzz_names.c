/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What users write behind --qpu and --qpu-session, and lists of partitions. The first byte chooses. */
#include "fuzz.h"
#include "session.h"
#include "names.h"

static bool is_letter(char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

static bool is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* The same as name_is_qpu and name_is_partition, said once more, and of a piece of the value. */
static bool is_name(const char *text, size_t length, bool partition)
{
	if (partition && length == 1 && text[0] == '*')
		return true;
	if (length < 1 || length > NAME_LENGTH || (!partition && !is_letter(text[0])))
		return false;
	for (size_t i = 0; i < length; i++)
		if (!is_letter(text[i]) && !is_digit(text[i]) && text[i] != '_' &&
		    !(partition && strchr("-.+", text[i]) != NULL))
			return false;
	return true;
}

static void check_join(const struct names *names)
{
	char whole[4096], part[64];
	const char *rest = names_join(names, part, sizeof(part));

	MUST(rest == part && strlen(part) < sizeof(part));
	(void)names_join(names, whole, sizeof(whole));
	MUST(strncmp(whole, part, strlen(part)) == 0);
}

static void check_list(const char *value, bool partition)
{
	name_shape *shape = partition ? name_is_partition : name_is_qpu;
	size_t max = partition ? SIZE_MAX : NAMES_MAX;
	struct problem why = {""};
	struct names names;
	bool fine = names_parse(&names, "--qpu", value, shape, max, &why);
	const char *piece = value;

	if (!fine) {
		MUST(names.count == 0 && names.items == NULL && names.text == NULL);
		MUST(strncmp(why.text, "--qpu: ", strlen("--qpu: ")) == 0);
		fuzz_must_be_a_sentence(why.text);
		return;
	}
	MUST(names.count >= 1 && names.count <= max);
	for (size_t i = 0; i < names.count; i++) {
		size_t length = strlen(names.items[i]);

		/* They are the pieces of the value, in its order. */
		MUST(strncmp(piece, names.items[i], length) == 0);
		MUST(piece[length] == (i + 1 < names.count ? ',' : '\0'));
		MUST(is_name(piece, length, partition));
		MUST(names_contain(&names, names.items[i]));
		for (size_t j = 0; j < i; j++)
			MUST(strcmp(names.items[i], names.items[j]) != 0);
		piece += length + 1;
	}
	MUST(!names_contain(&names, "") && !names_contain(&names, "a,b"));
	check_join(&names);
	names_free(&names);
}

/* One name is taken if it is one, whatever stands around it. */
static void check_name(const char *value)
{
	bool one = strchr(value, ',') == NULL;
	struct problem why;
	struct names names;

	if (one) {
		bool fine = names_parse(&names, "--qpu", value, name_is_qpu, NAMES_MAX, &why);

		MUST(fine == is_name(value, strlen(value), false));
		names_free(&names);
	}
	MUST(name_is_qpu(value) == is_name(value, strlen(value), false));
	MUST(name_is_partition(value) == is_name(value, strlen(value), true));
}

static void check_session(const char *value)
{
	struct problem why = {""};
	bool fine = session_check(value, &why);

	MUST(fine == (strcmp(value, "job") == 0 || strcmp(value, "task") == 0));
	if (!fine)
		fuzz_must_be_a_sentence(why.text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *value;

	if (size == 0)
		return 0;
	value = fuzz_text(data + 1, size - 1);
	switch (data[0] % 4) {
	case 0:
		check_list(value, false);
		break;
	case 1:
		check_list(value, true);
		break;
	case 2:
		check_name(value);
		break;
	default:
		check_session(value);
	}
	free(value);
	return 0;
}
