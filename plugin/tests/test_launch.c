/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "client/fields.h"
#include "client/launch.h"
#include "client/sha256.h"

#define ALL                                                                                                            \
	"#!/usr/libexec/qpu_slurm/qpu-slurm-client\n\nrun = prolog\nqpu_slurm=/opt/q\nconfig = /etc/c.toml \r\n"       \
	"gres_partitions =\nscontrol = /usr/bin/scontrol\nslurm_conf = /etc/slurm/slurm.conf\n"

static const char *const bad[] = {
	"",
	"run = prolog\n",
	ALL "run = prolog\n",
	ALL "other = 1\n",
	ALL "nothing\n",
	ALL "= 1\n",
	"run = prolog\nqpu_slurm = opt/q\n",
};

static void check_launch(void)
{
	struct launch launch;
	struct problem why;
	char text[] = ALL;

	CHECK(launch_parse(&launch, text, strlen(text), &why), why.text);
	CHECK(strcmp(launch.run, "prolog") == 0, ALL);
	CHECK(strcmp(launch.qpu_slurm, "/opt/q") == 0, ALL);
	CHECK(strcmp(launch.config, "/etc/c.toml") == 0, ALL);
	CHECK(strcmp(launch.gres_partitions, "") == 0, ALL);
	for (size_t i = 0; i < COUNT(bad); i++) {
		char *copy = strdup(bad[i]);

		CHECK(copy != NULL, bad[i]);
		CHECK(!launch_parse(&launch, copy, strlen(copy), &why), bad[i]);
		CHECK(why.text[0] != '\0', bad[i]);
		free(copy);
	}
}

static void check_fields(void)
{
	static struct fields fields;
	static char longest[FIELD_LIMIT + 2];

	CHECK(fields_add(&fields, "A", "b=c\n"), "A");
	CHECK(fields_add(&fields, "B", ""), "B");
	CHECK(fields.length == 10 && memcmp(fields.data, "A=b=c\n\0B=\0", 10) == 0, "what is sent");
	memset(longest, 'x', FIELD_LIMIT + 1);
	CHECK(!fields_add(&fields, "C", longest), "one that is too long");
	longest[FIELD_LIMIT] = '\0';
	for (int i = 0; i < 5; i++)
		CHECK(fields_add(&fields, "D", longest), "the longest");
	CHECK(!fields_add(&fields, "E", longest), "one too many");
}

static void check_sha256(void)
{
	/* FIPS 180-4's examples, and lengths around a block's end, as `sha256sum` has them. */
	static const struct {
		size_t count;
		const char *text, *digits;
	} cases[] = {
		{1, "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
		{1, "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{1, "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
		 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
		{55, "a", "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318"},
		{64, "a", "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb"},
		{1000, "a", "41edece42d63e8d9bf515a9ba6932e1c20cbc9f5a5d134645adb5db1b9737ea3"},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		size_t length = strlen(cases[i].text), all = length * cases[i].count;
		char digits[SHA256_DIGITS + 1], *text = malloc(all + 1);

		CHECK(text != NULL, "memory");
		for (size_t j = 0; j < cases[i].count; j++)
			memcpy(text + j * length, cases[i].text, length);
		sha256_digits(digits, text, all);
		CHECK(strcmp(digits, cases[i].digits) == 0, cases[i].digits);
		free(text);
	}
}

int main(void)
{
	check_launch();
	check_fields();
	check_sha256();
	return 0;
}
