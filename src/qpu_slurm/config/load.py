# SPDX-License-Identifier: Apache-2.0
"""Finds and reads the configuration."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any

from qpu_slurm.config.model import Config, GatewayConfig, OutageConfig, QpuConfig, SlurmConfig
from qpu_slurm.config.qrmi_file import read_upstream
from qpu_slurm.config.tables import Problems, keys_of
from qpu_slurm.errors import ConfigError
from qpu_slurm.names import QPU_NAME

DEFAULT_PATH = Path("/etc/qpu_slurm/config.toml")
"""The default path. The variable QPU_SLURM_CONFIG and `--config` override it."""

_MAX_BYTES = 1 << 20

_SECTIONS = ("slurm", "outage", "gateway", "defaults", "qpu")
_KEYS = keys_of(Config, leave=("path", "slurm", "outage", "gateway", "qpus", "warnings"))
_QPU_KEYS = keys_of(QpuConfig, leave=("api_key",))
_DEFAULTS_KEYS = keys_of(QpuConfig, leave=("api_key", "name"))


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
    tables = _read_qpus(document.get("defaults", {}), document.get("qpu", []), problems)
    if gateway is None:
        for qpu in tables:
            if qpu.get("credentials") == "gateway":
                problems.add(f'[[qpu]] {qpu.get("name")!r}: credentials = "gateway" needs a [gateway] table.')
    if problems.found:
        return None
    qpus = {table["name"]: QpuConfig(**table) for table in tables}
    server = None if gateway is None else GatewayConfig(**gateway)
    return Config(
        **values,
        path=path,
        slurm=SlurmConfig(**slurm),
        outage=OutageConfig(**outage),
        gateway=server,
        qpus=qpus,
        warnings=(
            *(server.warnings() if server else ()),
            *(warning for qpu in qpus.values() for warning in qpu.warnings()),
        ),
    )


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


def _read_qpus(defaults: Any, tables: Any, problems: Problems) -> list[dict[str, Any]]:  # noqa: ANN401 - from TOML
    """Return the fields of each QPU, without those that have problems."""
    common = problems.table(
        QpuConfig, _keyless(defaults, "[defaults] ", problems), "[defaults] ", _DEFAULTS_KEYS
    )
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
        own = problems.table(QpuConfig, _keyless(table, where, problems), where, _QPU_KEYS)
        given = {*table, *(defaults if isinstance(defaults, dict) else ())}
        problems.missing(QpuConfig, given, where, _QPU_KEYS)
        qpu = common | own
        credentials = qpu.get("credentials", "user")
        if credentials != "user" and "key_file" not in given:
            problems.add(
                f'{where}key_file is missing: with credentials = "{credentials}" it names the key\'s file.'
            )
        if "key_file" in own and credentials == "user":
            problems.add(f'{where}key_file: expected only with credentials = "gateway" or "shared".')
        qpus.append(qpu)
    return qpus


def _keyless(table: Any, where: str, problems: Problems) -> Any:  # noqa: ANN401 - from TOML
    """Remove a credential that is in a table by mistake, and report where it belongs."""
    if not isinstance(table, dict) or "api_key" not in table:
        return table
    problems.add(f"{where}api_key: write the key into a file of its own, and name that file with key_file.")
    return {key: value for key, value in table.items() if key != "api_key"}
