# SPDX-License-Identifier: Apache-2.0
"""Digests of configurations, to compare those of two hosts."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from qpu_slurm.config.model import Config

_LENGTH = 16

_OF_THE_KEEPER = frozenset(
    (
        *("access_rules", "key_file", "s3_key_file", "api_key", "s3_secret"),
        *("max_leases", "exclusive", "starts_at_once", "attributes"),
    )
)
"""The fields of a QPU that only the host of keys and journal uses."""


class Digests(msgspec.Struct, frozen=True):
    """Digests that hosts compare without revealing their files.

    Attributes:
        all: Of the whole configuration.
        shared: Of the part that has to be the same on all hosts: the QPUs, and the gateway's URL.
    """

    all: str = ""
    shared: str = ""


def digests(config: Config) -> Digests:
    """Return the digests of a configuration, without its credentials."""
    everything = msgspec.to_builtins(config, enc_hook=_plain)
    for name in ("path", "warnings"):
        del everything[name]
    qpus = [
        {name: value for name, value in qpu.items() if name not in _OF_THE_KEEPER}
        for qpu in everything["qpus"].values()
    ]
    url = config.gateway.url if config.gateway else None
    return Digests(_digest(everything), _digest({"qpus": qpus, "url": url, "acquire_on": config.acquire_on}))


def _digest(document: object) -> str:
    return hashlib.sha256(msgspec.json.encode(document, order="sorted")).hexdigest()[:_LENGTH]


def _plain(value: object) -> str:
    """Convert a path to text. A credential converts to text that hides it."""
    return str(value)
