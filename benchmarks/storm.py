# SPDX-License-Identifier: Apache-2.0
"""Many jobs start at once, and end at once: this tree beside the tree of an older commit.

The older tree is cloned, and has an environment of its own. Both run the same jobs, one tree after the other,
each on a throw-away cluster of its own, with its own gateway and emulator. The service answers every request
after a while; nothing else is simulated. Slurm, the hooks, the gateway and the emulator share the machine's
cores, in both trees.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.figures import Figure

if TYPE_CHECKING:
    from collections.abc import Iterator

BEFORE = "6cdc013"
"""The commit of the tree that this one is compared with."""

_CHECKOUT = Path(__file__).parents[1]
_RUN = Path(__file__).with_name("storm_run.py")
_JOBS = 100
_LONGEST_SECONDS = 3600


class _Seen(NamedTuple):
    """What was seen in this tree, and in the older one."""

    ours: dict[str, Any]
    before: dict[str, Any]


def measure() -> Iterator[Figure]:
    """Run 100 jobs at once in both trees, with a fast and a slow service, and 1,000 jobs in this one."""
    jobs = int(os.environ.get("STORM_JOBS", _JOBS))
    with older_tree() as (checkout, python):
        seen = _both(checkout, python, jobs=jobs, at_once=jobs, delay=0.3)
        what = f"{jobs} jobs at once, service 0.3 s: until all run"
        yield _ratio("storm.start_vs_before", what, "start_seconds", seen, 0.15)
        what = f"{jobs} cancelled at once, service 0.3 s: until all sessions are closed"
        yield _ratio("storm.end_vs_before", what, "end_seconds", seen, 0.15)
        yield _memory(*seen)
        seen = _both(checkout, python, jobs=jobs, at_once=jobs, delay=2)
        what = f"{jobs} jobs at once, service 2 s: until all run"
        yield _ratio("storm.start_slow_vs_before", what, "start_seconds", seen, 0.05)
    yield _thousand()


@contextmanager
def older_tree() -> Iterator[tuple[Path, Path]]:
    """Clone the older tree; the value is its checkout, and its interpreter."""
    with tempfile.TemporaryDirectory(prefix="qpu-storm-") as directory:
        # Users' jobs run commands of it.
        Path(directory).chmod(0o755)
        checkout, cache = Path(directory, "tree"), Path(directory, "cache")
        for argv in (
            ["git", "clone", "--quiet", "--no-local", str(_CHECKOUT), str(checkout)],
            ["git", "-C", str(checkout), "checkout", "--quiet", BEFORE],
        ):
            subprocess.run(argv, check=True, timeout=_LONGEST_SECONDS)
        environ = os.environ | {"QPU_SLURM_CACHE": str(cache)}
        environ.pop("PYTHONPATH", None)
        setup = [str(checkout / "tools" / "setup")]
        subprocess.run(setup, env=environ, cwd=checkout, check=True, timeout=_LONGEST_SECONDS)
        venv = subprocess.run(
            [*setup, "--venv"], env=environ, cwd=checkout, check=True, capture_output=True, text=True
        )
        yield checkout, Path(venv.stdout.strip()) / "bin" / "python"


def _both(checkout: Path, python: Path, **options: float) -> _Seen:
    """Run a storm in this tree, and in the older one."""
    return _Seen(run(_CHECKOUT, Path(sys.executable), **options), run(checkout, python, **options))


def run(checkout: Path, python: Path, **options: float) -> dict[str, Any]:
    """Run a storm in one tree; return what `storm_run` saw."""
    environ = dict(os.environ)
    environ.pop("PYTHONPATH", None)
    done = subprocess.run(
        [str(python), str(_RUN), str(checkout), json.dumps(options)],
        env=environ,
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=_LONGEST_SECONDS,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{checkout}: {done.stderr}")
    seen: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return seen


def _ratio(key: str, what: str, field: str, seen: _Seen, at_most: float) -> Figure:
    ours, before = seen
    return Figure(
        key=key,
        what=what,
        value=ours[field] / before[field],
        at_most=at_most,
        details={"ours": ours, "before": before},
        note=(
            f"{ours[field]:.1f} s against {before[field]:.1f} s. "
            f"{_fate('Now', ours)} {_fate('Before', before)}"
        ),
    )


def _fate(when: str, seen: dict[str, Any]) -> str:
    return (
        f"{when}: {seen['failed']} failed, {seen['requeued']} requeued, {seen['sessions_in_vain']} sessions "
        f"opened in vain, {seen['sessions_left']} left."
    )


def _memory(ours: dict[str, Any], before: dict[str, Any]) -> Figure:
    mine, old = ours["memory"], before["memory"]
    return Figure(
        key="storm.hooks_rss_mib",
        what="memory of all hooks at their peak, against before (PSS)",
        value=mine["pss_mib"] / old["pss_mib"] if old["pss_mib"] else None,
        at_most=0.125,
        details={"ours": mine, "before": old},
        note=(
            f"PSS {mine['pss_mib']:.0f} MiB of {mine['hooks']} processes against {old['pss_mib']:.0f} MiB of "
            f"{old['hooks']}; RSS {mine['rss_mib']:.0f} MiB against {old['rss_mib']:.0f} MiB."
        ),
    )


def _thousand() -> Figure:
    seen = run(_CHECKOUT, Path(sys.executable), jobs=1000, at_once=200, delay=0.3, seconds=1)
    bad = seen["failed"] + seen["requeued"] + seen["sessions_left"] + seen["sessions_in_vain"]
    return Figure(
        key="storm.thousand",
        what="1,000 jobs in one array: failed, requeued, sessions left, sessions opened in vain",
        value=bad,
        at_most=0,
        details=seen,
        note=f"All had run after {seen['start_seconds']:.0f} s, 200 at a time. {_fate('Now', seen)}",
    )
