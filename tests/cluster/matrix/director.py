# SPDX-License-Identifier: Apache-2.0
"""Plays scenarios, many at once, and says how each of them ended."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import msgspec

from qpu_slurm.errors import SlurmError
from tests.cluster.matrix.events import FAULTY
from tests.cluster.matrix.play import TROUBLE, Play

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tests.cluster.matrix.scenario import Scenario, Storm, What
    from tests.cluster.matrix.stage import Stage

AT_ONCE = 12
"""How many scenarios are played beside each other."""

_LOOK = 0.2


class Verdict(msgspec.Struct, kw_only=True):
    """How a scenario ended.

    Attributes:
        ended: The states of its jobs.
        sessions_opened: How many sessions, or gates, were opened for it.
        sessions_left_open: How many sessions are open yet; where the service has none, how many tasks it
            keeps.
        leases_lost: Sessions that belong to no lease, leases that belong to no session, and leases that
            are not over.
        nodes_drained: Nodes that do not take jobs any more.
        told: Where the user was told what he must have been told; empty if nowhere.
        told_wrong: Where he was told, or hooks logged, what is not so; empty if nowhere.
        heard: All that he was told.
        problem: Why it could not be played to its end.
    """

    ended: str
    sessions_opened: int
    sessions_left_open: int
    leases_lost: int
    nodes_drained: int = 0
    told: str
    told_wrong: str
    heard: str
    problem: str


def perform(stage: Stage, scenarios: Sequence[Scenario]) -> dict[Scenario, Verdict]:
    """Play scenarios: first those that disturb no other, all together; then one storm after the other.

    Returns:
        How each of them ended. If the cluster is lost, that is the problem of those that were being played
        (at least one); those that were not judged yet are missing, and can be played on another cluster.
    """
    verdicts: dict[Scenario, Verdict] = {}
    for storm, group in _acts(scenarios):
        plays = [Play(one, stage.qpus[one], stage) for one in group]
        try:
            _play(stage, plays, storm)
            verdicts |= _judge(stage, plays)
        except SlurmError as error:
            interrupted = [play for play in plays if play.on_stage] or plays
            for play in interrupted:
                play.problem = f"the cluster is lost: {error}"
            return verdicts | {play.scenario: _verdict(play) for play in interrupted}
        if storm is not None:
            _strike(storm.last, plays)
    return verdicts


def _acts(scenarios: Sequence[Scenario]) -> Iterator[tuple[Storm | None, list[Scenario]]]:
    """Tell what is played together, and which storm breaks then."""
    yield None, [one for one in scenarios if one.storm is None]
    stormy: dict[Storm, list[Scenario]] = {}
    for one in scenarios:
        if one.storm is not None:
            stormy.setdefault(one.storm, []).append(one)
    yield from stormy.items()


def _play(stage: Stage, plays: Sequence[Play], storm: Storm | None) -> None:
    """Play to the end.

    Raises:
        SlurmError: The cluster is lost.
    """
    waiting, playing = list(plays), list[Play]()
    # A storm breaks when each of its rows has come to its moment, so none may wait for another's end.
    at_once = AT_ONCE if storm is None else len(plays)
    if storm is not None and not _strike(storm.first, plays):
        return
    while waiting or playing:
        began = time.monotonic()
        while waiting and len(playing) < at_once:
            playing.append(waiting.pop(0))
            playing[-1].begin()
        view = stage.look()
        stage.nudge()
        if any(play.over for play in playing):
            # A reaper would make the request that another row waits for its hook to make.
            stage.read_journal(reap=not any(play.next_is(FAULTY) for play in playing))
        playing = [play for play in playing if not play.step(view)]
        if storm is not None and playing and not waiting and all(play.at_its_moment for play in playing):
            _strike(storm.does, plays)
            for play in playing:
                play.break_storm()
            storm = None
        time.sleep(max(0.0, _LOOK - (time.monotonic() - began)))


def _strike(whats: Sequence[What], plays: Sequence[Play]) -> bool:
    """Do something to the whole stage; if it cannot be done, each play has the reason, and ends.

    Whatever was to come is left out then, be it that slurmctld is started again: see `Play.give_up`.
    """
    try:
        for what in whats:
            what.do(plays[0])
    except TROUBLE as error:
        for play in plays:
            play.give_up(f"{type(error).__name__}: {error}")
        return False
    return True


def _judge(stage: Stage, plays: Sequence[Play]) -> dict[Scenario, Verdict]:
    """Say how plays ended, once all is at rest.

    Raises:
        SlurmError: The cluster is lost.
    """
    stage.settle()
    drained = stage.nodes_drained()
    verdicts = {}
    for play in plays:
        play.view = stage.view
        verdicts[play.scenario] = verdict = _verdict(play, drained)
        if play.problem or verdict.ended != play.scenario.ends:
            verdict.heard += f"\nSlurm: {stage.what_slurm_says(play.jobs)}"
    return verdicts


def _verdict(play: Play, nodes_drained: int = 0) -> Verdict:
    heard = play.heard
    pattern = play.scenario.told.replace("{qpu}", play.qpu)
    told = [where for where, text in heard.items() if re.search(pattern, text)]
    never = re.compile(play.scenario.never)
    wrong = [where for where, text in (*heard.items(), ("hooks' log", play.logged)) if never.search(text)]
    return Verdict(
        ended=_short([job.state for job in play.jobs]),
        sessions_opened=len(play.opened),
        sessions_left_open=play.left_open,
        leases_lost=_lost(play),
        nodes_drained=nodes_drained,
        told=", ".join(told),
        told_wrong=", ".join(wrong),
        heard="\n".join(f"{where}: {text}" for where, text in heard.items() if text.strip()),
        problem=play.problem,
    )


def _lost(play: Play) -> int:
    """Count what the journal and the service's own record do not both have."""
    in_the_journal = {session for lease in play.leases for session in lease.sessions}
    return len(play.opened ^ in_the_journal) + len(play.open_leases)


def _short(states: Sequence[str]) -> str:
    """Write states once if all are the same."""
    return states[0] if len(set(states)) == 1 else " ".join(states)
