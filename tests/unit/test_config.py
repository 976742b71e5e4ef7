# SPDX-License-Identifier: Apache-2.0
"""What the admin writes: read, checked, and everything that is wrong with it named at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from qpu_slurm.config import ComputeServiceQpu, Config, GatewayConfig, load
from qpu_slurm.errors import ConfigError, RequestError
from qpu_slurm.system.secret import Secret

CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
MINIMAL = f"""
[[qpu]]
name = "ibm_fez"
instance = "{CRN}"
"""
KEY = "the-very-secret-key"


def write(directory: Path, text: str) -> Path:
    path = directory / "config.toml"
    path.write_text(text)
    return path


def problems(path: Path) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert all(problem.startswith(f"{path}: ") for problem in caught.value.problems)
    assert KEY not in str(caught.value)
    return tuple(problem.removeprefix(f"{path}: ") for problem in caught.value.problems)


def test_what_need_not_be_written(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL))
    assert config == Config(path=tmp_path / "config.toml", qpus=config.qpus)
    assert config.journal == Path("/var/lib/qpu_slurm/journal.sqlite")
    assert (config.slurm.timeout, config.outage.tries, config.outage.max_delay) == (10, 10, 1800)
    qpu = config.qpu("ibm_fez")
    access = qpu.access(Secret("mine"))
    assert (access.type, access.backend) == ("ibm-quantum-compute-service", "ibm_fez")
    assert access.endpoint == "https://quantum.cloud.ibm.com/api/v1"
    assert access.iam_endpoint == "https://iam.cloud.ibm.com"
    assert (access.instance, access.mode, access.api_key.reveal()) == (CRN, "dedicated", "mine")
    assert (qpu.max_ttl, qpu.task_timeout, config.warnings) == (28800, None, ())


def test_everything_written(tmp_path: Path) -> None:
    key_file = tmp_path / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(KEY)
    config = load(
        write(
            tmp_path,
            f"""
            journal = "/srv/journal"
            log = "/var/log/qpu_slurm.log"
            log_level = "debug"
            acquire_on = "gres"
            [slurm]
            conf = "/opt/slurm.conf"
            bin = "/opt/bin"
            timeout = "30s"
            [outage]
            tries = 0
            delay = "2m"
            max_delay = 600
            acquire_timeout = "1m30s"
            step_patience = "5m"
            [defaults]
            instance = "{CRN}"
            max_ttl = "2h"
            mode = "batch"
            [[qpu]]
            name = "fez"
            type = "qiskit-runtime-service"
            backend = "ibm_fez"
            endpoint = "http://[::1]:8000/experimental/api/v1"
            iam_endpoint = "http://localhost:8000/"
            search_endpoint = "https://search.example"
            catalog_endpoint = "https://catalog.example/x-y/~z"
            credentials = "shared"
            key_file = "{key_file}"
            task_timeout = "5m"
            [[qpu]]
            name = "torino"
            mode = "dedicated"
            """,
        )
    )
    assert (config.slurm.timeout, config.outage.delay, config.outage.acquire_timeout) == (30, 120, 90)
    assert config.outage.step_patience == 300
    fez, torino = config.qpus.values()
    assert isinstance(fez, ComputeServiceQpu)
    assert isinstance(torino, ComputeServiceQpu)
    assert (fez.mode, fez.max_ttl, fez.task_timeout, fez.backend) == ("batch", 7200, 300, "ibm_fez")
    assert (torino.mode, torino.max_ttl, torino.backend) == ("dedicated", 7200, "torino")
    assert fez.access().api_key.reveal() == KEY
    assert [warning for warning in config.warnings if "insecure" in warning] == list(config.warnings)
    assert "fez" in config.warnings[0]
    assert len(config.warnings) == 1


TTL = 'expected a duration such as "30m" or "8h", or seconds as an integer, from 1s to 8h'
A_CRN = 'expected the CRN of a service instance, "crn:v1:…" with ten fields in all'
A_NAME = (
    "expected a name that variables can have: a letter, then letters, digits or _, at most 64 in all, "
    "other than any (a shell drops variables with - or : in their name: write _, with the service's name as "
    "backend)"
)
A_URL = 'expected a URL such as "https://quantum.cloud.ibm.com/api/v1", with neither user nor query'
AN_ADDRESS = 'expected an address and a port such as "127.0.0.1:8470" or "[::1]:8470"'
AN_ORIGIN = 'expected a URL such as "https://controller:8470", with nothing behind host and port'
GATEWAY = '[gateway]\nurl = "https://host:8470"\n'
A_COUNT = "expected an integer from 0 to 1000000"
QPU = "[[qpu]] 'ibm_fez': "
TWO_BRACKETS = "[[qpu]]: expected a table for each QPU, with [[qpu]] (two brackets) above it."

WRONG = {
    "": "has no [[qpu]] table: expected one for each QPU.",
    "qpu = 1": TWO_BRACKETS,
    '[qpu]\nname = "a"': TWO_BRACKETS,
    "x = [": "is not TOML: Invalid value (at end of document).",
    f"slurm = 1{MINIMAL}": "[slurm]: expected a table.",
    f"defaults = 1{MINIMAL}": "[defaults]: expected a table.",
    f'jornal = "/x"{MINIMAL}': "unknown key 'jornal'; did you mean 'journal'?",
    f"log = 7{MINIMAL}": "log: expected an absolute path.",
    f'log = "here"{MINIMAL}': "log: expected an absolute path.",
    f'journal = "/a\\u0000b"{MINIMAL}': "journal: expected an absolute path.",
    f'acquire_on = "sbatch"{MINIMAL}': 'acquire_on: expected "qpu" or "gres", not \'sbatch\'.',
    f"[outage]\ntries = -1{MINIMAL}": f"[outage] tries: {A_COUNT}, not -1.",
    f"[outage]\ntries = true{MINIMAL}": f"[outage] tries: {A_COUNT}, not True.",
    f"[outage]\ntries = 1e400{MINIMAL}": f"[outage] tries: {A_COUNT}, not inf.",
    f"[outage]\ntries = []{MINIMAL}": f"[outage] tries: {A_COUNT}, not a list.",
    f'{MINIMAL}max_tll = "1h"': f"{QPU}unknown key 'max_tll'; did you mean 'max_ttl'?",
    f'{MINIMAL}max_ttl = "9h"': f"{QPU}max_ttl: {TTL}, not '9h'.",
    f'{MINIMAL}credentials = "shared"': (
        f'{QPU}key_file is missing: with credentials = "shared" it names the key\'s file.'
    ),
    f'{MINIMAL}key_file = "/x"': f'{QPU}key_file: expected only with credentials = "gateway" or "shared".',
    f'{MINIMAL}credentials = "gateway"\nkey_file = "/x"': (
        f'{QPU}credentials = "gateway" needs a [gateway] table.'
    ),
    f"gateway = 1{MINIMAL}": "[gateway]: expected a table.",
    f"[gateway]{MINIMAL}": f"[gateway] url is missing: {AN_ORIGIN}.",
    f'[gateway]\nurl = "https://host/path"{MINIMAL}': f"[gateway] url: {AN_ORIGIN}.",
    f'{GATEWAY}listen = "8470"{MINIMAL}': (f"[gateway] listen: {AN_ADDRESS}, not '8470'."),
    f'{GATEWAY}certificate = "/x"{MINIMAL}': (
        "[gateway] certificate, certificate_key: expected both, or neither."
    ),
    f"{GATEWAY}max_body = 1{MINIMAL}": (
        "[gateway] max_body: expected bytes, an integer from 1048576 (1 MiB) to 1 TiB, not 1."
    ),
    f'{MINIMAL}api_key = "{KEY}"': (
        f"{QPU}api_key: write the key into a file of its own, and name that file with key_file."
    ),
    f'{MINIMAL}credentials = "shared"\nkey_file = "{KEY}"': f"{QPU}key_file: expected an absolute path.",
    MINIMAL + MINIMAL: f"{QPU}another QPU has this name already.",
    f'{MINIMAL}endpoint = "ftp://x"': f"{QPU}endpoint: {A_URL}.",
    f'[[qpu]]\nname = "ibm_fez"\ninstance = "{KEY}"': f"{QPU}instance: {A_CRN}.",
    '[[qpu]]\nname = "ibm_fez"': f"{QPU}instance is missing: {A_CRN}.",
    f'[[qpu]]\nname = "4x"\ninstance = "{CRN}"': f"[[qpu]] number 1: name: {A_NAME}, not '4x'.",
    f'[[qpu]]\nname = "ibm-fez"\ninstance = "{CRN}"': f"[[qpu]] number 1: name: {A_NAME}, not 'ibm-fez'.",
    f'[[qpu]]\nname = "q:m"\ninstance = "{CRN}"': f"[[qpu]] number 1: name: {A_NAME}, not 'q:m'.",
    f'[[qpu]]\nname = "a\\n"\ninstance = "{CRN}"': f"[[qpu]] number 1: name: {A_NAME}, not 'a\\n'.",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_named(tmp_path: Path, text: str) -> None:
    assert problems(write(tmp_path, text)) == (WRONG[text],)


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    text = f"""
    jornal = "/x"
    log_level = "loud"
    [slurm]
    timeout = "soon"
    [outage]
    tries = "many"
    [defaults]
    max_tll = 3
    api_key = "{KEY}"
    [[qpu]]
    name = "ibm_fez"
    mode = "both"
    max_ttl = 0
    [[qpu]]
    name = "ibm_fez"
    instance = "{CRN}"
    [[qpu]]
    """
    found = problems(write(tmp_path, text))
    for expected in (
        "jornal",
        "log_level",
        "[slurm] timeout",
        "[outage] tries",
        "[defaults] unknown key 'max_tll'",
        "[defaults] api_key",
        "[[qpu]] 'ibm_fez': mode",
        "[[qpu]] 'ibm_fez': max_ttl",
        "[[qpu]] 'ibm_fez': instance is missing",
        "[[qpu]] 'ibm_fez': another",
        "[[qpu]] number 3: name is missing",
        "[[qpu]] number 3: instance is missing",
    ):
        assert [problem for problem in found if expected in problem], expected
    assert len(found) == 12


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe", b"x = " + b"[" * 50_000, b"x = " + b"9" * 10_000, b"#" * (2 << 20), b"d = 9999-99-99"],
    ids=["no text", "deep", "long number", "huge", "no date"],
)
def test_what_is_no_configuration_at_all(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.toml"
    path.write_bytes(content)
    assert len(problems(path)) == 1


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    [problem] = problems(tmp_path / "config.toml")
    assert problem.startswith("cannot be read (No such file or directory). Write it (docs/install.md), or")
    assert problems(tmp_path) == ("cannot be read (Is a directory).",)


def test_the_file_is_found_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QPU_SLURM_CONFIG", str(write(tmp_path, MINIMAL)))
    assert load().path == tmp_path / "config.toml"
    monkeypatch.chdir(tmp_path)
    assert load(Path("config.toml")).path == tmp_path / "config.toml"


def test_a_qpu_that_is_not_there_is_named_with_those_that_are(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL))
    with pytest.raises(RequestError, match=r"no QPU 'ibm_x' here\. Choose one of: ibm_fez\."):
        config.qpu("ibm_x")


def test_a_user_without_a_key_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="export QISKIT_IBM_TOKEN"):
        load(write(tmp_path, MINIMAL)).qpu("ibm_fez").access()


def test_http_is_insecure_but_to_oneself(tmp_path: Path) -> None:
    config = load(write(tmp_path, MINIMAL + 'endpoint = "http://127.0.0.1.example/api/v1"'))
    assert "unencrypted" in config.warnings[0]
    config = load(write(tmp_path, MINIMAL + 'endpoint = "http://127.0.0.1:80/api/v1"'))
    assert config.warnings == ()


def test_the_gateway(tmp_path: Path) -> None:
    text = f"""{GATEWAY}reap_every = "5s"\nca = "/etc/ca.pem"
    [slurm]
    munge_socket = "/run/munge/other"
    [defaults]
    credentials = "gateway"
    key_file = "/only/on/its/host"
    {MINIMAL}"""
    config = load(write(tmp_path, text))
    assert config.gateway == GatewayConfig(url="https://host:8470", reap_every=5, ca=Path("/etc/ca.pem"))
    assert config.slurm.munge_socket == Path("/run/munge/other")
    assert config.qpu("ibm_fez").credentials == "gateway"
    assert config.warnings == ()
    config = load(write(tmp_path, text.replace("https:", "http:")))
    assert "unencrypted" in config.warnings[0]
