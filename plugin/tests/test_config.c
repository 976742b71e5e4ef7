/* SPDX-License-Identifier: GPL-2.0-or-later */
#include "check.h"
#include "client/config.h"

#define QPU "[[qpu]]\nname = 'a'\ncredentials = 'gateway'\n"
#define HTTP "[gateway]\nurl = 'http://127.0.0.1:8470'\n"

static const struct {
	const char *text;
	const char *host, *port;
	bool tls, keys;
} good[] = {
	{HTTP QPU, "127.0.0.1", "8470", false, true},
	{"[gateway]\nurl = \"https://controller\"\n" QPU, "controller", "443", true, true},
	{"[gateway]\nurl='http://[::1]'\n", "::1", "80", false, false},
	{"gateway.url = 'http://a:1'\n", "a", "1", false, false},
	{"# x\n\t[ gateway ] # [gateway]\n \"url\" = 'http://a:1' # b\r\n" QPU QPU, "a", "1", false, true},
	{"[defaults]\ncredentials = 'gateway'\n[[qpu]]\n[[qpu]]\n" HTTP, "127.0.0.1", "8470", false, true},
	{"[defaults]\ncredentials = 'gateway'\n[[qpu]]\n[[qpu]]\ncredentials = 'user'\n" HTTP, "127.0.0.1", "8470", false,
	 false},
	{QPU "[[qpu]]\nname = 'b'\n" HTTP, "127.0.0.1", "8470", false, false},
	/* What stands in other values is not read. */
	{"a = '''\n[gateway]\nurl = 'http://no:1'\n'''''\nb = \"\"\"\\\n  \\\"\"\"[gateway]\"\"\"\n" HTTP, "127.0.0.1", "8470",
	 false, false},
	{"a = [1, # ]\n '[gateway]', [ { x.y = \"]\", z = [] } , ], ]\nb = {}\n" HTTP, "127.0.0.1", "8470", false, false},
	{"a = 2026-11-28 10:00:00.5+01:00\nb = 1979-05-27T07:32:00Z\nc = -1_000.5e+6\nd = true\n" HTTP, "127.0.0.1", "8470",
	 false, false},
	{"[a.'b.c'.d]\nurl = 'x'\n[a.e]\n[[f.g]]\n[[f.g]]\n" HTTP "listen = '0.0.0.0:1'\ncertificate = '/x\\y'\n", "127.0.0.1",
	 "8470", false, false},
};

static const char *const bad[] = {
	"",
	QPU,
	"[gateway]\n",
	"[gateway]\nurl = 5\n",
	"[gateway]\nurl = \"http://a\\u0062\"\n",
	"[gateway]\nurl = '''http://a'''\n",
	"[gateway]\nurl = 'ftp://a'\n",
	"[gateway]\nurl = 'http://a/path'\n",
	"[gateway]\nurl = 'http://me@a'\n",
	"[gateway]\nurl = 'http://'\n",
	"[gateway]\nurl = 'http://[::1'\n",
	"[gateway]\nurl = 'http://a:65536'\n",
	"[gateway]\nurl = 'http://a:'\n",
	"[gateway]\nurl = 'http://a\r\nb'\n",
	"gateway = { url = 'http://a' }\n",
	HTTP "url = 'http://b'\n",
	HTTP HTTP,
	HTTP "ca = 'relative.pem'\n",
	HTTP "ca = ''\n",
	HTTP "[slurm]\nmunge_socket = 5\n",
	HTTP "[slurm.x]\n",
	HTTP "[outage]\nacquire_timeout = 0\n",
	HTTP "[outage]\nacquire_timeout = -5\n",
	HTTP "[outage]\nacquire_timeout = '5 s'\n",
	HTTP "[outage]\nacquire_timeout = '5s1m'\n",
	HTTP "[outage]\nacquire_timeout = '367d'\n",
	HTTP "[qpu]\n",
	"qpu = []\n" HTTP,
	"slurm = 5\n" HTTP,
	HTTP "[[qpu.x]]\n",
	HTTP "[[gateway.x]]\n",
	HTTP "[[qpu]]\ncredentials = true\n",
	HTTP "[[qpu]]\ncredentials = 'user'\ncredentials = 'gateway'\n",
	HTTP "\"gate\\u0077ay\" = 1\n",
	HTTP "a = \n",
	HTTP "a = 'x\n",
	HTTP "a = \"\\x\"\n",
	HTTP "a = '''x",
	HTTP "a = [1\n",
	HTTP "a = {b = 1,\n}\n",
	HTTP "a = 1 b = 2\n",
	HTTP "a\n",
	HTTP "= 1\n",
	HTTP "[a\n",
	HTTP "[[a]\n",
	HTTP "# \x01\n",
	HTTP "a = 1\rb = 2\n",
	HTTP "a = [[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[1]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]]\n",
	HTTP "a.b.c.d.e.f.g.h.i = 1\n",
};

static void check_durations(void)
{
	static const struct {
		const char *text;
		unsigned long seconds;
	} cases[] = {{"90", 90},	{"'90s'", 90},	   {"'1m'", 60},     {"'1h30m'", 5400},
		     {"'1d1s'", 86401}, {"'366d'", 31622400}, {"'01m'", 60}};
	char text[256];
	struct config config;

	for (size_t i = 0; i < COUNT(cases); i++) {
		snprintf(text, sizeof(text), HTTP "[outage]\nacquire_timeout = %s\n", cases[i].text);
		CHECK(config_parse(&config, text, strlen(text)), text);
		CHECK(config.acquire_seconds == cases[i].seconds, text);
	}
}

int main(void)
{
	static const char paths[] = HTTP "ca = \"/etc/ca.pem\"\n[slurm]\nmunge_socket = '/run/munge'\n";
	struct config config;

	for (size_t i = 0; i < COUNT(good); i++) {
		const char *text = good[i].text;

		CHECK(config_parse(&config, text, strlen(text)), text);
		CHECK(strcmp(config.host, good[i].host) == 0, text);
		CHECK(strcmp(config.port, good[i].port) == 0, text);
		CHECK(config.tls == good[i].tls, text);
		CHECK(config.gateway_keys == good[i].keys, text);
		CHECK(config.acquire_seconds == 60, text);
		/* Cut anywhere, it is never read beyond its end. */
		for (size_t length = 0; length < strlen(text); length++) {
			char *part = malloc(length + 1);

			CHECK(part != NULL, text);
			memcpy(part, text, length);
			(void)config_parse(&config, part, length);
			free(part);
		}
	}
	for (size_t i = 0; i < COUNT(bad); i++)
		CHECK(!config_parse(&config, bad[i], strlen(bad[i])), bad[i]);
	CHECK(config_parse(&config, paths, strlen(paths)), paths);
	CHECK(strcmp(config.ca, "/etc/ca.pem") == 0, paths);
	CHECK(strcmp(config.munge_socket, "/run/munge") == 0, paths);
	CHECK(!config_parse(&config, HTTP "\0", sizeof(HTTP)), "a NUL");
	CHECK(!config_read(&config, "/nowhere"), "a file that is not there");
	CHECK(!config_read(&config, "/dev/zero"), "a file without an end");
	check_durations();
	return 0;
}
