# Two commands set everything up by themselves: `make demo` and `make test`.
# They need Python 3.11+, a C/C++ compiler and make; everything else goes into .venv.

PYTHON ?= python3
RANKS ?= 2
# A file of enwik8 (.xz, .gz, .zip or plain) for `make demo SOURCE=...`; empty: the text of Python's own library.
SOURCE ?=

BIN := .venv/bin
READY := .venv/.ready
# DeepSpeed builds nothing ahead of time: on a CPU it needs no compiled operator.
export DS_BUILD_OPS = 0
export DS_SKIP_CUDA_CHECK = 1

.PHONY: help setup demo test test-slow lint format constraints clean

help:
	@echo "make demo [SOURCE=enwik8.xz]  train a small character model in three phases and judge it"
	@echo "make test                     run the tests"
	@echo "make test-slow                run the tests that take minutes"
	@echo "make lint                     ruff, mypy, import contracts, generated documentation"
	@echo "make setup                    only the environment in .venv"

setup: $(READY)

$(READY): pyproject.toml configs/constraints.txt configs/install.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "error: $(PYTHON) is older than Python 3.11; name a newer one: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv (about a minute the first time)"
	@$(PYTHON) -m venv .venv \
	  || { echo "error: this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@$(BIN)/python configs/install.py
	@touch $(READY)

demo: setup
ifeq ($(SOURCE),)
	@$(BIN)/longformer train configs/run/quickstart.yaml --ranks $(RANKS)
else
	@$(BIN)/longformer train configs/run/quickstart.yaml name=quickstart-enwik8 data.recipe=enwik8 \
	  data.source="$(abspath $(SOURCE))" data.limit_bytes=5000000 data.directory=data/quickstart-enwik8 --ranks $(RANKS)
endif

test: setup
	@$(BIN)/pytest -m "not slow" -n 2 --dist worksteal

test-slow: setup
	@# A file stays on one worker: its tests share a cluster.
	@$(BIN)/pytest -m slow -n 2 --dist loadfile

lint: setup
	@$(BIN)/ruff check .
	@$(BIN)/ruff check --preview --select PLW1514 launcher longformer data_pipeline benchmarks configs slurm  # UTF-8, always
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy launcher longformer data_pipeline configs/install.py
	@$(BIN)/lint-imports
	@$(BIN)/python -m launcher.commands.config_reference --check

format: setup
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

# Lock again, after changing a range in pyproject.toml; without `--upgrade`, what is locked stays where it may.
# CUDA packages are left out: each build of torch pins its own.
constraints: setup
	@$(BIN)/uv pip compile pyproject.toml --extra development --group setup --universal --python-version 3.11 \
	  --no-python-downloads --no-header --no-annotate --quiet --output-file configs/constraints.txt
	@sed -i '/^nvidia-/d; /^cuda-/d' configs/constraints.txt

clean:
	rm -rf .venv
