/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "names.h"

#define LONGEST "a234567890123456789012345678901234567890123456789012345678901234"

static const struct {
	const char *value;
	size_t count;	    /* How many names are in it; 0: it is refused, */
	const char *reason; /* with these words. */
} cases[] = {
	{"ibm_fez", 1, NULL},
	{"ibm_fez,ibm_torino", 2, NULL},
	{"a", 1, NULL},
	{"A_b_9", 1, NULL},
	{LONGEST, 1, NULL},
	{LONGEST "5", 0, "is not a name"},
	{"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p", 16, NULL},
	{"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,q", 0, "more than 16 names"},
	{"", 0, "'' is not a name"},
	{",", 0, "'' is not a name"},
	{"a,", 0, "'' is not a name"},
	{",a", 0, "'' is not a name"},
	{"a,,b", 0, "'' is not a name"},
	{"a,b,a", 0, "'a' is named twice"},
	{"9a", 0, "'9a' is not a name"},
	{"_a", 0, "'_a' is not a name"},
	{"-a", 0, "'-a' is not a name"},
	{"ibm-fez", 0, "'ibm-fez' is not a name"}, /* no variable of it passes dash */
	{"garnet:mock", 0, "'garnet:mock' is not a name"},
	{"a b", 0, "'a b' is not a name"},
	{"a;rm", 0, "is not a name"},
	{"$(id)", 0, "is not a name"},
	{"../a", 0, "is not a name"},
	{"a%n%s", 0, "'a%n%s' is not a name"},
	{"a\n", 0, "'a?' is not a name"},
	{"\x1b[2J", 0, "'?[2J' is not a name"},
	{"\xc3\xa9", 0, "is not a name"},
};

static void read_lists_of_qpus(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct problem why = {""};
		struct names names;
		bool fine = names_parse(&names, "--qpu", cases[i].value, name_is_qpu, NAMES_MAX, &why);

		CHECK(fine == (cases[i].count > 0), cases[i].value);
		CHECK(names.count == cases[i].count, cases[i].value);
		if (!fine) {
			CHECK(strncmp(why.text, "--qpu: ", 7) == 0, cases[i].value);
			CHECK(strstr(why.text, cases[i].reason) != NULL, why.text);
			CHECK(strlen(why.text) < 200, "a refused value does not fill the screen");
		}
		names_free(&names);
	}
}

static void find_and_list_names(void)
{
	struct problem why;
	struct names names;
	char text[16];

	CHECK(names_parse(&names, "qpus", "ibm_fez,ibm_torino", name_is_qpu, NAMES_MAX, &why), why.text);
	CHECK(names_contain(&names, "ibm_torino"), "known");
	CHECK(!names_contain(&names, "ibm"), "the beginning of a name is not the name");
	CHECK(!names_contain(&names, "ibm_fez,ibm_torino"), "two names are none");
	CHECK(strcmp(names_join(&names, text, sizeof(text)), "ibm_fez") == 0, "what does not fit is left out");
	names_free(&names);
}

static void know_partitions(void)
{
	CHECK(name_is_partition("*"), "*");
	CHECK(name_is_partition("gpu.2-a_b"), "gpu.2-a_b");
	CHECK(!name_is_partition(""), "nothing");
	CHECK(!name_is_partition("a*"), "a*");
	CHECK(!name_is_partition("a b"), "a b");
}

int main(void)
{
	read_lists_of_qpus();
	find_and_list_names();
	know_partitions();
	return 0;
}
