# SPDX-License-Identifier: Apache-2.0
"""The releases, and the environments that they are installed in.

An environment has what the release's users had some weeks after it came out: the newest Qiskit, NumPy and so
on of that day. So the day pins the whole environment.
"""

from __future__ import annotations

import atexit
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).parents[2]

_BIN = Path(sys.executable).parent
_ENVIRONMENTS = _BIN.parents[1] / "clients"

_PYTHON = Path("/usr/bin/python3")

_OURS = ["certifi", "msgspec>=0.19", "requests>=2.31", "rich>=13", "structlog>=24", "urllib3>=2"]
"""What qpu_slurm itself needs, as in pyproject.toml."""


class Release(NamedTuple):
    """A release of a client.

    Attributes:
        package: Its name on PyPI.
        version: Its version.
        day: When its users' environment was made.
        qiskit: The Qiskit of that day.
        extra: The extra that has what its primitives need.
    """

    package: str
    version: str
    day: str
    qiskit: str
    extra: str = ""

    def __str__(self) -> str:
        return f"{self.package} {self.version}"

    @property
    def python(self) -> Path:
        """The environment's interpreter; `make` makes it."""
        return _ENVIRONMENTS / f"{self.package}-{self.version}-{self.day}" / "bin" / "python"

    def make(self) -> None:
        """Make the environment, if it is not there yet, and install this checkout into it.

        Raises:
            CalledProcessError: It cannot be made; what uv printed says why.
        """
        root = self.python.parents[1]
        with _one_at_a_time(root):
            if not (root / "complete").exists():
                shutil.rmtree(root, ignore_errors=True)
                # Debian's Python, which the users of a cluster can run; this one may be in root's home.
                _uv("venv", "--python", str(_PYTHON), str(root))
                wanted = f"{self.package}{self.extra}=={self.version}"
                _uv(
                    "pip",
                    "install",
                    "--python",
                    str(self.python),
                    "--exclude-newer",
                    self.day,
                    wanted,
                    *_OURS,
                )
                (root / "complete").touch()
            # Other workers may run programs in it: what it has already is not installed again.
            installed, wheel = root / "installed", _wheel()
            digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
            if not installed.exists() or installed.read_text() != digest:
                installed.unlink(missing_ok=True)
                install = ("pip", "install", "--python", str(self.python), "--no-deps", "--no-index")
                _uv(*install, "--reinstall", str(wheel))
                installed.write_text(digest)

    def installed(self, package: str) -> str:
        """Return the version of a package in the environment."""
        code = f"import importlib.metadata as m; print(m.version({package!r}))"
        done = subprocess.run([self.python, "-c", code], capture_output=True, text=True, check=True)
        return done.stdout.strip()


RUNTIME = tuple(
    Release("qiskit-ibm-runtime", version, day, qiskit)
    for version, day, qiskit in (
        ("0.43.1", "2025-12-01", "2.2.3"),
        ("0.45.1", "2026-03-01", "2.3.0"),
        ("0.46.1", "2026-04-15", "2.3.1"),
        ("0.48.0", "2026-08-01", "2.5.1"),
        ("0.49.0", "2026-09-01", "2.5.2"),
        ("0.50.0", "2026-10-15", "2.5.2"),
        ("0.51.0", "2026-11-20", "2.6.2"),
    )
)
QRMI = tuple(
    Release("qrmi", version, day, qiskit, "[ibm]")
    for version, day, qiskit in (
        ("0.21.1", "2026-08-12", "2.5.1"),
        ("0.23.1", "2026-09-10", "2.5.2"),
        ("0.25.1", "2026-10-15", "2.5.2"),
        ("0.26.4", "2026-11-20", "2.6.2"),
    )
)
IQM = tuple(
    Release("iqm-client", version, day, qiskit, "[qiskit]")
    for version, day, qiskit in (("35.0.3", "2026-11-20", "2.1.2"), ("36.0.0", "2026-11-25", "2.1.2"))
)
RELEASES = RUNTIME + QRMI + IQM

ENDS = frozenset({RUNTIME[0], RUNTIME[-1], QRMI[0], QRMI[-1], IQM[-1]})
"""The oldest and the newest of each, which every change is tested with."""


@cache
def _wheel() -> Path:
    """Build this checkout's wheel, once."""
    directory = Path(tempfile.mkdtemp(prefix="qpu-slurm-wheel-"))
    atexit.register(shutil.rmtree, directory)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(build, cwd=CHECKOUT, check=True, capture_output=True, text=True)
    (wheel,) = directory.glob("*.whl")
    return wheel


def _uv(*arguments: str) -> None:
    environ = os.environ | {"UV_CACHE_DIR": str(_ENVIRONMENTS / "uv"), "UV_LINK_MODE": "hardlink"}
    done = subprocess.run(
        [_BIN / "uv", "--no-config", *arguments], env=environ, capture_output=True, text=True, check=False
    )
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()


@contextmanager
def _one_at_a_time(root: Path) -> Iterator[None]:
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
