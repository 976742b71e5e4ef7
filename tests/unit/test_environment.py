# SPDX-License-Identifier: Apache-2.0
"""A job's QPU variables: written and read back, and read as upstream's plugin sets them."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from qpu_slurm.errors import NoLeaseError, RequestError
from qpu_slurm.job.variables import JobQpu, choose, find, from_environ, to_environ
from qpu_slurm.names import QPU_NAME
from qpu_slurm.system.secret import Secret

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"

# What is printable and no list's delimiter; a variable that is empty counts as not set.
texts = st.text(st.characters(min_codepoint=0x21, max_codepoint=0x7E), min_size=1)
numbers = st.integers(1, 999_999)

job_qpus = st.builds(
    JobQpu,
    name=st.from_regex(QPU_NAME, fullmatch=True),
    type=st.sampled_from(["ibm-quantum-compute-service", "qiskit-runtime-service"]),
    backend=texts,
    endpoint=texts,
    iam_endpoint=texts,
    search_endpoint=st.none() | texts,
    catalog_endpoint=st.none() | texts,
    instance=texts,
    api_key=texts.map(Secret),
    mode=st.sampled_from(["dedicated", "batch"]),
    max_ttl=numbers,
    task_timeout=st.none() | numbers,
    job_id=st.none() | numbers,
    user_id=st.none() | numbers,
    hold=st.sampled_from([None, "job", "task"]),
    session_id=st.none() | texts,
)


def job_qpu(**changes: Any) -> JobQpu:  # noqa: ANN401 - of any field
    fields = {
        "name": "ibm_fez",
        "backend": "ibm_fez",
        "endpoint": "https://quantum.cloud.ibm.com/api/v1",
        "iam_endpoint": "https://iam.cloud.ibm.com",
        "instance": CRN,
        "api_key": Secret("the-key"),
        **changes,
    }
    return JobQpu(**fields)


def shown(qpu: JobQpu) -> dict[str, object]:
    """Return all there is of a QPU, so that two can be compared: secrets are never equal."""
    return {name: getattr(qpu, name) for name in qpu.__struct_fields__} | {"api_key": qpu.api_key.reveal()}


# Names that begin alike are no trouble, unless one is the other with what comes after a name behind it.
@given(st.lists(job_qpus, min_size=1, max_size=4, unique_by=lambda qpu: qpu.name))
def test_what_is_written_is_read(qpus: list[JobQpu]) -> None:
    read = from_environ(to_environ(qpus))
    assert [shown(qpu) for qpu in read.values()] == [shown(qpu) for qpu in qpus]
    assert list(read) == [qpu.name for qpu in qpus]


def test_the_variables_of_a_job() -> None:
    qpu = job_qpu(session_id="s-1", task_timeout=300, max_ttl=600, job_id=42, user_id=1000)
    of_service = {
        "ENDPOINT": "https://quantum.cloud.ibm.com/api/v1",
        "IAM_ENDPOINT": "https://iam.cloud.ibm.com",
        "IAM_APIKEY": "the-key",
        "SERVICE_CRN": CRN,
        "SESSION_MODE": "dedicated",
        "SESSION_MAX_TTL": "600",
    }
    assert to_environ([qpu]) == {
        "QRMI_JOB_QPU_RESOURCES": "ibm_fez",
        "QRMI_JOB_QPU_TYPES": "ibm-quantum-compute-service",
        "SLURM_JOB_QPU_RESOURCES": "ibm_fez",
        "SLURM_JOB_QPU_TYPES": "ibm-quantum-compute-service",
        **{f"ibm_fez_QRMI_IBM_QCS_{name}": value for name, value in of_service.items()},
        **{f"ibm_fez_QRMI_IBM_QRS_{name}": value for name, value in of_service.items()},
        "ibm_fez_QRMI_JOB_ACQUISITION_TOKEN": "s-1",
        "ibm_fez_QRMI_JOB_TIMEOUT_SECONDS": "300",
        "ibm_fez_QRMI_JOB_ID": "42",
        "ibm_fez_QRMI_JOB_UID": "1000",
        "QISKIT_IBM_CHANNEL": "ibm_quantum_platform",
        "QISKIT_IBM_TOKEN": "the-key",
        "QISKIT_IBM_INSTANCE": CRN,
        "QISKIT_IBM_URL": "https://cloud.ibm.com",
    }


def test_a_job_without_a_qpu_has_no_variables() -> None:
    assert to_environ([]) == {}


def test_a_qpu_that_is_only_bound_has_no_variable_for_a_session() -> None:
    environ = to_environ([job_qpu()])
    assert not [name for name in environ if "SESSION_ID" in name or "ACQUISITION_TOKEN" in name]
    with pytest.raises(NoLeaseError, match="holds no session"):
        from_environ(environ)["ibm_fez"].may_execute()


def test_a_qpu_whose_session_is_opened_later_says_so() -> None:
    environ = to_environ([job_qpu(hold="task")])
    assert environ["ibm_fez_QRMI_QPU_SLURM_SESSION"] == "task"
    assert not [name for name in environ if "SESSION_ID" in name or "ACQUISITION_TOKEN" in name]
    qpu = from_environ(environ)["ibm_fez"]
    qpu.may_execute()
    assert (qpu.hold, qpu.session_id) == ("task", None)
    with pytest.raises(RequestError, match="expected job or task"):
        from_environ(environ | {"ibm_fez_QRMI_QPU_SLURM_SESSION": "always"})


def test_qiskit_gets_the_first_qpus_service() -> None:
    first = job_qpu(
        name="lab",
        endpoint="http://127.0.0.1:80/experimental/api/v1",
        iam_endpoint="http://127.0.0.1:80",
        search_endpoint="http://127.0.0.1:81",
        catalog_endpoint="http://127.0.0.1:82",
        api_key=Secret("first-key"),
    )
    environ = to_environ([first, job_qpu()])
    assert environ["QISKIT_IBM_TOKEN"] == "first-key"
    assert environ["QISKIT_IBM_URL"] == "http://127.0.0.1:80/experimental/api/v1"
    assert environ["IAM_URL"] == "http://127.0.0.1:80"
    assert environ["GLOBAL_SEARCH_URL"] == "http://127.0.0.1:81"
    assert environ["GLOBAL_CATALOG_URL"] == "http://127.0.0.1:82"
    assert environ["QRMI_JOB_QPU_RESOURCES"] == "lab,ibm_fez"


RESOLVE = """
import sys
from qiskit_ibm_runtime.api.utils import default_runtime_url_resolver
for url, instance in zip(sys.argv[1::2], sys.argv[2::2]):
    print(default_runtime_url_resolver(url, instance))
"""


def test_qiskit_makes_the_endpoint_of_its_url_again() -> None:
    endpoints = {
        "https://quantum.cloud.ibm.com/api/v1": "us-east",
        "https://eu-de.quantum.cloud.ibm.com/api/v1": "eu-de",
        "http://127.0.0.1:5000/experimental/api/v1": "us-east",
    }
    arguments = []
    for endpoint, region in endpoints.items():
        environ = to_environ([job_qpu(endpoint=endpoint, instance=CRN.replace("us-east", region))])
        arguments += [environ["QISKIT_IBM_URL"], environ["QISKIT_IBM_INSTANCE"]]
    # In a process of its own: importing Qiskit takes longer than all the rest.
    ran = subprocess.run(
        [sys.executable, "-c", RESOLVE, *arguments], check=True, capture_output=True, text=True
    )
    assert ran.stdout.split() == list(endpoints)


UPSTREAM = {
    "ibm-quantum-compute-service": "QRMI_IBM_QCS",
    "qiskit-runtime-service": "QRMI_IBM_QRS",
}


def upstream(type_: str, **more: str) -> dict[str, str]:
    """Return what upstream's plugin sets for a job, as its configuration's example has it."""
    prefix = f"alt_marrakesh_{UPSTREAM[type_]}"
    return {
        "QRMI_JOB_QPU_RESOURCES": "alt_marrakesh",
        "QRMI_JOB_QPU_TYPES": type_,
        f"{prefix}_ENDPOINT": "https://quantum.cloud.ibm.com/api/v1",
        f"{prefix}_IAM_ENDPOINT": "https://iam.cloud.ibm.com",
        f"{prefix}_IAM_APIKEY": "the-key",
        f"{prefix}_SERVICE_CRN": CRN,
        "alt_marrakesh_QRMI_JOB_ACQUISITION_TOKEN": "s-1",
        **more,
    }


@pytest.mark.parametrize("type_", UPSTREAM)
def test_upstreams_variables(type_: str) -> None:
    qpu = find(upstream(type_))
    assert shown(qpu) == shown(
        job_qpu(name="alt_marrakesh", backend="alt_marrakesh", type=type_, session_id="s-1")
    )
    assert qpu.access().endpoint == "https://quantum.cloud.ibm.com/api/v1"
    qpu.may_execute()
    assert qpu.hold is None  # no epilog of ours would end what a task opens


def test_names_before_qrmi_0_20() -> None:
    environ = upstream("qiskit-runtime-service")
    environ["SLURM_JOB_QPU_RESOURCES"] = environ.pop("QRMI_JOB_QPU_RESOURCES")
    environ["SLURM_JOB_QPU_TYPES"] = environ.pop("QRMI_JOB_QPU_TYPES")
    assert find(environ, "alt_marrakesh").session_id == "s-1"


def test_the_variables_of_the_types_own_service_come_first() -> None:
    environ = upstream("qiskit-runtime-service") | {
        "alt_marrakesh_QRMI_IBM_QCS_IAM_APIKEY": "another-key",
        "alt_marrakesh_QRMI_IBM_QRS_SESSION_ID": "s-2",
        "alt_marrakesh_QRMI_IBM_QRS_TIMEOUT_SECONDS": "7",
    }
    qpu = find(environ)
    assert (qpu.api_key.reveal(), qpu.session_id, qpu.task_timeout) == ("the-key", "s-2", 7)


def test_qpus_of_other_types_are_left_out() -> None:
    environ = upstream("ibm-quantum-compute-service", QRMI_LIST_DELIMITER=":") | {
        "QRMI_JOB_QPU_RESOURCES": "FRESNEL:alt_marrakesh",
        "QRMI_JOB_QPU_TYPES": "pasqal-cloud:ibm-quantum-compute-service",
    }
    assert list(from_environ(environ)) == ["alt_marrakesh"]


@pytest.mark.parametrize(
    "environ",
    [
        {},
        {"QRMI_JOB_QPU_RESOURCES": "", "QRMI_JOB_QPU_TYPES": ""},
        {"QRMI_JOB_QPU_RESOURCES": "FRESNEL", "QRMI_JOB_QPU_TYPES": "pasqal-cloud"},
    ],
)
def test_a_job_without_a_qpu_is_told_what_to_write(environ: dict[str, str]) -> None:
    with pytest.raises(NoLeaseError, match="--qpu=NAME"):
        find(environ)


def test_a_name_that_the_job_has_not() -> None:
    with pytest.raises(NoLeaseError, match=r"no QPU 'ibm_x'\. It has: ibm_fez, ibm_torino"):
        find(to_environ([job_qpu(), job_qpu(name="ibm_torino")]), "ibm_x")
    with pytest.raises(NoLeaseError, match="several QPUs; name one"):
        find(to_environ([job_qpu(), job_qpu(name="ibm_torino")]))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"alt_marrakesh_QRMI_IBM_QCS_IAM_APIKEY": ""}, "QCS_IAM_APIKEY is not set"),
        ({"QRMI_JOB_QPU_TYPES": "a,b"}, "different number"),
        ({"alt_marrakesh_QRMI_IBM_QCS_SESSION_MAX_TTL": "8h"}, "'8h'; expected a whole number"),
        ({"alt_marrakesh_QRMI_JOB_TIMEOUT_SECONDS": "9" * 5000}, "expected a whole number"),
    ],
)
def test_variables_that_make_no_sense(change: dict[str, str], message: str) -> None:
    with pytest.raises(RequestError, match=message) as caught:
        from_environ(upstream("ibm-quantum-compute-service") | change)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("key", ["two\nlines=x", "t\x00", "sch\u00f6n", "\ud800"])
def test_a_key_with_stray_characters_is_not_written(key: str) -> None:
    with pytest.raises(RequestError, match="stray characters") as caught:
        to_environ([job_qpu(api_key=Secret(key))])
    assert key not in str(caught.value)


def chosen(name: str, asked: str | None = None) -> JobQpu:
    return JobQpu(
        name=name,
        backend=name,
        endpoint="http://127.0.0.1:1",
        iam_endpoint="http://127.0.0.1:1",
        instance="crn",
        api_key=Secret("k"),
        asked=asked,
    )


@pytest.mark.parametrize(
    ("wish", "name"),
    [
        ("any", "ibm_fez"),
        ("any:qubits>=100", "ibm_fez"),
        ("ibm_kyiv|ibm_torino", "ibm_torino"),
        ("ibm_kyiv|ibm_torino:by=error", "ibm_torino"),
        ("ibm_paris", "ibm_paris"),
        ("ibm_paris|ibm_rome", "ibm_paris"),
        (None, "ibm_paris"),
    ],
)
def test_a_step_finds_the_qpu_that_was_chosen(wish: str | None, name: str) -> None:
    qpus = [
        chosen("ibm_paris"),
        chosen("ibm_fez", "any:qubits>=100"),
        chosen("ibm_torino", "ibm_kyiv|ibm_torino:by=error"),
    ]
    found = from_environ(to_environ(qpus))
    assert choose(found, wish).name == name


def test_any_is_also_a_jobs_only_qpu() -> None:
    assert choose({"ibm_fez": chosen("ibm_fez")}, "any").name == "ibm_fez"


def test_a_step_is_told_why_it_finds_none() -> None:
    qpus = {"ibm_fez": chosen("ibm_fez", "any"), "ibm_torino": chosen("ibm_torino", "any")}
    with pytest.raises(NoLeaseError, match=r"any: this job has several QPUs .* ibm_fez, ibm_torino"):
        choose(qpus, "any")
    with pytest.raises(NoLeaseError, match=r"a\|b: this job has no QPU that was chosen for it"):
        choose(qpus, "a|b")
    with pytest.raises(NoLeaseError, match="no QPU 'ibm_rome', only ibm_fez"):
        choose(qpus, "ibm_rome")
