/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "option.h"

static const struct {
	const char *value;
	size_t named, offered;
	bool any;
	const char *reason; /* It is refused with these words; NULL: it is fine. */
} cases[] = {
	{"ibm_fez", 1, 0, false, NULL},
	{"ibm_fez,ibm_torino", 2, 0, false, NULL},
	{"any", 0, 0, true, NULL},
	{"any,any", 0, 0, true, NULL},
	{"any:qubits>=100", 0, 0, true, NULL},
	{"any:qubits>=100,processor=heron", 0, 0, true, NULL},
	{"any:num_qubits=1,by=error,error<=5e-3,name=ibm_*", 0, 0, true, NULL},
	{"ibm_fez|ibm_torino", 0, 2, false, NULL},
	{"ibm_fez|ibm_torino:by=wait", 0, 2, false, NULL},
	{"a|b,b|c", 0, 3, false, NULL},
	{"ibm_fez,any:qubits>=100,a|b,c", 2, 2, true, NULL},
	{"", 0, 0, false, "'' is not a name"},
	{",", 0, 0, false, "'' is not a name"},
	{"a,", 0, 0, false, "'' is not a name"},
	{"a,a", 0, 0, false, "'a' is named twice"},
	{"a|a", 0, 0, false, "'a' is named twice"},
	{"a|", 0, 0, false, "'' is not a name; alternatives"},
	{"a|any", 0, 0, false, "'any' is not a name; alternatives"},
	{"a|b-c", 0, 0, false, "'b-c' is not a name; alternatives"},
	{"any:", 0, 0, false, "'' is not a constraint"},
	{"any:qubits", 0, 0, false, "'qubits' is not a constraint"},
	{"any:qubits==1", 0, 0, false, "'qubits==1' is not a constraint"},
	{"any:qubits=>1", 0, 0, false, "'qubits=>1' is not a constraint"},
	{"any:qubits!1", 0, 0, false, "'qubits!1' is not a constraint"},
	{"any:qubits>", 0, 0, false, "'qubits>' is not a constraint"},
	{"any:>1", 0, 0, false, "'>1' is not a constraint"},
	{"any:qubits>=1;reboot", 0, 0, false, "is not a constraint"},
	{"any:qubits>=$(id)", 0, 0, false, "is not a constraint"},
	{"any:qubits>=1\n", 0, 0, false, "is not a constraint"},
	{"any:name=\x1b[2J", 0, 0, false, "is not a constraint"},
	{"any:qbits>=1", 0, 0, false, "'qbits' is not an attribute"},
	{"any:q>=1", 0, 0, false, "'q' is not an attribute"},
	{"any:b=wait", 0, 0, false, "'b' is not an attribute"},
	{"any:by=luck", 0, 0, false, "write by=wait or by=error"},
	{"any,qubits>=1", 0, 0, false, "has no colon before it"},
	{"qubits>=1", 0, 0, false, "'qubits>=1' is not a name"},
	{"ibm_fez:qubits>=1", 0, 0, false, "'ibm_fez' is one QPU"},
	{"garnet:mock", 0, 0, false, "'garnet:mock' is not a name"},
	{"ibm-fez", 0, 0, false, "'ibm-fez' is not a name"},
	{"a%n%s", 0, 0, false, "'a%n%s' is not a name"},
	{"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,any", 15, 0, true, NULL},
	{"a,b,c,d,e,f,g,h,i,j,k,l,m,n,o,p,any", 0, 0, false, "more than 16 names"},
};

static void read_values(void)
{
	for (size_t i = 0; i < COUNT(cases); i++) {
		struct problem why = {""};
		struct option option;
		bool fine = option_parse(&option, cases[i].value, name_is_qpu, &why);

		CHECK(fine == (cases[i].reason == NULL), cases[i].value);
		CHECK(option.named.count == cases[i].named, cases[i].value);
		CHECK(option.offered.count == cases[i].offered, cases[i].value);
		CHECK(option.any == cases[i].any, cases[i].value);
		CHECK(option_has_choice(&option) == (cases[i].any || cases[i].offered > 0), cases[i].value);
		if (!fine) {
			CHECK(strncmp(why.text, "--qpu: ", 7) == 0, cases[i].value);
			CHECK(strstr(why.text, cases[i].reason) != NULL, why.text);
			CHECK(strlen(why.text) < 250, "a refused value does not fill the screen");
		}
		option_free(&option);
	}
}

static void refuse_what_is_too_long(void)
{
	char value[OPTION_LENGTH + 2];
	struct problem why = {""};
	struct option option;

	memset(value, '|', sizeof(value));
	value[sizeof(value) - 1] = '\0';
	CHECK(!option_parse(&option, value, name_is_qpu, &why), "too long");
	CHECK(strstr(why.text, "more than 1024 characters") != NULL, why.text);
	value[sizeof(value) - 2] = '\0';
	CHECK(!option_parse(&option, value, name_is_qpu, &why), "as many pieces as fit");
	for (size_t i = 0; i + 2 < sizeof(value); i += 2)
		value[i] = 'a';
	CHECK(!option_parse(&option, value, name_is_qpu, &why), "the same name again and again");
	CHECK(strstr(why.text, "'a' is named twice") != NULL, why.text);
}

static void take_a_guess(void)
{
	struct problem why = {""};
	struct option option;

	CHECK(option_parse(&option, "garnet:mock,ibm-fez", name_is_guess, &why), why.text);
	CHECK(option.named.count == 2, "to be told which QPUs there are");
	option_free(&option);
}

int main(void)
{
	read_values();
	refuse_what_is_too_long();
	take_a_guess();
	return 0;
}
