# SPDX-License-Identifier: Apache-2.0
"""What was measured: figures, and how they are written down."""

from __future__ import annotations

import os
import platform
import textwrap
from datetime import UTC, datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import msgspec
from rich.table import Table

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_WIDTH = 120
"""Characters of a line of the document."""

_PACKAGES = ("qpu_slurm", "qrmi", "qiskit-ibm-runtime", "qiskit", "urllib3", "msgspec")


_INTRODUCTION = """\
# Performance

`make bench ARGS=--docs` measures all figures of this page in one run, and writes the page.

Everything runs on one emulator, side by side with upstream's programs from PyPI, and with the bare requests:
the shortest sequence of HTTP requests that does the same. benchmarks/limit.py sends it with urllib3, the
library that qpu_slurm uses. A ratio is the median of pairs.

If an aim is not met, the notes give the reason. No test asserts a speed.
"""

_LOOPS = """\
## A loop

![Iterations of a loop, without and with the gateway](images/loop.svg)

These are iterations of one unmodified program, as `qpu-slurm timeline` draws them. Each request to the
service takes 0.15 s. Without the gateway, the program sends five requests between two tasks: the state, the
result, the instance's usage, the QPU's status, and the next submission. With it, only the submission goes to
the service in that time. [gateway.md](gateway.md#loops) tells how.

`python -m benchmarks.loop` prints the same ratio for 0.05, 0.15 and 0.3 s a request, and for tasks of 0.3, 1
and 5 s.
"""


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure.

    Attributes:
        key: Its name in bench.json.
        what: What it says, in a few words.
        value: It; None if it could not be measured, and then `note` says why.
        at_most: What it should not be above.
        at_least: What it should not be below.
        unit: Of the value; ratios have none.
        details: What it was made of.
        note: What has to be known to read it.
    """

    key: str
    what: str
    value: float | None
    at_most: float | None = None
    at_least: float | None = None
    unit: str = ""
    details: dict[str, Any] = {}
    note: str = ""

    @property
    def aim(self) -> str:
        """What it should be; nothing if it is shown for comparison."""
        if self.at_most is not None:
            return f"≤ {self.at_most:g} {self.unit}".strip()
        return "" if self.at_least is None else f"≥ {self.at_least:g} {self.unit}".strip()

    @property
    def met(self) -> bool | None:
        """Whether it is what it should be; None if there is no aim."""
        if self.value is None:
            return None if not self.aim else False
        if self.at_most is not None:
            return self.value <= self.at_most
        return None if self.at_least is None else self.value >= self.at_least

    @property
    def shown(self) -> str:
        """The value, for people."""
        return "not measured" if self.value is None else f"{self.value:.3g} {self.unit}".strip()

    @property
    def verdict(self) -> str:
        """Whether the aim is met, for people."""
        return {True: "yes", False: "no", None: ""}[self.met]


def about() -> dict[str, Any]:
    """Describe what was measured on."""
    return {
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()}",
        "packages": {name: version(name) for name in _PACKAGES},
    }


def write_json(figures: Iterable[Figure], path: Path) -> None:
    """Write bench.json: the figures by key, and under `about` and `details` what stands behind them."""
    found = list(figures)
    document: dict[str, Any] = {figure.key: figure.value for figure in found}
    document["about"] = about()
    document["details"] = {
        figure.key: {
            "what": figure.what,
            "aim": figure.aim or None,
            "met": figure.met,
            "unit": figure.unit or None,
            "note": figure.note or None,
            **figure.details,
        }
        for figure in found
    }
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")


def table(figures: Iterable[Figure]) -> Table:
    """Make the table that is printed."""
    made = Table("key", "what", "aim", title="Measured")
    made.add_column("value", justify="right", no_wrap=True)
    made.add_column("met")
    for figure in figures:
        made.add_row(figure.key, figure.what, figure.aim, figure.shown, figure.verdict)
    return made


def markdown(figures: Iterable[Figure]) -> str:
    """Write docs/performance.md."""
    found = list(figures)
    known = about()
    lines = [
        *_INTRODUCTION.splitlines(),
        "",
        f"- Date: {known['date']}",
        f"- Machine: {known['machine']}",
        f"- Python {known['python']}",
        *(f"- {name} {number}" for name, number in known["packages"].items()),
        "",
        "| key | what | value | aim | met |",
        "|---|---|---:|---|---|",
    ]
    lines += [
        f"| `{figure.key}` | {figure.what} | {figure.shown} | {figure.aim} | {figure.verdict} |"
        for figure in found
    ]
    lines += ["", *_LOOPS.splitlines(), "", "## Notes", ""]
    for figure in found:
        if figure.note:
            lines += textwrap.wrap(
                f"- `{figure.key}`: {figure.note}",
                width=_WIDTH,
                subsequent_indent="  ",
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines) + "\n"
