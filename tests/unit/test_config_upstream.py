# SPDX-License-Identifier: Apache-2.0
"""Upstream's qrmi_config.json, read as it is."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpu_slurm.config import ComputeServiceQpu, Config, load
from qpu_slurm.errors import ConfigError, RequestError
from qpu_slurm.system.secret import Secret

if TYPE_CHECKING:
    from pathlib import Path

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
KEY = "the-very-secret-key"

# The resources of upstream's example, filled in.
EXAMPLE: list[dict[str, Any]] = [
    {
        "name": "test_heron",
        "type": "ibm-quantum-system",
        "environment": {"QRMI_IBM_QS_ENDPOINT": "http://", "QRMI_IBM_QS_AWS_SECRET_ACCESS_KEY": KEY},
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
