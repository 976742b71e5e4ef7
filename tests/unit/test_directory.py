# SPDX-License-Identifier: Apache-2.0
"""The system's users and groups, and a directory that does not answer."""

from __future__ import annotations

import grp
import os
import pwd
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from qpu_slurm.config import ComputeServiceQpu, Config, QpuConfig
from qpu_slurm.config.access import AccessRule, AccessRules
from qpu_slurm.errors import UnavailableError
from qpu_slurm.leases.availability import not_checked, with_access
from qpu_slurm.system.deadline import Deadline
from qpu_slurm.system.directory import Directory, Person

if TYPE_CHECKING:
    from collections.abc import Iterator

ME = pwd.getpwuid(os.getuid())
NO_USER, NO_GROUP = 3_999_999_999, "qpu-slurm-has-no-such-group"


def test_a_user_is_known_by_name_and_by_number() -> None:
    person = Person(ME.pw_uid, Directory())
    assert person.is_one_of([ME.pw_name])
    assert person.is_one_of([ME.pw_uid])
    assert not person.is_one_of(["qpu-slurm-nobody", ME.pw_uid + 1])


def test_a_user_is_in_the_primary_group_and_in_the_others() -> None:
    person = Person(ME.pw_uid, Directory())
    for number in os.getgrouplist(ME.pw_name, ME.pw_gid):
        assert person.is_in([number])
        assert person.is_in([NO_GROUP, grp.getgrgid(number).gr_name])
    assert not person.is_in([NO_USER])


def test_a_group_that_is_not_known_leaves_open_who_is_in_it() -> None:
    with pytest.raises(UnavailableError, match=f"knows no group '{NO_GROUP}'"):
        Person(ME.pw_uid, Directory()).is_in([NO_GROUP])


def test_a_user_who_is_not_known() -> None:
    stranger = Person(NO_USER, Directory())
    assert stranger.is_one_of([NO_USER])
    assert not stranger.is_one_of([7])
    with pytest.raises(UnavailableError, match=f"knows no user {NO_USER}"):
        stranger.is_one_of(["ada"])
    with pytest.raises(UnavailableError, match=f"knows no user {NO_USER}"):
        stranger.is_in([0])


@pytest.fixture
def hanging(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Have the directory answer only once the event is set."""
    monkeypatch.setattr("qpu_slurm.leases.availability.DIRECTORY", Directory())
    monkeypatch.setattr("qpu_slurm.leases.availability._DIRECTORY_SECONDS", 0.2)
    go_on = threading.Event()
    found = pwd.getpwuid

    def wait(number: int) -> pwd.struct_passwd:
        go_on.wait(60)
        return found(number)

    monkeypatch.setattr(pwd, "getpwuid", wait)
    yield go_on
    go_on.set()


def test_a_directory_that_hangs_is_given_up_on(hanging: threading.Event) -> None:
    directory = Directory()
    for _ in range(40):  # more than hang at once
        with pytest.raises(UnavailableError, match="has not answered"):
            Person(ME.pw_uid, directory, Deadline.after(0.01)).is_in([ME.pw_gid])
    hanging.set()
    assert Person(ME.pw_uid, directory, Deadline.after(60)).is_in([ME.pw_gid])


def test_a_process_without_threads_to_spare_looks_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    directory = Directory()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        for _ in range(40):  # more than look at once
            with pytest.raises(UnavailableError, match="has not answered"):
                directory.name_of(ME.pw_uid, Deadline.after(60))
    assert directory.name_of(ME.pw_uid, Deadline.after(60)) == ME.pw_name


def test_an_answer_is_used_again_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    directory = Directory()
    assert directory.name_of(ME.pw_uid) == ME.pw_name
    monkeypatch.setattr(pwd, "getpwuid", None)
    assert directory.name_of(ME.pw_uid) == ME.pw_name


def test_a_user_waits_no_longer_for_many_qpus_than_for_one(hanging: threading.Event) -> None:
    rules = AccessRules(allow=(AccessRule(groups=("quantum",)),), default="deny")
    crn = "crn:v1:bluemix:public:quantum-computing:us-east:a/1:2::"
    names = [f"qpu{number}" for number in range(50)]
    qpus: dict[str, QpuConfig] = {
        name: ComputeServiceQpu(name=name, instance=crn, access_rules=rules) for name in names
    }
    config = Config(path=Path("/none"), qpus=qpus)
    reports = with_access(not_checked(config), config, ME.pw_uid)
    assert [report.access for report in reports] == [None] * 50
    assert not hanging.is_set()
