# SPDX-License-Identifier: Apache-2.0
"""contrib/slurm/job_submit.lua refuses what the prolog would refuse, and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from qpu_slurm.admin.access import LUA, as_lua
from qpu_slurm.config import ComputeServiceQpu, Config
from qpu_slurm.config.access import AccessRule, AccessRules, Place
from qpu_slurm.leases.access import refusal
from tests.lua import Lua

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

SCRIPT = Path(__file__).parents[2] / "contrib" / "slurm" / "job_submit.lua"
CRN = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
ACCOUNTS, PARTITIONS, QOS = ("physics", "maths"), ("normal", "quantum"), ("normal", "high")
USERS, GROUPS = (1001, 1002), (50, 60)

# One state of Lua and one directory serve all examples.
one_state = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)


class Script:
    """job_submit.lua, beside its file of rules."""

    def __init__(self, directory: Path) -> None:
        self.rules = directory / LUA
        self._lua = Lua()
        # What slurmctld gives to scripts.
        self._lua.run("slurm = { log_error = function(...) errors = string.format(...) end }")
        text = SCRIPT.read_text().replace("return { add_licenses", "script = { add_licenses")
        self._lua.run(text, f"@{directory}/job_submit.lua")

    def close(self) -> None:
        self._lua.close()

    def use(self, rules: AccessRules) -> None:
        qpu = ComputeServiceQpu(name="ibm_fez", instance=CRN, access_rules=rules)
        self.rules.write_text(as_lua(Config(path=Path("/none"), qpus={"ibm_fez": qpu})))

    def refusal(self, job: Mapping[str, str | int | None], qpus: str = "ibm_fez") -> str | None:
        """Return the sentence for a job, given as slurmctld's job_desc; the default partition is normal."""
        fields = ", ".join(f"{name} = {_lua(value)}" for name, value in job.items() if value is not None)
        env = f'{{ [0] = "A=b", "QPU_SLURM_QPU={qpus}" }}'
        return self._lua.run(
            "local parts = { normal = { flag_default = 1 }, quantum = { flag_default = 0 } }\n"
            f"return script.refusal({{ spank_job_env = {env}, {fields} }}, parts)"
        )

    def complaint(self) -> str | None:
        return self._lua.run("return errors")


def _lua(value: str | int) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Script]:
    script = Script(tmp_path_factory.mktemp("slurm"))
    yield script
    script.close()


class Someone:
    """A user whom no directory is asked for."""

    def __init__(self, number: int, groups: Iterable[int]) -> None:
        self.number, self.groups = number, set(groups)

    def is_one_of(self, users: Iterable[str | int]) -> bool:
        return self.number in users

    def is_in(self, groups: Iterable[str | int]) -> bool:
        return not self.groups.isdisjoint(groups)


def some(names: Iterable[str | int]) -> st.SearchStrategy[tuple[str | int, ...]]:
    return st.lists(st.sampled_from(tuple(names)), max_size=2, unique=True).map(tuple)


def rules(groups: st.SearchStrategy[tuple[str | int, ...]]) -> st.SearchStrategy[AccessRules]:
    keys = {"accounts": some(ACCOUNTS), "partitions": some(PARTITIONS), "qos": some(QOS)}
    rule = st.builds(AccessRule, users=some(USERS), groups=groups, **keys)
    return st.builds(
        lambda allow, deny, closed: AccessRules(
            allow=tuple(allow), deny=tuple(deny), default="deny" if allow or closed else "allow"
        ),
        st.lists(rule, max_size=3),
        st.lists(rule, max_size=2),
        st.booleans(),
    )


PLACES = st.builds(Place, st.sampled_from(ACCOUNTS), st.sampled_from(PARTITIONS), st.sampled_from(QOS))
PEOPLE = st.builds(Someone, st.sampled_from(USERS), some(GROUPS))


@one_state
@given(rules(st.just(())), PEOPLE, PLACES)
def test_where_all_is_known_both_say_the_same(
    script: Script, found: AccessRules, person: Someone, place: Place
) -> None:
    script.use(found)
    job = msgspec.structs.asdict(place) | {"user_id": person.number}
    assert script.refusal(job) == refusal("ibm_fez", found, person, [place])


@one_state
@given(
    rules(some(GROUPS)),
    PEOPLE,
    PLACES,
    st.sets(st.sampled_from(["account", "qos", "partition", "other components"])),
)
def test_a_job_is_never_refused_that_the_prolog_would_let_through(
    script: Script, found: AccessRules, person: Someone, place: Place, unknown: set[str]
) -> None:
    script.use(found)
    job = msgspec.structs.asdict(place) | {"user_id": person.number}
    places = [place]
    # Slurm chooses it later; of several partitions it chooses one.
    job |= dict.fromkeys(unknown & {"account", "qos"})
    if "partition" in unknown:
        job["partition"] = "quantum,normal"
    if "other components" in unknown:
        job["het_job_offset"] = 1
        places.append(Place("physics", "quantum", "high"))
    if script.refusal(job) is not None:
        assert refusal("ibm_fez", found, person, places) is not None


def test_defaults_of_slurm_are_known_at_submission(script: Script) -> None:
    script.use(
        AccessRules(allow=(AccessRule(accounts=("physics",), partitions=("normal",)),), default="deny")
    )
    assert script.refusal({"user_id": 1001, "default_account": "Physics"}) is None
    assert script.refusal({"user_id": 1001, "default_account": "maths"}) == (
        "You may not use ibm_fez with account maths in partition normal: it is for account physics in "
        "partition normal. Ask the admin of your cluster for access."
    )
    assert script.refusal({"user_id": 1001, "account": ""}) is None
    assert script.refusal({"user_id": 1001, "account": "maths"}, "other") is None
    assert script.refusal({"user_id": 1001, "account": "maths"}, "other,ibm_fez") is not None


def test_changed_rules_count_at_the_next_submission(script: Script) -> None:
    job = {"user_id": 1001}
    for _ in range(2):
        script.use(AccessRules(default="deny"))
        assert script.refusal(job) == (
            "You may not use ibm_fez: it is closed to all jobs. Ask the admin of your cluster for access."
        )
        script.use(AccessRules(deny=(AccessRule(users=(1002,)),)))
        assert script.refusal(job) is None
        assert script.refusal({"user_id": 1002}) is not None


def test_a_file_that_is_half_written_is_read_again(script: Script) -> None:
    script.use(AccessRules(default="deny"))
    whole = script.rules.read_text()
    script.rules.write_text(whole[:-1])
    assert script.refusal({"user_id": 1001}) is None
    script.rules.write_text(whole)
    assert script.refusal({"user_id": 1001}) is not None


def test_a_file_that_cannot_be_used_refuses_nothing(script: Script) -> None:
    for text in ("return nonsense()", "return 7", "return {", "", "--\nreturn {"):
        script.rules.write_text(text)
        assert script.refusal({"user_id": 1001}) is None
    script.rules.unlink()
    assert script.refusal({"user_id": 1001}) is None
    assert "write it again with `qpu-slurm access --lua`" in (script.complaint() or "")
