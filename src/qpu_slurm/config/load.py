# SPDX-License-Identifier: Apache-2.0
"""Finds and reads the configuration."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

import msgspec

from qpu_slurm.config import budgets
from qpu_slurm.config.access import read_access
from qpu_slurm.config.attributes import Attributes
from qpu_slurm.config.kinds import CLOUD, KINDS, NOT_YET
from qpu_slurm.config.model import Config, GatewayConfig, OutageConfig, QpuConfig, SlurmConfig
from qpu_slurm.config.qrmi_file import read_qpus, read_upstream
from qpu_slurm.config.tables import Problems, keys_of, quote
from qpu_slurm.errors import ConfigError
from qpu_slurm.names import QPU_NAME

DEFAULT_PATH = Path("/etc/qpu_slurm/config.toml")
"""The default path. The variable QPU_SLURM_CONFIG and `--config` override it."""

_MAX_BYTES = 1 << 20

_SECTIONS = ("slurm", "outage", "gateway", "defaults", "qpu", "budgets", "budget")
_KEYS = keys_of(Config, leave=("path", "slurm", "outage", "gateway", "qpus", "budgets", "warnings"))
_ACCESS = "access"
"""The key of a QPU whose value is a table; see `config/access.py`."""
_QPU_KEYS = {kind: keys_of(kind, leave=("access_rules", "api_key", "s3_secret")) for kind in KINDS.values()}
_DEFAULTS_KEYS = {key: key for keys in _QPU_KEYS.values() for key in keys if key != "name"}
"""What `[defaults]` may have: each QPU takes what its kind has of it."""
_POLICIES = {name: name for name in ("session", "exclusive", "max_leases", "starts_at_once")}
"""What it may have for the QPUs of a qrmi_config.json."""


def path_of(path: Path | None = None) -> Path:
    """Return the path of the configuration; see `load`."""
    return Path(path or os.environ.get("QPU_SLURM_CONFIG") or DEFAULT_PATH).absolute()


def load(path: Path | None = None) -> Config:
    """Read the configuration.

    Args:
        path: The file; by default what QPU_SLURM_CONFIG names, else /etc/qpu_slurm/config.toml. A file whose
            name ends in `.json` is read as upstream's qrmi_config.json.

    Raises:
        ConfigError: The file cannot be used. The error lists all of its problems.
    """
    path = path_of(path)
    if path.suffix == ".json":
        return read_upstream(path)
    problems = Problems(path)
    document = _parse(path, problems)
    config = None if document is None else _read(path, document, problems)
    if config is None:
        raise ConfigError(*problems.found)
    return config


def _parse(path: Path, problems: Problems) -> dict[str, Any] | None:
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: not a path
        advice = (
            " Write it (docs/install.md), or name another with --config or QPU_SLURM_CONFIG."
            if isinstance(error, FileNotFoundError)
            else ""
        )
        problems.add(f"cannot be read ({getattr(error, 'strerror', None) or 'not a path'}).{advice}")
        return None
    if len(content) > _MAX_BYTES:
        problems.add("is larger than 1 MiB.")
        return None
    try:
        return tomllib.loads(content.decode())
    except UnicodeDecodeError as error:
        problems.add(f"is not UTF-8 text (byte {error.start}).")
    except tomllib.TOMLDecodeError as error:
        problems.add(f"is not TOML: {error}.")
    except (RecursionError, ValueError):  # nested too deeply, or a number or date out of range
        problems.add("is TOML that is nested too deeply, or has a number or date out of range.")
    return None


def _read(path: Path, document: dict[str, Any], problems: Problems) -> Config | None:
    problems.unknown_keys(document, "", (*_KEYS, *_SECTIONS))
    values = problems.fields(Config, document, "", _KEYS)
    slurm = problems.table(SlurmConfig, document.get("slurm", {}), "[slurm] ", keys_of(SlurmConfig))
    outage = problems.table(OutageConfig, document.get("outage", {}), "[outage] ", keys_of(OutageConfig))
    gateway = _read_gateway(document, problems)
    if "qrmi_config" in document:
        qpus, skipped = _read_upstreams(document, values.get("qrmi_config"), problems)
    else:
        qpus, skipped = _read_tables(document, problems), []
    limits = budgets.read(document, qpus, problems)
    if problems.found:
        return None
    server = None if gateway is None else GatewayConfig(**gateway)
    return Config(
        **values,
        path=path,
        slurm=SlurmConfig(**slurm),
        outage=OutageConfig(**outage),
        gateway=server,
        qpus=qpus,
        budgets=limits,
        warnings=(
            *skipped,
            *(server.warnings() if server else ()),
            *(warning for qpu in qpus.values() for warning in qpu.warnings()),
        ),
    )


def _read_upstreams(
    document: dict[str, Any], path: Path | None, problems: Problems
) -> tuple[dict[str, QpuConfig], list[str]]:
    """Return the QPUs of a qrmi_config.json that the gateway serves, and what of it is not used."""
    if "gateway" not in document:
        problems.add("qrmi_config: needs a [gateway] table, whose gateway alone reads that file.")
    if "qpu" in document:
        problems.add("qrmi_config, [[qpu]]: expected one of them. A qrmi_config.json has all QPUs.")
    defaults, access = document.get("defaults", {}), None
    if isinstance(defaults, dict) and _ACCESS in defaults:
        access = read_access(defaults[_ACCESS], "[defaults] ", problems)
        defaults = {key: value for key, value in defaults.items() if key != _ACCESS}
    policies = problems.table(QpuConfig, defaults, "[defaults] ", _POLICIES)
    if access is not None:
        policies["access_rules"] = access
    # Nodes need not know the QPUs: the gateway answers for them.
    if path is None or problems.found or not os.access(path, os.R_OK):
        return {}, []
    return read_qpus(path, policies)


def _read_tables(document: dict[str, Any], problems: Problems) -> dict[str, QpuConfig]:
    """Return the QPUs of the file's own tables; none if there are problems."""
    tables = _read_qpus(document.get("defaults", {}), document.get("qpu", []), problems)
    if "gateway" not in document:
        for kind, qpu in tables:
            if qpu.get("credentials", _default(kind, "credentials")) == "gateway":
                problems.add(f'[[qpu]] {qpu.get("name")!r}: credentials = "gateway" needs a [gateway] table.')
    return {} if problems.found else {table["name"]: kind(**table) for kind, table in tables}


def _read_gateway(document: dict[str, Any], problems: Problems) -> dict[str, Any] | None:
    """Return the fields of [gateway]; None without such a table."""
    if "gateway" not in document:
        return None
    table, where, keys = document["gateway"], "[gateway] ", keys_of(GatewayConfig)
    gateway = problems.table(GatewayConfig, table, where, keys)
    if isinstance(table, dict):
        problems.missing(GatewayConfig, table, where, keys)
        if ("certificate" in table) != ("certificate_key" in table):
            problems.add(f"{where}certificate, certificate_key: expected both, or neither.")
    return gateway


def _read_qpus(
    defaults: Any,  # noqa: ANN401 - from TOML
    tables: Any,  # noqa: ANN401 - likewise
    problems: Problems,
) -> list[tuple[type[QpuConfig], dict[str, Any]]]:
    """Return the kind and the fields of each QPU, without those that have problems."""
    common = _read_defaults(_keyless(defaults, "[defaults] ", problems), problems)
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        problems.add("[[qpu]]: expected a table for each QPU, with [[qpu]] (two brackets) above it.")
        return []
    if not tables:
        problems.add("has no [[qpu]] table: expected one for each QPU.")
    qpus = []
    names = set()
    for number, table in enumerate(tables, 1):
        name = table.get("name")
        where = f"[[qpu]] number {number}: "
        if isinstance(name, str) and QPU_NAME.fullmatch(name):
            where = f"[[qpu]] {name!r}: "
            if name in names:
                problems.add(f"{where}another QPU has this name already.")
            names.add(name)
        kind = _kind(table.get("type", common.get("type", CLOUD)), where, problems)
        if kind is not None:
            qpus.append((kind, _read_qpu(kind, common, _keyless(table, where, problems), where, problems)))
    return qpus


def _read_defaults(table: Any, problems: Problems) -> dict[str, Any]:  # noqa: ANN401 - from TOML
    """Return what `[defaults]` has that is right for some kind of QPU, as it is written."""
    if not isinstance(table, dict):
        problems.add("[defaults]: expected a table.")
        return {}
    problems.unknown_keys(table, "[defaults] ", (*_DEFAULTS_KEYS, _ACCESS))
    right = {}
    if _ACCESS in table:
        read_access(table[_ACCESS], "[defaults] ", problems)
        right[_ACCESS] = table[_ACCESS]
    for key in filter(_DEFAULTS_KEYS.__contains__, table):
        if key == "type":  # noted at the QPUs that have it from here
            right[key] = table[key]
            continue
        wrong = []
        for kind, keys in _QPU_KEYS.items():
            if key in keys:
                found = problems.apart()
                found.fields(kind, table, "[defaults] ", {key: key})
                wrong.append(found.found)
        if all(wrong):
            problems.found += wrong[0]
        else:
            right[key] = table[key]
    return right


def _kind(type_: object, where: str, problems: Problems) -> type[QpuConfig] | None:
    """Return the kind of QPU that has a type; note one that there is none of."""
    if isinstance(type_, str) and type_ in KINDS:
        return KINDS[type_]
    known = " or ".join(f'"{name}"' for name in KINDS)
    if type_ in NOT_YET:
        problems.add(f'{where}type: "{type_}" is not supported yet. Supported are {known}.')
    else:
        problems.add(f"{where}type: expected {known}, not {quote(type_)}.")
    return None


def _read_qpu(
    kind: type[QpuConfig], common: dict[str, Any], table: dict[str, Any], where: str, problems: Problems
) -> dict[str, Any]:
    """Return the fields of one QPU that are right."""
    keys = _QPU_KEYS[kind]
    given = {key: value for key, value in common.items() if key in keys or key == _ACCESS} | table
    for key in table:
        if key not in keys and key in _DEFAULTS_KEYS:
            problems.add(f'{where}{key}: a QPU of type "{given.get("type", CLOUD)}" has no such key.')
    foreign = {key: None for key in table if key not in {*keys, *_DEFAULTS_KEYS, _ACCESS}}
    problems.unknown_keys(foreign, where, (*keys, _ACCESS))
    flat = {key: name for key, name in keys.items() if key != "attributes"}
    qpu = problems.fields(kind, given, where, flat)
    if "attributes" in given:
        inside = f"{where}attributes."
        told = problems.table(Attributes, given["attributes"], inside, keys_of(Attributes))
        qpu["attributes"] = Attributes(**told)
    if _ACCESS in given:
        # What is wrong in [defaults] is noted there.
        found = problems if _ACCESS in table else problems.apart()
        qpu["access_rules"] = read_access(given[_ACCESS], where, found)
    problems.missing(kind, given, where, keys)
    credentials = qpu.get("credentials", _default(kind, "credentials"))
    if credentials != "user" and "key_file" not in given:
        problems.add(
            f'{where}key_file is missing: with credentials = "{credentials}" it names the key\'s file.'
        )
    for key in kind.needs:
        if key not in given:
            problems.add(f"{where}{key} is missing: expected an absolute path.")
    if "key_file" in table and credentials == "user":
        problems.add(f'{where}key_file: expected only with credentials = "gateway" or "shared".')
    return qpu


def _default(kind: type[QpuConfig], name: str) -> object:
    return next(field.default for field in msgspec.structs.fields(kind) if field.name == name)


def _keyless(table: Any, where: str, problems: Problems) -> Any:  # noqa: ANN401 - from TOML
    """Remove a credential that is in a table by mistake, and report where it belongs."""
    if not isinstance(table, dict) or "api_key" not in table:
        return table
    problems.add(f"{where}api_key: write the key into a file of its own, and name that file with key_file.")
    return {key: value for key, value in table.items() if key != "api_key"}
