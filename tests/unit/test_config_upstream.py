# SPDX-License-Identifier: Apache-2.0
"""Upstream's qrmi_config.json, read as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpu_slurm.config import ComputeServiceQpu, Config, IqmServerQpu, QuantumSystemQpu, load
from qpu_slurm.errors import ConfigError, RequestError
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
KEY = "the-very-secret-key"
SECRET = "the/secret+key=of-the-storage"

# The resources of upstream's example, filled in.
EXAMPLE: list[dict[str, Any]] = [
    {
        "name": "test_heron",
        "type": "ibm-quantum-system",
        "environment": {
            "QRMI_IBM_QS_ENDPOINT": "https://qsa.centre.example:30060",
            "QRMI_IBM_QS_IAM_ENDPOINT": "https://iam.cloud.ibm.com",
            "QRMI_IBM_QS_IAM_APIKEY": KEY,
            "QRMI_IBM_QS_SERVICE_CRN": CRN,
            "QRMI_IBM_QS_AWS_ACCESS_KEY_ID": "123456789012",
            "QRMI_IBM_QS_AWS_SECRET_ACCESS_KEY": SECRET,
            "QRMI_IBM_QS_S3_ENDPOINT": "https://s3.centre.example",
            "QRMI_IBM_QS_S3_ENDPOINT_FOR_QSAPI": "https://s3.inside.example",
            "QRMI_IBM_QS_S3_BUCKET": "tasks",
            "QRMI_IBM_QS_S3_REGION": "eu-de",
        },
    },
    {
        "name": "alt_marrakesh",
        "type": "qiskit-runtime-service",
        "environment": {
            "QRMI_IBM_QRS_ENDPOINT": "https://quantum.cloud.ibm.com/api/v1",
            "QRMI_IBM_QRS_IAM_ENDPOINT": "https://iam.cloud.ibm.com",
            "QRMI_IBM_QRS_IAM_APIKEY": KEY,
            "QRMI_IBM_QRS_SERVICE_CRN": CRN,
        },
    },
    {
        "name": "ibm_fez",
        "type": "ibm-quantum-compute-service",
        "environment": {
            "QRMI_IBM_QCS_IAM_APIKEY": KEY,
            "QRMI_IBM_QCS_SERVICE_CRN": CRN,
            "QRMI_IBM_QCS_SESSION_MODE": "Batch",
            "QRMI_IBM_QCS_SESSION_MAX_TTL": "3600",
            "QRMI_IBM_QCS_TIMEOUT_SECONDS": "300",
        },
    },
    {"name": "FRESNEL", "type": "pasqal-cloud", "environment": {"QRMI_PASQAL_CLOUD_PROJECT_ID": ""}},
]


GATEWAY = '[gateway]\nurl = "https://controller:8470"\n'


def write(directory: Path, document: object) -> Path:
    path = directory / "qrmi_config.json"
    path.touch(mode=0o600)
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


def read(directory: Path, *resources: object) -> Config:
    return load(write(directory, {"resources": resources}))


def resource(**environment: str) -> dict[str, Any]:
    """Return the third of the examples with other variables; one that is empty is left out."""
    variables = {**EXAMPLE[2]["environment"], **environment}
    return EXAMPLE[2] | {"environment": {name: value for name, value in variables.items() if value}}


def test_a_file_as_it_is_used_upstream(tmp_path: Path) -> None:
    config = read(tmp_path, *EXAMPLE)
    assert list(config.qpus) == ["alt_marrakesh", "ibm_fez"]
    marrakesh, fez = config.qpus.values()
    assert (marrakesh.type, marrakesh.credentials) == ("qiskit-runtime-service", "shared")
    assert isinstance(marrakesh, ComputeServiceQpu)
    assert isinstance(fez, ComputeServiceQpu)
    assert (marrakesh.mode, marrakesh.max_ttl, marrakesh.backend) == ("dedicated", 28800, "alt_marrakesh")
    assert (fez.mode, fez.max_ttl, fez.task_timeout) == ("batch", 3600, 300)
    assert fez.access(Secret("the user's")).api_key.reveal() == KEY
    skipped = [warning for warning in config.warnings if "skipped" in warning]
    assert len(skipped) == 2
    assert "'test_heron': skipped: type 'ibm-quantum-system' needs the gateway" in skipped[0]
    assert "'FRESNEL'" in skipped[1]
    assert sum("insecure" in warning for warning in config.warnings) == 2
    assert KEY not in repr(config)


def test_without_a_key_the_users_own_counts(tmp_path: Path) -> None:
    qpu = read(tmp_path, resource(QRMI_IBM_QCS_IAM_APIKEY="")).qpu("ibm_fez")
    assert qpu.access(Secret("mine")).api_key.reveal() == "mine"
    with pytest.raises(RequestError):
        qpu.access()


@pytest.mark.parametrize(
    "skipped",
    [{"name": "a", "type": "ibm-quantum-compute-service", "environment": {}},
     {"name": "a", "type": "ibm-quantum-compute-service"},
     {"name": "a", "type": "ibm-quantum-compute-service", "is_dynamic": True, "environment": {"X": "y"}},
     {"name": "a", "type": "direct-access", "environment": {}},
     {"name": "a"}],
)  # fmt: skip
def test_what_is_skipped(tmp_path: Path, skipped: dict[str, Any]) -> None:
    config = read(tmp_path, skipped, resource())
    assert list(config.qpus) == ["ibm_fez"]
    assert "resource 'a': skipped" in config.warnings[0]


def test_a_session_longer_than_the_service_allows_is_cut(tmp_path: Path) -> None:
    config = read(tmp_path, resource(QRMI_IBM_QCS_SESSION_MAX_TTL="86400"))
    assert config.qpu("ibm_fez").max_ttl == 28800
    assert "cut to the service's limit" in config.warnings[0]


def test_others_may_not_read_it(tmp_path: Path) -> None:
    path = write(tmp_path, {"resources": [resource()]})
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=f"{path}: others can read this credential"):
        load(path)


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read(
            tmp_path,
            7,
            resource(QRMI_IBM_QCS_SERVICE_CRN="", QRMI_IBM_QCS_SESSION_MODE="both"),
            resource(QRMI_IBM_QCS_SERVICE_CRN=KEY, QRMI_IBM_QCS_SESSION_MAX_TTL="1 hour"),
            resource() | {"name": "no name"},
            resource() | {"name": "a", "environment": [KEY]},
            resource() | {"name": "b", "environment": {"QRMI_IBM_QCS_IAM_APIKEY": 7}},
            resource(QRMI_IBM_QCS_IAM_APIKEY="<YOUR IAM APIKEY FOR THIS BACKEND>"),
        )
    found = "\n".join(caught.value.problems)
    for expected in (
        "resource number 1: expected an object",
        "'ibm_fez': QRMI_IBM_QCS_SERVICE_CRN is missing",
        "'ibm_fez': QRMI_IBM_QCS_SESSION_MODE: expected \"dedicated\" or \"batch\", not 'both'",
        "'ibm_fez': QRMI_IBM_QCS_SERVICE_CRN: expected the CRN",
        "'ibm_fez': QRMI_IBM_QCS_SESSION_MAX_TTL: expected a duration",
        "'no name': name: expected a name",
        "'a': environment: expected an object",
        "'b': environment: expected an object",
        "'ibm_fez': QRMI_IBM_QCS_IAM_APIKEY: expected an API key",
    ):
        assert expected in found, expected
    assert len(caught.value.problems) == 9
    assert KEY not in found


def test_two_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="another resource has this name"):
        read(tmp_path, resource(), resource())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ("[" * 5000, "is not JSON"),
        ("[]", 'expected {"resources"'),
        ('{"resources": {}}', 'expected {"resources"'),
        ('{"resources": []}', "has no resource of a type that is supported"),
        ('{"resources": [{"name": "FRESNEL", "type": "pasqal-cloud"}]}', "has no resource"),
    ],
)
def test_what_is_no_configuration(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(write(tmp_path, text))


def read_behind_gateway(directory: Path, *resources: object, text: str = GATEWAY) -> Config:
    path = write(directory, {"resources": resources})
    config = directory / "config.toml"
    config.write_text(f'qrmi_config = "{path}"\n{text}')
    return load(config)


def test_with_the_gateway_no_job_sees_a_key_of_the_file(tmp_path: Path) -> None:
    config = read_behind_gateway(tmp_path, *EXAMPLE)
    assert list(config.qpus) == ["test_heron", "alt_marrakesh", "ibm_fez"]
    assert {qpu.credentials for qpu in config.qpus.values()} == {"gateway"}
    assert all(qpu.access().api_key.reveal() == KEY for qpu in config.qpus.values())
    assert [warning.rpartition(": ")[2] for warning in config.warnings] == [
        "type 'pasqal-cloud' is not supported."
    ]
    assert config.step_patience == config.outage.step_patience > 0
    assert KEY not in repr(config)
    assert SECRET not in repr(config)


def test_a_qpu_of_iqm_has_the_alias_that_qrmi_reads_in_its_name(tmp_path: Path) -> None:
    resource = {
        "name": "garnet_mock",
        "type": "iqm-server",
        "environment": {"QRMI_IQM_ISA_ENDPOINT": "https://iqm.example", "QRMI_IQM_ISA_TOKEN": KEY},
    }
    config = read_behind_gateway(tmp_path, resource)
    garnet = config.qpu("garnet_mock")
    assert isinstance(garnet, IqmServerQpu)
    assert (garnet.backend, garnet.endpoint) == ("garnet:mock", "https://iqm.example")
    assert garnet.access().api_key.reveal() == KEY
    assert KEY not in repr(config)
    (skipped,) = read(tmp_path, resource, EXAMPLE[2]).warnings[:1]
    assert "'garnet_mock': skipped: type 'iqm-server' needs the gateway" in skipped


def test_a_qpu_on_the_premises_has_its_storage(tmp_path: Path) -> None:
    heron = read_behind_gateway(tmp_path, EXAMPLE[0]).qpu("test_heron")
    assert isinstance(heron, QuantumSystemQpu)
    assert (heron.endpoint, heron.instance) == ("https://qsa.centre.example:30060", CRN)
    storage = heron.access().storage
    assert (storage.endpoint, storage.service_endpoint, storage.bucket, storage.region) == (
        "https://s3.centre.example", "https://s3.inside.example", "tasks", "eu-de",
    )  # fmt: skip
    assert (storage.access_key_id, storage.secret.reveal()) == ("123456789012", SECRET)


def test_the_defaults_of_a_config_toml_hold_for_the_qpus_of_the_file(tmp_path: Path) -> None:
    text = f'{GATEWAY}[defaults]\nsession = "task"\nmax_leases = 3\naccess = {{ default = "deny" }}\n'
    qpus = read_behind_gateway(tmp_path, *EXAMPLE, text=text).qpus.values()
    assert {(qpu.session, qpu.limit, qpu.access_rules.default) for qpu in qpus} == {("task", 3, "deny")}


@pytest.mark.parametrize("missing", ["IAM_APIKEY", "AWS_SECRET_ACCESS_KEY", "S3_BUCKET", "SERVICE_CRN"])
def test_what_the_gateway_needs_of_the_file_is_named(tmp_path: Path, missing: str) -> None:
    environment = {key: value for key, value in EXAMPLE[0]["environment"].items() if missing not in key}
    with pytest.raises(ConfigError, match=f"'test_heron': QRMI_IBM_QS_{missing} is missing"):
        read_behind_gateway(tmp_path, EXAMPLE[0] | {"environment": environment})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "qrmi_config: needs a [gateway] table"),
        (f'{GATEWAY}[[qpu]]\nname = "a"\n', "qrmi_config, [[qpu]]: expected one of them"),
        (f'{GATEWAY}[defaults]\ncredentials = "user"\n', "[defaults] unknown key 'credentials'"),
    ],
)
def test_what_does_not_go_with_the_file(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read_behind_gateway(tmp_path, *EXAMPLE, text=text)
    assert [message in problem for problem in caught.value.problems] == [True]


def test_a_node_without_the_file_leaves_the_qpus_to_the_gateway(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text(f'qrmi_config = "{tmp_path}/elsewhere.json"\n{GATEWAY}')
    config = load(path)
    assert config.qpus == {}
    with pytest.raises(ConfigError, match=r"elsewhere\.json: cannot be read here"):
        config.qpu("ibm_fez")


variables = st.sampled_from(sorted(resource()["environment"]))
types = st.sampled_from(["ibm-quantum-compute-service", "qiskit-runtime-service", "pasqal-cloud"])
json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=4)
    | st.sampled_from([CRN, "a", KEY]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=4), inner, max_size=2),
    max_leaves=6,
)
resources = json_values | st.fixed_dictionaries(
    {},
    optional={
        "name": json_values,
        "type": types | json_values,
        "is_dynamic": json_values,
        "environment": json_values | st.dictionaries(variables, st.sampled_from([CRN, "7", ""]) | st.text()),
    },
)


@given(st.fixed_dictionaries({"resources": st.lists(resources, max_size=3) | json_values}))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
def test_any_document_loads_or_is_a_configuration_error(tmp_path: Path, document: dict[str, Any]) -> None:
    path = write(tmp_path, document)
    try:
        qpus = load(path).qpus
    except ConfigError as error:
        qpus = {}
        problems = error.problems
    else:
        problems = ()
    assert bool(qpus) != bool(problems)
    assert all(problem.startswith(f"{path}: ") and "\n" not in problem for problem in problems)
