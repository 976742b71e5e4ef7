# SPDX-License-Identifier: Apache-2.0
"""Reads upstream's qrmi_config.json (of spank-plugins and qrmi) unchanged.

    {"resources": [{"name": "ibm_fez", "type": "ibm-quantum-compute-service",
                    "environment": {"QRMI_IBM_QCS_IAM_APIKEY": "…", "QRMI_IBM_QCS_SERVICE_CRN": "crn:…"}}]}

Upstream's plugin sets the variables of `environment` in the job, each with the prefix `<name>_`. The API key
is among them, so every job sees it (`credentials = "shared"`), and other users must not be able to read the
file. Without a key, the user's own is used, as upstream does. Resources of other vendors, and templates of
resources, are skipped with a warning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import msgspec

from qpu_slurm.config.kinds import ComputeServiceQpu
from qpu_slurm.config.model import MAX_TTL, Config, QpuConfig
from qpu_slurm.config.private import read_private
from qpu_slurm.config.tables import Problems, quote
from qpu_slurm.errors import ConfigError
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

_MAX_BYTES = 1 << 20

_PREFIXES = {
    "ibm-quantum-compute-service": "QRMI_IBM_QCS_",
    "qiskit-runtime-service": "QRMI_IBM_QRS_",
}
"""The resource types that are supported, and the prefixes of their variables."""

_BY_GATEWAY = ("ibm-quantum-system",)
"""Types whose jobs would reach each other's tasks, if they had the key that upstream hands to them."""

_FIELDS = {
    "ENDPOINT": "endpoint",
    "IAM_ENDPOINT": "iam_endpoint",
    "SERVICE_CRN": "instance",
    "SESSION_MODE": "mode",
    "SESSION_MAX_TTL": "max_ttl",
    "TIMEOUT_SECONDS": "task_timeout",
}

_NUMBER = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


def read_upstream(path: Path) -> Config:
    """Read a qrmi_config.json.

    Raises:
        ConfigError: It cannot be used, or other users can read it. The error lists all problems.
    """
    reader = _Reader(path)
    qpus: dict[str, QpuConfig] = {}
    for number, resource in enumerate(reader.resources(), 1):
        qpu = reader.qpu(resource, number)
        if qpu is None:
            continue
        if qpu.name in qpus:
            reader.problems.add(f"resource {qpu.name!r}: another resource has this name already.")
        qpus[qpu.name] = qpu
    if not qpus and not reader.problems.found:
        reader.problems.add(f"has no resource of a type that is supported: {' or '.join(_PREFIXES)}.")
    if reader.problems.found:
        raise ConfigError(*reader.problems.found)
    insecure = (warning for qpu in qpus.values() for warning in qpu.warnings())
    return Config(path=path, qpus=qpus, warnings=(*reader.warnings, *insecure))


class _Reader:
    """Reads one file. Its errors go to `problems`, skipped resources to `warnings`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.problems = Problems(path)
        self.warnings: list[str] = []

    def resources(self) -> list[Any]:
        try:
            document = msgspec.json.decode(read_private(self._path, _MAX_BYTES))
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            self.problems.add(f"is not JSON: {error}.")
            return []
        resources = document.get("resources") if isinstance(document, dict) else None
        if not isinstance(resources, list):
            self.problems.add('expected {"resources": [ … ]}, as in upstream\'s example.')
            return []
        return resources

    def qpu(self, resource: Any, number: int) -> ComputeServiceQpu | None:  # noqa: ANN401 - from JSON
        """Read a resource, unless it has to be skipped or has errors."""
        where = f"resource number {number}: "
        if not isinstance(resource, dict):
            self.problems.add(f"{where}expected an object with name, type and environment.")
            return None
        where = f"resource {quote(resource['name'])}: " if "name" in resource else where
        environment = resource.get("environment", {})
        prefix = _PREFIXES.get(str(resource.get("type")))
        skipped = ""
        if resource.get("type") in _BY_GATEWAY:
            skipped = (
                f"type {quote(resource.get('type'))} needs the gateway. Write a [[qpu]] table of that type "
                "into a config.toml"
            )
        elif prefix is None:
            skipped = f"type {quote(resource.get('type'))} is not supported"
        elif resource.get("is_dynamic"):
            skipped = "it is a template (is_dynamic), not a QPU"
        elif environment == {}:
            skipped = "its environment is empty, so the service instance is unknown"
        if prefix is None or skipped:
            self.warnings.append(f"{self._path}: {where}skipped: {skipped}.")
            return None
        if not isinstance(environment, dict) or not all(
            isinstance(item, str) for item in environment.values()
        ):
            self.problems.add(f"{where}environment: expected an object whose values are strings.")
            return None
        before = len(self.problems.found)
        # Upstream's clients also treat an empty value as unset.
        values = self._values(
            resource, {key: item for key, item in environment.items() if item}, prefix, where
        )
        return ComputeServiceQpu(**values) if len(self.problems.found) == before else None

    def _values(
        self, resource: dict[str, Any], environment: dict[str, str], prefix: str, where: str
    ) -> dict[str, Any]:
        keys = {f"{prefix}{suffix}": field for suffix, field in _FIELDS.items()}
        api_key, mode, max_ttl = f"{prefix}IAM_APIKEY", f"{prefix}SESSION_MODE", f"{prefix}SESSION_MAX_TTL"
        for key in environment:
            if key not in keys and key != api_key:
                self.warnings.append(f"{self._path}: {where}{quote(key)} is not used.")
        # All values are text: numbers as digits, the mode in upper or lower case.
        table: dict[str, Any] = {
            key: int(value) if _NUMBER.fullmatch(value) else value for key, value in environment.items()
        }
        if mode in table:
            table[mode] = environment[mode].lower()
        if isinstance(table.get(max_ttl), int) and table[max_ttl] > MAX_TTL:
            table[max_ttl] = MAX_TTL
            self.warnings.append(
                f"{self._path}: {where}{max_ttl} is cut to the service's limit of {MAX_TTL}."
            )
        names = {"name": "name", "type": "type"}
        values = self.problems.fields(ComputeServiceQpu, resource, where, names)
        values |= self.problems.fields(ComputeServiceQpu, table, where, keys)
        self.problems.missing(ComputeServiceQpu, {*resource, *environment}, where, names | keys)
        if api_key in environment:
            if not _KEY.fullmatch(environment[api_key]):
                self.problems.add(f"{where}{api_key}: expected an API key.")
            values |= {"credentials": "shared", "api_key": Secret(environment[api_key])}
        return values
