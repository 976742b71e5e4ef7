# SPDX-License-Identifier: Apache-2.0
"""A QPU's table has what its kind of service needs, and nothing else."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from qpu_slurm import config
from qpu_slurm.config import ComputeServiceQpu, IqmServerQpu, QuantumSystemQpu
from qpu_slurm.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

    from qpu_slurm.config import Config

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
KEY, SECRET = "the-admins-key-of-a-system", "the-secret-key-of-its-storage"

SYSTEM = """
[gateway]
url = "https://controller:8470"
[[qpu]]
name = "onprem"
type = "ibm-quantum-system"
backend = "ibm_fez"
endpoint = "https://qsa.centre.example:30060"
instance = "{crn}"
key_file = "{directory}/key"
s3_endpoint = "https://s3.centre.example"
s3_bucket = "qpu-tasks"
s3_access_key_id = "qpu"
s3_key_file = "{directory}/s3"
"""


def read(directory: Path, text: str) -> Config:
    for name, content in (("key", KEY), ("s3", SECRET)):
        path = directory / name
        path.touch(mode=0o600)
        path.write_text(content)
    path = directory / "config.toml"
    path.write_text(text.format(crn=CRN, directory=directory))
    return config.load(path)


def problems(directory: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(directory, text)
    return [problem.partition("config.toml: ")[2] for problem in caught.value.problems]


IQM = """
[gateway]
url = "https://controller:8470"
[defaults]
instance = "{crn}"
[[qpu]]
name = "garnet_mock"
type = "iqm-server"
endpoint = "https://iqm.centre.example"
key_file = "{directory}/key"
"""


def test_a_qpu_of_iqm(tmp_path: Path) -> None:
    qpu = read(tmp_path, IQM + 'backend = "garnet:mock"\nuse_timeslot = "always"').qpu("garnet_mock")

    assert isinstance(qpu, IqmServerQpu)
    assert (qpu.backend, qpu.use_timeslot, qpu.through_gateway) == ("garnet:mock", "always", True)
    access = qpu.access()
    assert (access.endpoint, access.api_key.reveal(), access.ledger) == (
        "https://iqm.centre.example",
        KEY,
        "/var/lib/qpu_slurm/iqm",
    )
    seen = qpu.seen_by_jobs("https://controller:8470")
    assert (seen.type, seen.backend, seen.iqm_endpoint) == (
        "iqm-server",
        "garnet:mock",
        "https://controller:8470",
    )
    assert "iqm.centre.example" not in str(seen)


@pytest.mark.parametrize("key", ["instance", "iam_endpoint", "task_timeout", "mode", "max_ttl", "s3_bucket"])
def test_what_iqm_does_not_know_is_refused(tmp_path: Path, key: str) -> None:
    found = problems(tmp_path, f'{IQM}{key} = "x"')
    assert found == [f"[[qpu]] 'garnet_mock': {key}: a QPU of type \"iqm-server\" has no such key."]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ('use_timeslot = "sometimes"', 'use_timeslot: expected "user" or "always" or "never"'),
        ('credentials = "shared"', 'credentials: expected "gateway"'),
        ('backend = "a/b"', "backend: expected the server's alias of the QPU"),
        ('ledger = "here"', "ledger: expected an absolute path"),
    ],
)
def test_a_wrong_value_of_iqms(tmp_path: Path, line: str, expected: str) -> None:
    (found,) = problems(tmp_path, f"{IQM}{line}")
    assert expected in found


def test_an_iqm_server_needs_the_gateway(tmp_path: Path) -> None:
    (found,) = problems(tmp_path, IQM.replace('[gateway]\nurl = "https://controller:8470"', ""))
    assert "needs a [gateway] table" in found


def test_a_qpu_on_the_premises(tmp_path: Path) -> None:
    found = read(tmp_path, SYSTEM)

    qpu = found.qpu("onprem")
    assert isinstance(qpu, QuantumSystemQpu)
    assert qpu.through_gateway
    assert (qpu.s3_region, qpu.task_timeout, qpu.iam_endpoint) == (
        "us-east-1",
        10_800,
        "https://iam.cloud.ibm.com",
    )
    access = qpu.access()
    assert (access.type, access.backend, access.api_key.reveal()) == ("ibm-quantum-system", "ibm_fez", KEY)
    assert found.warnings == ()
    assert KEY not in repr(access)
    assert SECRET not in repr(access)


def test_jobs_see_it_as_one_in_the_cloud(tmp_path: Path) -> None:
    seen = read(tmp_path, SYSTEM).qpu("onprem").seen_by_jobs("https://controller:8470")

    assert isinstance(seen, ComputeServiceQpu)
    assert (seen.name, seen.type, seen.backend) == ("onprem", "ibm-quantum-compute-service", "ibm_fez")
    assert seen.endpoint == "https://controller:8470/experimental/api/v1"
    assert (seen.iam_endpoint, seen.instance, seen.credentials) == ("https://controller:8470", CRN, "gateway")


def test_both_kinds_take_what_they_have_of_the_defaults(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        f"""
        [defaults]
        instance = "{CRN}"
        credentials = "gateway"
        key_file = "{tmp_path}/key"
        max_ttl = "1h"
        s3_bucket = "qpu-tasks"
        task_timeout = "5m"
        {SYSTEM.replace('instance = "{crn}"', "").replace('s3_bucket = "qpu-tasks"', "")}
        [[qpu]]
        name = "ibm_torino"
        """,
    )

    onprem, torino = found.qpu("onprem"), found.qpu("ibm_torino")
    assert isinstance(onprem, QuantumSystemQpu)
    assert isinstance(torino, ComputeServiceQpu)
    assert (onprem.s3_bucket, onprem.task_timeout, onprem.max_ttl) == ("qpu-tasks", 300, 28_800)
    assert (torino.task_timeout, torino.max_ttl) == (300, 3600)


@pytest.mark.parametrize("key", ["mode", "max_ttl", "search_endpoint"])
def test_a_key_of_another_kind_is_named_with_the_kind(tmp_path: Path, key: str) -> None:
    expected = f"[[qpu]] 'onprem': {key}: a QPU of type \"ibm-quantum-system\" has no such key."
    assert problems(tmp_path, f'{SYSTEM}{key} = "x"') == [expected]


def test_a_qpu_in_the_cloud_has_no_storage(tmp_path: Path) -> None:
    found = problems(tmp_path, f'[[qpu]]\nname = "ibm_fez"\ninstance = "{CRN}"\ns3_bucket = "x"')
    assert found == [
        "[[qpu]] 'ibm_fez': s3_bucket: a QPU of type \"ibm-quantum-compute-service\" has no such key."
    ]


def test_a_key_that_no_kind_knows_is_unknown(tmp_path: Path) -> None:
    found = problems(tmp_path, f'{SYSTEM}s3_bukket = "x"')
    assert found == ["[[qpu]] 'onprem': unknown key 's3_bukket'; did you mean 's3_bucket'?"]


@pytest.mark.parametrize("type_", ["pasqal-local", "pasqal-cloud", "alice-bob-felis", "oqtopus"])
def test_a_kind_that_is_not_built_is_refused_with_its_name(tmp_path: Path, type_: str) -> None:
    found = problems(tmp_path, f'[[qpu]]\nname = "garnet"\ntype = "{type_}"')
    expected = (
        f"[[qpu]] 'garnet': type: \"{type_}\" is not supported yet. "
        'Supported are "ibm-quantum-compute-service" or "qiskit-runtime-service" or "ibm-quantum-system" or '
        '"iqm-server".'
    )
    assert found == [expected]


@pytest.mark.parametrize("type_", ['"ibm"', "7", "[]"])
def test_a_type_that_there_is_none_of_is_refused(tmp_path: Path, type_: str) -> None:
    (found,) = problems(tmp_path, f'[[qpu]]\nname = "fez"\ntype = {type_}')
    assert found.startswith("[[qpu]] 'fez': type: expected \"ibm-quantum-compute-service\" or")


@pytest.mark.parametrize(
    ("missing", "expected"),
    [
        ("key_file", "key_file is missing"),
        ("endpoint", "endpoint is missing"),
        ("instance", "instance is missing"),
        ("s3_endpoint", "s3_endpoint is missing"),
        ("s3_bucket", "s3_bucket is missing"),
        ("s3_access_key_id", "s3_access_key_id is missing"),
        ("s3_key_file", "s3_key_file is missing"),
    ],
)
def test_what_it_needs_is_asked_for(tmp_path: Path, missing: str, expected: str) -> None:
    lines = [line for line in SYSTEM.splitlines() if not line.startswith(f"{missing} =")]
    (found,) = problems(tmp_path, "\n".join(lines))
    assert found.startswith(f"[[qpu]] 'onprem': {expected}")


@pytest.mark.parametrize("credentials", ["user", "shared"])
def test_only_the_gateway_has_its_key(tmp_path: Path, credentials: str) -> None:
    found = problems(tmp_path, f'{SYSTEM}credentials = "{credentials}"')
    assert found == [f"[[qpu]] 'onprem': credentials: expected \"gateway\", not '{credentials}'."]


def test_it_needs_the_gateway(tmp_path: Path) -> None:
    text = SYSTEM.replace('[gateway]\nurl = "https://controller:8470"', "")
    assert problems(tmp_path, text) == [
        "[[qpu]] 'onprem': credentials = \"gateway\" needs a [gateway] table."
    ]


def test_a_storage_in_the_clear_is_insecure(tmp_path: Path) -> None:
    found = read(tmp_path, SYSTEM.replace("https://s3.", "http://s3."))
    assert [warning.partition(" is insecure")[0] for warning in found.warnings] == [
        "onprem: http://s3.centre.example"
    ]
