# `make test` and `make demo` need nothing but make and Python 3.10, 3.11 or 3.12: they make the
# virtual environment .venv, install into it what constraints.txt pins, and install again when
# that or the package's metadata change. What was left half made is made anew.

VENV := .venv
READY := $(VENV)/ready
PYTEST_ARGS ?= tests

help:  ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-12s %s\n", $$1, $$2}' Makefile

demo: $(READY)  ## Prepare, train, evaluate, export and predict on made-up images, into demo/
	$(VENV)/bin/flexseg demo --output=demo

test: $(READY)  ## Run the tests; PYTEST_ARGS='tests/models -k unet' chooses among them
	$(VENV)/bin/python -m pytest -n 2 -m "not long" $(PYTEST_ARGS)

test-all: $(READY)  ## Run the long tests, too
	$(VENV)/bin/python -m pytest -n 2 $(PYTEST_ARGS)

coverage: $(READY)  ## Run the tests and tell which lines none of them reaches; also in coverage/
	$(VENV)/bin/python -m pytest -n 2 --cov --cov-report=term-missing:skip-covered \
	  --cov-report=html:coverage $(PYTEST_ARGS)

docs: $(READY)  ## Build the documentation into site/
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict

lint: $(READY)  ## Check style and types
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

format: $(READY)  ## Rewrite the code in the project's style
	$(VENV)/bin/ruff check --fix-only --quiet .
	$(VENV)/bin/ruff format .

clean:  ## Remove what make made: virtual environments, demo/, coverage/, caches
	rm -rf $(VENV) .venv-lowest .venv-newest demo build coverage .coverage flexseg.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find pipelines models train export tests -name __pycache__ -prune -exec rm -rf {} +
	rm -rf __pycache__

# ---- The virtual environment -----------------------------------------------------------------

# Answers "use INTERPRETER" (the one behind it, where it is itself in a virtual environment) or
# "not WHAT WAS FOUND". Each candidate is run, not only looked up: a version manager's shim can lie
# on PATH and refuse. Without ensurepip, a package of its own on some systems, venv would fail
# halfway.
probe := import sys; print("%d.%d.%d" % sys.version_info[:3]); import ensurepip; print(sys._base_executable)
find_python = $(shell \
  for python in $(if $(PYTHON),"$(PYTHON)",python3.12 python3.11 python3.10 python3); do \
    answer=`"$$python" -c '$(probe)' 2>/dev/null`; status=$$?; \
    set -- $$answer; version=$$1; \
    case $$status/$$version in \
      (0/3.10.*|0/3.11.*|0/3.12.*) shift; echo "use $$*"; exit;; \
      (*/3.10.*|*/3.11.*|*/3.12.*) is="$$version without ensurepip";; \
      (*/*.*) is="$$version";; \
      (*) is="that does not run";; \
    esac; \
    if [ "$(PYTHON)" ] || command -v "$$python" >/dev/null; then \
      found="$${found:+$$found, }$$python $$is"; \
    fi; \
  done; \
  echo "not $${found:-none}")
complaint = flexseg needs Python 3.10, 3.11 or 3.12; found $(wordlist 2,99,$(python)). \
  Name one with: make $(firstword $(MAKECMDGOALS)) PYTHON=/path/to/python3.11

# READY is written last and says where and with which Python the environment was made. Where it is
# missing or says otherwise (an interrupted install, a moved or copied folder, another PYTHON), or
# where that Python is gone, the environment is made from nothing.
made_in := $(shell sed -n 1p $(READY) 2>/dev/null)
made_with := $(shell sed -n 2p $(READY) 2>/dev/null)
python := use $(made_with)
ifneq ($(PYTHON),)
python := $(find_python)
endif
ifneq ($(CURDIR) use $(made_with) $(wildcard $(VENV)/bin/python),$(made_in) $(python) $(VENV)/bin/python)
from_nothing := yes
endif

$(READY): setup.cfg pyproject.toml constraints.txt $(if $(from_nothing),from-nothing)
	@rm -f $@
	@echo "Installing into $(VENV); the first time, this takes some minutes"
	@$(VENV)/bin/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[dev,volumes,aws,dask]'
	@printf '%s\n' "$(CURDIR)" "$(wordlist 2,99,$(python))" >$@

from-nothing:
	$(if $(PYTHON),,$(eval python := $(find_python)))
	$(if $(filter use,$(firstword $(python))),,$(error $(complaint)))
	@rm -rf $(VENV)
	@"$(wordlist 2,99,$(python))" -m venv $(VENV)

# ---- The pins ----------------------------------------------------------------------------------

# uv resolves in seconds what pip searches for an hour. It lies in a virtual environment that is
# thrown away, asks the index of PIP_INDEX_URL or UV_DEFAULT_INDEX, and builds nothing of what it
# resolves.
UV_COMPILE = uv pip compile setup.cfg --quiet --no-header --no-annotate \
  $${PIP_INDEX_URL:+--default-index "$$PIP_INDEX_URL"}
TEST_EXTRAS := --extra=dev --extra=volumes --extra=aws --extra=dask

# Resolves the package with all its extras, for each Python by itself, and merges the answers. Pins
# that still fit stay as they are; UPGRADE=--upgrade takes the newest releases that setup.cfg
# allows, UPGRADE='--upgrade-package=ruff' those of one package. PYTHONS='3.11' is enough to see
# whether there is an answer, but writes its pins alone.
PYTHONS ?= 3.10 3.11 3.12

define MERGE
import pathlib, sys
pythons, pins = sys.argv[2:], {}
for python in pythons:
    for line in pathlib.Path(sys.argv[1], python + ".txt").read_text().split("\n"):
        if line.strip():
            pins.setdefault(tuple(line.partition(";")[0].strip().split("==")), []).append(python)
def marker(where):
    if where == pythons:
        return ""
    if where == pythons[-len(where):]:
        return ' ; python_version >= "%s"' % where[0]
    return " ; " + " or ".join('python_version == "%s"' % python for python in where)
print("# Every package that flexseg and its extras bring in, pinned, for Python %s" % ", ".join(pythons))
print("# on Linux x86_64. `make constraints` resolves setup.cfg anew and writes this file; run")
print("# `make test` and `make lint` with it, for each Python, before you keep it.")
for (name, version), where in sorted(pins.items()):
    print("%s==%s%s" % (name, version, marker(where)))
endef
export MERGE

constraints:  ## Resolve all dependencies anew for PYTHONS='3.10 3.11 3.12'; UPGRADE=--upgrade
	$(eval python := $(find_python))
	$(if $(filter use,$(firstword $(python))),,$(error $(complaint)))
	@work=`mktemp -d` && trap 'rm -rf "$$work"' EXIT && trap 'exit 1' INT TERM && \
	"$(wordlist 2,99,$(python))" -m venv "$$work/venv" && \
	"$$work/venv/bin/python" -m pip install --quiet --disable-pip-version-check uv && \
	for version in $(PYTHONS); do \
	  echo "Resolving for Python $$version" && \
	  cp constraints.txt "$$work/$$version.txt" && \
	  "$$work/venv/bin/"$(UV_COMPILE) --all-extras --python-version "$$version" \
	    --python-platform x86_64-manylinux_2_28 $(UPGRADE) -o "$$work/$$version.txt" || exit 1; \
	done && \
	"$$work/venv/bin/python" -c "$$MERGE" "$$work" $(PYTHONS) >"$$work/constraints.txt" && \
	mv "$$work/constraints.txt" constraints.txt

# ---- The ends of the ranges --------------------------------------------------------------------

# The tests with the lowest releases that setup.cfg names (of what those bring in, the newest that
# fit), and with the newest of all, each in a virtual environment of its own. What was installed
# stands in pins.txt there; it is resolved anew each time and installed where it has changed.
test-lowest: .venv-lowest/bin/uv  ## Run the tests with the lowest releases that setup.cfg allows
	$(call test_with,lowest,lowest-direct)

test-newest: .venv-newest/bin/uv  ## Run the tests with the newest releases that setup.cfg allows
	$(call test_with,newest,highest)

define test_with
	@rm -f .venv-$(1)/pins.new
	@.venv-$(1)/bin/$(UV_COMPILE) $(TEST_EXTRAS) --resolution=$(2) \
	  --python=.venv-$(1)/bin/python -o .venv-$(1)/pins.new
	@cmp -s .venv-$(1)/pins.new .venv-$(1)/pins.txt || { \
	  rm -f .venv-$(1)/pins.txt && \
	  .venv-$(1)/bin/python -m pip install --quiet --disable-pip-version-check \
	    -r .venv-$(1)/pins.new && \
	  .venv-$(1)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -e . && \
	  mv .venv-$(1)/pins.new .venv-$(1)/pins.txt; }
	.venv-$(1)/bin/python -m pytest -n 2 $(PYTEST_ARGS)
endef

.PRECIOUS: .venv-%/bin/uv
.venv-%/bin/uv:
	$(eval python := $(find_python))
	$(if $(filter use,$(firstword $(python))),,$(error $(complaint)))
	@rm -rf .venv-$*
	@"$(wordlist 2,99,$(python))" -m venv .venv-$*
	@.venv-$*/bin/python -m pip install --quiet --disable-pip-version-check uv

.PHONY: help demo test test-all docs coverage lint format clean from-nothing constraints test-lowest test-newest
