# SPDX-License-Identifier: Apache-2.0
"""What task_runner, the Python API and the hooks cost, side by side with upstream and what is possible.

    make bench              measure everything, print a table, write build/bench.json
    make bench ARGS=--docs  the same, and write docs/performance.md
    python -m benchmarks runner memory      some parts only

    figures    what was measured, as JSON and as tables
    processes  commands, the time and the memory that they take; pairs and medians
    step       a job's step, as task_runner sees it, on the emulator
    limit      the bare requests, which nothing that works can do without
    api, runner, tail, memory, throughput      the parts: the user's side,
    broker, reconcile, hooks, workflow         and the cluster's
    rules      what the rules of a centre cost a start
    loop       programs that submit one task after the other, with the gateway and without

A comparison is made in one run, on the same emulator: first one, then the other, again and again; its value
is the median of the pairs' ratios. Peers are installed from PyPI (the locked versions). Nothing leaves the
loopback interface, and no process outlives the run.
"""
