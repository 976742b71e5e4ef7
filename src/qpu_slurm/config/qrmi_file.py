# SPDX-License-Identifier: Apache-2.0
"""Reads upstream's qrmi_config.json (of spank-plugins and qrmi) unchanged.

    {"resources": [{"name": "ibm_fez", "type": "ibm-quantum-compute-service",
                    "environment": {"QRMI_IBM_QCS_IAM_APIKEY": "…", "QRMI_IBM_QCS_SERVICE_CRN": "crn:…"}}]}

Upstream's plugin sets the variables of `environment` in the job, each with the prefix `<name>_`. The keys are
among them, so other users must not be able to read the file.

- As the configuration itself, it means what it means upstream: every job sees the API key
  (`credentials = "shared"`). Without a key, the user's own is used.
- As the `qrmi_config` of a config.toml, it tells the gateway of its QPUs: no job sees a key.

Resources of other vendors, and templates of resources, are skipped with a warning.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from qpu_slurm.config.kinds import ComputeServiceQpu, IqmServerQpu, QuantumSystemQpu
from qpu_slurm.config.model import MAX_TTL, Config, QpuConfig
from qpu_slurm.config.private import read_private
from qpu_slurm.config.tables import Problems, quote
from qpu_slurm.errors import ConfigError
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MAX_BYTES = 1 << 20

_CLOUD = {
    "ENDPOINT": "endpoint",
    "IAM_ENDPOINT": "iam_endpoint",
    "SERVICE_CRN": "instance",
    "SESSION_MODE": "mode",
    "SESSION_MAX_TTL": "max_ttl",
    "TIMEOUT_SECONDS": "task_timeout",
}
_SYSTEM = {
    "ENDPOINT": "endpoint",
    "IAM_ENDPOINT": "iam_endpoint",
    "SERVICE_CRN": "instance",
    "S3_ENDPOINT": "s3_endpoint",
    "S3_ENDPOINT_FOR_QSAPI": "s3_endpoint_for_qsapi",
    "S3_BUCKET": "s3_bucket",
    "S3_REGION": "s3_region",
    "AWS_ACCESS_KEY_ID": "s3_access_key_id",
}


class _Type(NamedTuple):
    """A resource type that is supported.

    Attributes:
        kind: What becomes of such a resource.
        prefix: What the names of its variables begin with.
        fields: The fields of `kind`, by the rest of the variable's name.
        keys: Likewise, those that hold credentials.
        by_gateway: Whether jobs that had these credentials would reach each other's tasks.
    """

    kind: type[QpuConfig]
    prefix: str
    fields: Mapping[str, str]
    keys: Mapping[str, str]
    by_gateway: bool = False


_TYPES = {
    "ibm-quantum-compute-service": _Type(
        ComputeServiceQpu, "QRMI_IBM_QCS_", _CLOUD, {"IAM_APIKEY": "api_key"}
    ),
    "qiskit-runtime-service": _Type(ComputeServiceQpu, "QRMI_IBM_QRS_", _CLOUD, {"IAM_APIKEY": "api_key"}),
    "ibm-quantum-system": _Type(
        QuantumSystemQpu,
        "QRMI_IBM_QS_",
        _SYSTEM,
        {"IAM_APIKEY": "api_key", "AWS_SECRET_ACCESS_KEY": "s3_secret"},
        by_gateway=True,
    ),
    "iqm-server": _Type(
        IqmServerQpu, "QRMI_IQM_ISA_", {"ENDPOINT": "endpoint"}, {"TOKEN": "api_key"}, by_gateway=True
    ),
}

_NUMBERS = ("max_ttl", "task_timeout")
_NUMBER = re.compile(r"[0-9]{1,18}")
_KEY = re.compile(r"[\x21-\x7e]{1,4096}")


def read_upstream(path: Path) -> Config:
    """Read a qrmi_config.json as the configuration.

    Raises:
        ConfigError: It cannot be used, or other users can read it. The error lists all problems.
    """
    qpus, skipped = read_qpus(path)
    insecure = (warning for qpu in qpus.values() for warning in qpu.warnings())
    return Config(path=path, qpus=qpus, warnings=(*skipped, *insecure))


def read_qpus(
    path: Path, behind_gateway: Mapping[str, Any] | None = None
) -> tuple[dict[str, QpuConfig], list[str]]:
    """Read the QPUs of a qrmi_config.json.

    Args:
        path: The file.
        behind_gateway: Further fields of all QPUs, which are behind the gateway; None: there is none.

    Returns:
        The QPUs by name, and what is not used, a sentence each.

    Raises:
        ConfigError: See `read_upstream`.
    """
    reader = _Reader(path, behind_gateway)
    qpus: dict[str, QpuConfig] = {}
    for number, resource in enumerate(reader.resources(), 1):
        qpu = reader.qpu(resource, number)
        if qpu is None:
            continue
        if qpu.name in qpus:
            reader.problems.add(f"resource {qpu.name!r}: another resource has this name already.")
        qpus[qpu.name] = qpu
    if not qpus and not reader.problems.found:
        known = " or ".join(
            name for name, type_ in _TYPES.items() if not type_.by_gateway or behind_gateway is not None
        )
        reader.problems.add(f"has no resource of a type that is supported: {known}.")
    if reader.problems.found:
        raise ConfigError(*reader.problems.found)
    return qpus, reader.warnings


class _Reader:
    """Reads one file. Its errors go to `problems`, skipped resources to `warnings`."""

    def __init__(self, path: Path, behind_gateway: Mapping[str, Any] | None) -> None:
        self._path = path
        self._behind_gateway = behind_gateway
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

    def qpu(self, resource: Any, number: int) -> QpuConfig | None:  # noqa: ANN401 - from JSON
        """Read a resource, unless it has to be skipped or has errors."""
        where = f"resource number {number}: "
        if not isinstance(resource, dict):
            self.problems.add(f"{where}expected an object with name, type and environment.")
            return None
        where = f"resource {quote(resource['name'])}: " if "name" in resource else where
        environment = resource.get("environment", {})
        type_ = _TYPES.get(str(resource.get("type")))
        skipped = ""
        if type_ is None:
            skipped = f"type {quote(resource.get('type'))} is not supported"
        elif type_.by_gateway and self._behind_gateway is None:
            skipped = (
                f"type {quote(resource.get('type'))} needs the gateway. Name this file as qrmi_config in a "
                "config.toml with a [gateway] table"
            )
        elif resource.get("is_dynamic"):
            skipped = "it is a template (is_dynamic), not a QPU"
        elif environment == {}:
            skipped = "its environment is empty, so the service instance is unknown"
        if type_ is None or skipped:
            self.warnings.append(f"{self._path}: {where}skipped: {skipped}.")
            return None
        if not isinstance(environment, dict) or not all(
            isinstance(item, str) for item in environment.values()
        ):
            self.problems.add(f"{where}environment: expected an object whose values are strings.")
            return None
        before = len(self.problems.found)
        # Upstream's clients also treat an empty value as unset.
        variables = {key: item for key, item in environment.items() if item}
        values = self._values(resource, variables, type_, where)
        values |= self._credentials(variables, type_, where)
        return type_.kind(**values) if len(self.problems.found) == before else None

    def _values(
        self, resource: dict[str, Any], environment: dict[str, str], type_: _Type, where: str
    ) -> dict[str, Any]:
        keys = {f"{type_.prefix}{suffix}": field for suffix, field in type_.fields.items()}
        for key in environment:
            if key not in keys and key.removeprefix(type_.prefix) not in type_.keys:
                self.warnings.append(f"{self._path}: {where}{quote(key)} is not used.")
        # All values are text: numbers as digits, the mode in upper or lower case.
        table: dict[str, Any] = dict(environment)
        for key in keys.keys() & environment.keys():
            if keys[key] in _NUMBERS and _NUMBER.fullmatch(environment[key]):
                table[key] = int(environment[key])
            elif keys[key] == "mode":
                table[key] = environment[key].lower()
        max_ttl = f"{type_.prefix}SESSION_MAX_TTL"
        if isinstance(table.get(max_ttl), int) and table[max_ttl] > MAX_TTL:
            table[max_ttl] = MAX_TTL
            self.warnings.append(
                f"{self._path}: {where}{max_ttl} is cut to the service's limit of {MAX_TTL}."
            )
        names = {"name": "name", "type": "type"}
        values = dict(self._behind_gateway or {})
        if type_.kind is IqmServerQpu and isinstance(resource.get("name"), str):
            values["backend"] = IqmServerQpu.alias_of(resource["name"])
        values |= self.problems.fields(type_.kind, resource, where, names)
        values |= self.problems.fields(type_.kind, table, where, keys)
        self.problems.missing(type_.kind, {*resource, *environment}, where, names | keys)
        return values

    def _credentials(self, environment: dict[str, str], type_: _Type, where: str) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for suffix, field in type_.keys.items():
            key = f"{type_.prefix}{suffix}"
            if key in environment:
                if not _KEY.fullmatch(environment[key]):
                    self.problems.add(f"{where}{key}: expected an API key.")
                values[field] = Secret(environment[key])
            elif self._behind_gateway is not None:
                self.problems.add(f"{where}{key} is missing: the gateway needs it.")
        if values:
            values["credentials"] = "shared" if self._behind_gateway is None else "gateway"
        return values
