# SPDX-License-Identifier: Apache-2.0
"""Makes the commented config.toml of the gateway's package, from the tables of docs/configuration.md."""

from __future__ import annotations

import re
import textwrap
from typing import Final

HEAD: Final = """\
# The configuration of qpu_slurm: see qpu_slurm.conf(5). Install the same file on the gateway's host, the
# controller and the compute nodes. It holds no secret, and all users may read it.
#
# Every key is here with its default, or with an example where it has none. Uncomment what you need: a [[qpu]]
# with a `name`, and its `instance`, are enough. Services of other kinds have keys of their own, and a
# qrmi_config.json of spank-plugins can take the place of all [[qpu]]: see the page.
"""

SECTIONS: Final = ("At the top", "[slurm]", "[outage]", "[gateway]", "[[qpu]] and [defaults]")

EXAMPLES: Final = {
    "attributes": '{qubits = 20, processor = "crystal", error = 0.006}',
    "audit_syslog": '"/dev/log"',
    "backend": '"ibm_fez"',
    "ca": '"/etc/qpu_slurm/ca.pem"',
    "catalog_endpoint": '"https://globalcatalog.cloud.ibm.com/api/v1"',
    "certificate": '"/etc/qpu_slurm/gateway.pem"',
    "certificate_key": '"/etc/qpu_slurm/gateway.key"',
    "instance": '"crn:v1:bluemix:public:quantum-computing:us-east:a/ACCOUNT:INSTANCE::"',
    "key_file": '"/etc/qpu_slurm/ibm.key"',
    "log": '"/var/log/qpu_slurm/hooks.log"',
    "max_leases": "10",
    "munge_socket": '"/run/munge/munge.socket.2"',
    "name": '"ibm_fez"',
    "search_endpoint": '"https://api.global-search-tagging.cloud.ibm.com"',
    "task_timeout": '"1h"',
    "trusted_users": '["slurm"]',
    "url": '"https://controller:8470"',
}
"""For keys whose default is none, or stands in words."""


ALTERNATIVES: Final = ("qrmi_config",)
"""Keys that take the place of others, so that a file cannot have both."""


def config_toml(document: str) -> str:
    """Return the file's text.

    Args:
        document: docs/configuration.md.

    Raises:
        KeyError: A key has neither a default nor an example here.
    """
    parts = [HEAD]
    for section in SECTIONS:
        rows = _rows(document, section)
        if section.startswith("[[qpu]]"):
            parts += ["#[defaults]", *(_entry(*row) for row in rows if row[0] != "name")]
            parts += ["# One for each QPU. It may have every key of [defaults], too.\n#[[qpu]]"]
            parts += [_entry(*row) for row in rows if row[0] == "name"]
        else:
            parts += [f"#{section}"] if section.startswith("[") else []
            parts += [_entry(*row) for row in rows]
    return "\n\n".join(part.strip("\n") for part in parts) + "\n"


def _rows(document: str, section: str) -> list[tuple[str, str, str]]:
    """Return the keys of a section, each with its default and its meaning."""
    text = re.split(r"^##+ ", document.split(f"\n## {section}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", text, re.MULTILINE)
    return [row for row in rows if row[0] not in ALTERNATIVES]


def _entry(key: str, default: str, meaning: str) -> str:
    """Return a key with its meaning above it."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", meaning)
    value = default.strip("`") if default.startswith("`") else EXAMPLES[key]
    comment = textwrap.fill(plain, 108, initial_indent="# ", subsequent_indent="# ")
    return f"{comment}\n#{key} = {value}"
