# SPDX-License-Identifier: Apache-2.0
#
# make demo        run the main job on a throw-away cluster with an emulated quantum service
# make lab         open a shell on such a cluster, to follow docs/tutorial.md
# make test        check and test everything (lint, unit, integration, cluster)
# make test-unit   the tests that take seconds and need neither network nor Slurm
# make test-clients what docs/compatibility.md lists: every release of the clients, each in an environment of its own
# make test-packages  what an admin installs: packages, in chroots, man pages, completion; takes root
# make dist        build wheels and sdists into dist/
# make deb         build the packages for this Debian and its Slurm into dist/
# make rpm         build the packages for RPM, for this machine's Slurm, into dist/
# make site        write the documentation as a site into build/site, with its links checked
# make man         write the man pages and the shells' completion below build/man
# make test-watching  dashboard and alerts, with a real Prometheus that watches a real gateway
# make test-recipes  docs/recipes.md with the real tools: Jupyter, Snakemake, Parsl, from PyPI
# make test-matrix the cluster tests on Slurm 22.05, 24.11 and 26.05, in chroots (RELEASES=forky: on that one of Debian)
# make fuzz        look for inputs that break the plugin, for SECONDS (30) each; needs clang
# make reliability  play every scenario of faults on a real cluster, and write docs/reliability.md
# make soak SEED=1 JOBS=300  random jobs and random faults, for as long as that takes
# make bench       measure, side by side with upstream (ARGS=--docs: write docs/performance.md, too)
# make bench-gateway bench-hostile  measure what the gateway adds to a request
# make bench-thin  measure what Slurm waits for behind the gateway, against an earlier revision
# make bench-hostile  measure what a hostile client costs the gateway
# make figures     draw docs/tutorial.md's figures anew, from real runs
# make other-tools  write the inputs of pytket, Cirq and others again, that tests read; installs each from PyPI
# make lock        resolve pyproject.toml's dependencies into requirements.lock
# make clean       remove what was built

VENV := $(shell tools/setup --venv)
# Several tests at a time; PYTEST_ARGS='-n 0' runs them one after the other.
PYTEST = $(VENV)/bin/python -m pytest -n $(1) $(PYTEST_ARGS)

.PHONY: demo lab figures reliability soak bench bench-gateway bench-hostile bench-thin test lint test-unit test-integration \
	test-clients test-clients-ends test-cluster test-matrix test-packages test-watching test-recipes test-plugin fuzz deb rpm man site dist setup other-tools lock clean help
.NOTPARALLEL:

help:
	@sed -n 's/^# \(make .*\)/\1/p' Makefile

setup:
	@tools/setup

demo: setup
	@$(VENV)/bin/qpu-slurm demo

lab: setup
	@$(VENV)/bin/qpu-slurm demo --shell

figures: setup
	$(VENV)/bin/qpu-slurm demo --task-seconds 7.5 --figures docs/images

bench: setup
	$(VENV)/bin/python -m benchmarks $(ARGS)

bench-gateway: setup
	$(VENV)/bin/python -m benchmarks.gateway $(ARGS)

bench-thin: setup
	$(VENV)/bin/python -m benchmarks.thin $(ARGS)

bench-hostile: setup
	$(VENV)/bin/python -m benchmarks.hostile $(ARGS)

test: lint test-plugin test-unit test-integration test-clients-ends test-cluster

lint: setup
	$(VENV)/bin/ruff check
	$(VENV)/bin/ruff format --check
	$(VENV)/bin/mypy
	PYTHONPATH=src $(VENV)/bin/lint-imports

test-plugin: setup
	$(MAKE) --no-print-directory -C plugin check

fuzz:
	@$(MAKE) --no-print-directory -C plugin fuzz

test-unit: setup
	$(call PYTEST,auto) tests/unit

test-integration: setup
	$(call PYTEST,4) tests/integration

test-clients: setup
	$(call PYTEST,2) tests/clients
	$(VENV)/bin/python -m tests.clients.document

# The oldest and the newest release of each.
test-clients-ends: setup
	CLIENTS=ends $(call PYTEST,2) tests/clients

test-packages: setup
	tools/need debootstrap fish iproute2 man-db mandoc openssh-client zsh
	$(call PYTEST,0) tests/packages

test-watching: setup
	tools/need prometheus
	$(call PYTEST,0) tests/watching

# In an environment of their own, as a user has them.
RECIPES = $(dir $(VENV))recipes

test-recipes: setup
	[ -d $(RECIPES) ] || $(VENV)/bin/python -m venv $(RECIPES)
	$(RECIPES)/bin/pip install --quiet --requirement tests/recipes/requirements.txt
	RECIPES=$(RECIPES) $(call PYTEST,0) tests/recipes

test-cluster: setup
	$(call PYTEST,2) --dist loadfile tests/cluster

test-matrix:
	@tools/test-matrix $(RELEASES)

reliability: setup
	$(call PYTEST,0) tests/cluster/matrix
	$(VENV)/bin/python -m tests.cluster.matrix.document

soak: setup
	SEED=$(SEED) JOBS=$(or $(JOBS),300) $(call PYTEST,0) -s tests/cluster/test_soak.py

other-tools:
	@tools/other-tools

deb:
	@packages/deb $(SETTINGS)

man: setup
	$(VENV)/bin/python -m packages.manual build/man

site: setup
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo "The site is in build/site. To read it: python3 -m http.server --directory build/site"

dist:
	@packages/dist dist

rpm:
	@packages/rpm $(SETTINGS)


# What development needs, all of it; of that, what the packages install below /opt, and what they are built with.
lock:
	$(call COMPILE,requirements.lock,--upgrade --group test --group build --group package --group site --group lock \
		src/qpu_slurm_devkit/pyproject.toml)
	$(call COMPILE,packages/opt.lock,--constraint requirements.lock --extra gateway)
	$(call COMPILE,packages/build.lock,--constraint requirements.lock --extra gateway --group build --group package)

COMPILE = $(VENV)/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--custom-compile-command 'make lock' --no-emit-package qpu-slurm --output-file $(1) pyproject.toml $(2)

clean:
	rm -rf build dist
