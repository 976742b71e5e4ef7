# SPDX-License-Identifier: Apache-2.0
"""Plays scenarios, many at once, and says how each of them ended."""

from __future__ import annotations

import re
import time
from itertools import groupby
from typing import TYPE_CHECKING

import msgspec
import requests

from qpu_slurm.errors import SlurmError
from tests.cluster.matrix.play import Play

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tests.cluster.matrix.scenario import Scenario, Storm, What
    from tests.cluster.matrix.stage import Stage

AT_ONCE = 12
"""How many scenarios are played beside each other."""

_LOOK = 0.2


class Verdict(msgspec.Struct, kw_only=True):
    """How a scenario ended.

    Attributes:
        ended: The states of its jobs.
        sessions_opened: How many sessions were opened for it.
        sessions_left_open: How many of them are open yet.
        leases_lost: Sessions that belong to no lease, leases that belong to no session, and leases that
            are not over.
        nodes_drained: Nodes that do not take jobs any more.
        told: Where the user was told what he must have been told; empty if nowhere.
        heard: All that he was told.
        problem: Why it could not be played to its end.
    """

    ended: str
    sessions_opened: int
    sessions_left_open: int
    leases_lost: int
    nodes_drained: int = 0
    told: str
    heard: str
    problem: str


def perform(stage: Stage, scenarios: Sequence[Scenario]) -> dict[str, Verdict]:
    """Play scenarios: first those that disturb nobody, all together; then one storm after the other."""
    verdicts: dict[str, Verdict] = {}
    calm = [Play(one, stage.qpus[one], stage) for one in scenarios if one.storm is None]
    plays = _play(stage, calm, None)
    verdicts |= _judge(stage, plays)
    stormy = [one for one in scenarios if one.storm is not None]
    for storm, group in groupby(stormy, key=lambda one: one.storm):
        plays = _play(stage, [Play(one, stage.qpus[one], stage) for one in group], storm)
        verdicts |= _judge(stage, plays)
        if storm is not None:
            _strike(storm.last, plays)
    return verdicts


def _play(stage: Stage, plays: Sequence[Play], storm: Storm | None) -> Sequence[Play]:
    waiting, playing = list(plays), list[Play]()
    if storm is not None:
        _strike(storm.first, plays)
    while waiting or playing:
        began = time.monotonic()
        while waiting and len(playing) < AT_ONCE:
            playing.append(waiting.pop(0))
            playing[-1].begin()
        view = stage.look()
        stage.nudge()
        if any(play.over for play in playing):
            stage.read_journal()
        playing = [play for play in playing if not play.step(view)]
        if storm is not None and playing and not waiting and all(play.at_its_moment for play in playing):
            _strike(storm.does, plays)
            for play in playing:
                play.break_storm()
            storm = None
        time.sleep(max(0.0, _LOOK - (time.monotonic() - began)))
    return plays


def _strike(whats: Sequence[What], plays: Sequence[Play]) -> None:
    """Do something to the whole stage; what cannot be done is told of each play, and others go on."""
    try:
        for what in whats:
            what.do(plays[0])
    except (AssertionError, OSError, SlurmError, requests.RequestException) as error:
        for play in plays:
            play.problem = f"{type(error).__name__}: {error}"


def _judge(stage: Stage, plays: Sequence[Play]) -> dict[str, Verdict]:
    stage.settle()
    drained = stage.nodes_drained()
    verdicts = {}
    for play in plays:
        play.view = stage.view
        heard = play.heard
        pattern = play.scenario.told.replace("{qpu}", play.qpu)
        told = [where for where, text in heard.items() if re.search(pattern, text)]
        ended = _short([job.state for job in play.jobs])
        if play.problem or ended != play.scenario.ends:
            heard["Slurm"] = stage.what_slurm_says(play.jobs)
        verdicts[play.qpu] = Verdict(
            ended=ended,
            sessions_opened=len(play.sessions),
            sessions_left_open=len(play.open_sessions),
            leases_lost=_lost(play),
            nodes_drained=drained,
            told=", ".join(told),
            heard="\n".join(f"{where}: {text}" for where, text in heard.items() if text.strip()),
            problem=play.problem,
        )
    return verdicts


def _lost(play: Play) -> int:
    """Count what the journal and the service's own record do not both have."""
    at_the_service = {session.id for session in play.sessions}
    in_the_journal = {session for lease in play.leases for session in lease.sessions}
    return len(at_the_service ^ in_the_journal) + len(play.open_leases)


def _short(states: Sequence[str]) -> str:
    """Write states once if all are the same."""
    return states[0] if len(set(states)) == 1 else " ".join(states)
