# Everything a person types. Python 3.11 or newer and make are all it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
WORKERS ?= 2
DATA := $(wildcard ../shared/data)
ifneq ($(DATA),)
export POLYCLINIC_DATA ?= $(abspath $(DATA))
endif

.PHONY: help install demo real test check bench soak clean

help:
	@echo "make demo   walk the starter recipe from raw text to report.html"
	@echo "make test   run all tests; make check: style, types, arrows, secrets"
	@echo "make real   the same walk on real text (needs POLYCLINIC_DATA)"
	@echo "make bench  measure; make soak: slow proofs"

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: make: Python 3.11 or newer is needed; name it with PYTHON=..."; exit 6; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || { echo "error: make: no venv module; install python3-venv"; exit 6; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[train,evaluate,report,tensorboard,dev]'
	@touch $@

demo: install
	$(BIN)/polyclinic run recipes/starter.yaml --out runs/starter

real: install
	$(BIN)/polyclinic run recipes/real.yaml --out runs/real

test: install
	$(BIN)/python -m pytest -m "not soak" -n $(WORKERS) --dist loadfile --no-loadscope-reorder

check: install
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q tests/test_architecture.py
	git ls-files -z | xargs -0 $(BIN)/detect-secrets-hook --baseline .secrets.baseline

bench: install
	$(BIN)/python benchmarks/training.py

soak: install
	$(BIN)/python -m pytest -m soak
	POLYCLINIC_SOAK=1 $(BIN)/python -m pytest tests/moe/test_router_rules.py tests/moe/test_architectures.py

clean:
	rm -rf $(VENV) runs build dist
