# SPDX-License-Identifier: Apache-2.0
"""A kind of QPU needs the packages of no other kind."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest


def run_without(package: str, program: str) -> str:
    """Run a program on a machine that lacks a package; return what it printed."""
    missing = f"import sys; sys.modules[{package!r}] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", missing + textwrap.dedent(program)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_gateway_of_qpus_in_the_cloud_needs_nothing_that_signs_requests_to_a_storage() -> None:
    printed = run_without("botocore", "import qpu_slurm.gateway.app, qpu_slurm.gateway.server; print('fine')")
    assert printed == "fine\n"


@pytest.mark.parametrize("module", ["qpu_slurm.hooks.step", "qpu_slurm.runner.main", "qpu_slurm.config"])
def test_hooks_and_task_runner_import_none_of_it(module: str) -> None:
    printed = run_without(
        "no_such_package",
        f"""
        import {module}
        print([name for name in sys.modules if name.partition(".")[0] == "botocore" or "ibm_system" in name])
        """,
    )
    assert printed == "[]\n"


def test_a_qpu_on_the_premises_says_what_to_install() -> None:
    printed = run_without(
        "botocore",
        """
        from qpu_slurm import providers
        from qpu_slurm.errors import ConfigError
        from qpu_slurm.providers.ibm_system.access import Storage, SystemAccess
        from qpu_slurm.system.secret import Secret

        storage = Storage(
            endpoint="http://127.0.0.1:1", bucket="b", region="r", access_key_id="i", secret=Secret("s")
        )
        access = SystemAccess(
            type="ibm-quantum-system", backend="fez", endpoint="http://127.0.0.1:1",
            iam_endpoint="http://127.0.0.1:1", instance="crn", api_key=Secret("k"), storage=storage,
        )
        try:
            providers.connect(access)
        except ConfigError as error:
            print(error)
        """,
    )
    assert "`pip install 'qpu_slurm[ibm-system]'` on the gateway's host" in printed
