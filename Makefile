# What a developer types. Every target does its own set-up, also on a fresh Debian machine with nothing but Python 3.11
# and make, and a second run finds it done: each step of it leaves a stamp below .venv.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.NOTPARALLEL:
.DEFAULT_GOAL := help
.PHONY: help demo test fast bench chaos lock lint types clean

VENV := .venv
PYTHON := $(VENV)/bin/python
PIP := $(PYTHON) -m pip -qq --disable-pip-version-check install
BENCH := $(PYTHON) -m trioproxy serve --upstream {upstream}/v1 --bind 127.0.0.1:{port}

help:
	@echo "make demo    a proxy in front of a simulated upstream: no key, no network"
	echo "make test    format, lint, types, all tests: what CI runs"
	echo "make fast    the same without real sockets and processes, and without the long sweeps"
	echo "make bench   measure against a bare relay and the usual tutorial's (ARGS='--workload flat' for one of them)"
	echo "make chaos   10,000 streams with random fates at both ends, and what must hold afterwards (ARGS='--seed 1')"
	echo "make lock    renew requirements.lock"
	echo "make clean   remove everything that these made"

demo: $(VENV)/.runtime
	@exec $(PYTHON) -m trioproxy demo $(ARGS)

test: lint types
	@echo "== tests in virtual time, on every core"
	$(PYTHON) -m pytest --quiet -n auto -m "not loopback" $(ARGS)
	echo "== tests on real sockets, one at a time"
	$(PYTHON) -m pytest --quiet -m loopback --durations=40 $(ARGS)

fast: lint types
	@echo "== tests in virtual time, without the long sweeps"
	$(PYTHON) -m pytest --quiet -n auto -m "not loopback and not sweep" $(ARGS)

lint: $(VENV)/.dev
	@echo "== format and lint"
	$(PYTHON) -m ruff format --check .
	$(PYTHON) -m ruff check .

types: $(VENV)/.dev
	@echo "== types"
	$(PYTHON) -m mypy --strict

bench: $(VENV)/.dev
	@$(SYSTEM_PACKAGES)
	command -v gcc >/dev/null || install_packages gcc libc6-dev
	$(PYTHON) tests/load/compare.py --subject "trioproxy=8192:$(BENCH)" $(ARGS)

chaos: $(VENV)/.dev
	@exec $(PYTHON) -m tests.chaos.chaos $(ARGS)

lock: $(VENV)/.dev
	@echo "== requirements.lock"
	{
	  echo "# Every runtime dependency with its hashes, for images: pip install --require-hashes -r requirements.lock"
	  echo "# Written by 'make lock' from pyproject.toml."
	  $(PYTHON) -m uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes \
	    --extra redis --extra otel --no-header --no-annotate pyproject.toml
	} > $(VENV)/requirements.lock
	mv $(VENV)/requirements.lock requirements.lock

clean:
	@rm -rf $(VENV) dist build .mypy_cache .pytest_cache .ruff_cache .hypothesis artefacts
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# Set-up.

# Shell functions that install system packages. They try with the lists that the machine has, then with fresh ones.
define SYSTEM_PACKAGES
as_root=""
install_packages() {
  if ! command -v apt-get >/dev/null; then
    echo "make: please install $$* (there is no apt-get here to do it)" >&2
    return 1
  fi
  if [ "$$(id -u)" != 0 ]; then
    if ! command -v sudo >/dev/null; then
      echo "make: please install as root: apt-get install $$*" >&2
      return 1
    fi
    as_root=sudo
  fi
  echo "== installing system packages: $$*"
  # Offline, systemd starts nothing that a package brings along.
  local apt="$$as_root env DEBIAN_FRONTEND=noninteractive SYSTEMD_OFFLINE=1 apt-get -qq"
  $$apt install -y --no-install-recommends "$$@" >/dev/null 2>&1 ||
    { $$apt update && $$apt install -y --no-install-recommends "$$@" >/dev/null; }
}
# Where the program is wanted, and not the service of the same name: not now, and not after the next boot.
install_program() {
  ! PATH=$$PATH:/usr/sbin command -v "$$1" >/dev/null || return 0
  install_packages "$$1"
  $$as_root env SYSTEMD_OFFLINE=1 systemctl disable "$$1" >/dev/null 2>&1 || true # there may be no systemd
}
endef

$(VENV)/.created:
	@$(SYSTEM_PACKAGES)
	found=""
	for name in python3.11 python3.12 python3.13 python3; do
	  if "$$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
	    found=$$name
	    break
	  fi
	done
	if [ -z "$$found" ]; then
	  echo "make: no Python 3.11 or newer here (looked for python3.11, python3.12, python3.13, python3)" >&2
	  exit 1
	fi
	echo "== creating $(VENV) with $$("$$found" --version)"
	rm -rf $(VENV)
	if ! "$$found" -m venv $(VENV) >/dev/null 2>&1; then
	  # Debian keeps venv in a package of its own, one for each version of Python.
	  install_packages "$$("$$found" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')"
	  rm -rf $(VENV)
	  "$$found" -m venv $(VENV)
	fi
	touch $@

$(VENV)/.runtime: pyproject.toml | $(VENV)/.created
	@echo "== installing trioproxy into $(VENV)"
	$(PIP) --editable .
	touch $@

$(VENV)/.dev: pyproject.toml | $(VENV)/.created
	@$(SYSTEM_PACKAGES)
	echo "== installing trioproxy and its tools into $(VENV)"
	$(PIP) --editable '.[dev]'
	# llama.cpp's server (xllamacpp) is linked to OpenMP, which a slim image lacks.
	$(PYTHON) -c 'import ctypes; ctypes.CDLL("libgomp.so.1")' 2>/dev/null || install_packages libgomp1
	# The load balancers that tests/loopback starts, with the files of conf/.
	install_program nginx
	install_program haproxy
	# The store of streams that several replicas share.
	install_program redis-server
	# What reads its metrics, and checks conf/'s rules (promtool comes with it).
	install_program prometheus
	# The browser whose EventSource it has to suit; the one without a window, which is by far the smaller one.
	install_program chromium-headless-shell
	touch $(VENV)/.runtime $@
