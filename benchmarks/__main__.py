# SPDX-License-Identifier: Apache-2.0
"""Measures what qpu_slurm costs; see the package."""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path

from rich.console import Console

from benchmarks import (
    api,
    broker,
    choice,
    figures,
    hooks,
    loop,
    memory,
    reconcile,
    restart,
    rules,
    runner,
    storm,
    tail,
    throughput,
    vendors,
    workflow,
)

PARTS = {
    "api": api.measure,
    "runner": runner.measure,
    "vendors": vendors.measure,
    "tail": tail.measure,
    "memory": memory.measure,
    "throughput": throughput.measure,
    "broker": broker.measure,
    "choice": choice.measure,
    "rules": rules.measure,
    "reconcile": reconcile.measure,
    "hooks": hooks.measure,
    "loop": loop.measure,
    "workflow": workflow.measure,
    "restart": restart.measure,
    "storm": storm.measure,
}

CHECKOUT = Path(__file__).parents[1]


def main() -> None:
    """Be the command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--docs", action="store_true", help="also write docs/performance.md")
    arguments = parser.parse_args()
    unknown = set(arguments.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {unknown.pop()!r}; the parts are {', '.join(PARTS)}")
    if arguments.docs and arguments.parts:
        parser.error("--docs writes all parts, measured in one run: name no PART")
    console = Console(highlight=False)
    found: list[figures.Figure] = []
    for name in arguments.parts or PARTS:
        begin = time.monotonic()
        with console.status(f"measuring: {name}"):
            found += PARTS[name]()
        console.print(f"{name}: {time.monotonic() - begin:.0f} s")
    figures.write_json(found, CHECKOUT / "build" / "bench.json")
    console.print(figures.table(found))
    for figure in found:
        if figure.note:
            console.print(f"{figure.key}: {figure.note}", markup=False)
    if arguments.docs:
        shutil.copy(loop.PICTURE, CHECKOUT / "docs" / "images" / loop.PICTURE.name)
        (CHECKOUT / "docs" / "performance.md").write_text(figures.markdown(found), encoding="utf-8")


if __name__ == "__main__":
    main()
