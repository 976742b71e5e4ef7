/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs a fuzz target without a fuzzer: each file of its corpus, and then some thousand inputs that are made of
 * them, always the same. What it runs at the moment is written into a file, which stays if the target fails.
 *
 *     replay_names FILE SEED…
 */
#include <unistd.h>

#include "fuzz.h"

enum { MUTANTS = 5000, CHANGES = 8, LONGEST = 4096, HUGE_LENGTH = 1 << 20, HUGE_EVERY = 1000 };

struct input {
	uint8_t *data;
	size_t size;
};

/* What the targets' inputs are made of. */
static const char *const words[] = {
	",",	 "=",	 "\n",	     "error: ", "_QRMI_", "QISKIT_IBM_", "SLURM_JOB_QPU_", "IAM_URL=", "LD_PRELOAD=",
	"qpus=", "helper=/", "config=/", "user_credentials=", "gres_partitions=", "*", "job", "task", "python3", "env",
	"/",	 "-",	 "%n%s",     "\xc2\x9b", "\xff",   "\x1b[2J",
};

/* splitmix64: the same numbers everywhere, and no more than that is asked of them. */
static uint64_t state = 4711;

static size_t below(size_t bound)
{
	uint64_t z = state += 0x9e3779b97f4a7c15u;

	z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
	z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
	return bound == 0 ? 0 : (size_t)((z ^ (z >> 31)) % bound);
}

static struct input read_input(const char *path)
{
	struct input input = {.data = malloc(LONGEST)};
	FILE *file = fopen(path, "r");

	MUST(file != NULL && input.data != NULL);
	input.size = fread(input.data, 1, LONGEST, file);
	fclose(file);
	return input;
}

/* Put bytes into an input that has room for LONGEST of them. */
static void insert(struct input *input, size_t place, const void *data, size_t size)
{
	if (input->size + size > LONGEST)
		return;
	memmove(input->data + place + size, input->data + place, input->size - place);
	memcpy(input->data + place, data, size);
	input->size += size;
}

static void change(struct input *input, const struct input *other)
{
	size_t place = below(input->size + 1), length = below(input->size - place + 1);
	uint8_t byte = (uint8_t)below(256);
	const char *word = words[below(sizeof(words) / sizeof(words[0]))];

	switch (below(6)) {
	case 0:
		if (place < input->size)
			input->data[place] ^= (uint8_t)(1 << below(8));
		break;
	case 1:
		insert(input, place, &byte, 1);
		break;
	case 2:
		insert(input, place, word, strlen(word));
		break;
	case 3:
		memmove(input->data + place, input->data + place + length, input->size - place - length);
		input->size -= length;
		break;
	case 4:
		insert(input, place, other->data, below(other->size + 1));
		break;
	default:
		input->size = place;
	}
}

static void run(const struct input *input, FILE *file)
{
	rewind(file);
	MUST(ftruncate(fileno(file), 0) == 0);
	MUST(fwrite(input->data, 1, input->size, file) == input->size && fflush(file) == 0);
	LLVMFuzzerTestOneInput(input->data, input->size);
}

/* As much as a user can write into a script, all of one kind. */
static void run_huge(const struct input *seed, FILE *file)
{
	struct input huge = {.data = malloc(HUGE_LENGTH), .size = HUGE_LENGTH};

	MUST(huge.data != NULL);
	for (size_t i = 0; i < huge.size; i++)
		huge.data[i] = seed->size == 0 ? 'x' : seed->data[i % seed->size];
	run(&huge, file);
	free(huge.data);
}

int main(int argc, char *argv[])
{
	size_t count = (size_t)(argc > 2 ? argc - 2 : 0);
	struct input *seeds = calloc(count + 1, sizeof(*seeds));
	struct input input = {.data = malloc(LONGEST)};
	FILE *file = count > 0 ? fopen(argv[1], "w") : NULL;

	MUST(seeds != NULL && input.data != NULL && file != NULL);
	for (size_t i = 0; i < count; i++) {
		seeds[i] = read_input(argv[i + 2]);
		run(&seeds[i], file);
	}
	for (int i = 0; i < MUTANTS; i++) {
		const struct input *seed = &seeds[below(count)];

		memcpy(input.data, seed->data, seed->size);
		input.size = seed->size;
		for (size_t changes = below(CHANGES) + 1; changes > 0; changes--)
			change(&input, &seeds[below(count)]);
		run(&input, file);
		if (i % HUGE_EVERY == 0)
			run_huge(&input, file);
	}
	fclose(file);
	remove(argv[1]);
	for (size_t i = 0; i < count; i++)
		free(seeds[i].data);
	free(seeds);
	free(input.data);
	return 0;
}
