# `make` lists the targets. Where torch comes from is up to you, before the first install:
#   make install TORCH_INDEX=URL     takes torch from that index: a small CPU build, or the build for your CUDA
#   make test COVERAGE=1             also measures coverage, which takes a quarter longer
TORCH_INDEX =
SUPPORTED = import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))
PYTHON = $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c '$(SUPPORTED)' 2>/dev/null && echo $$p && break; done)

BIN = .venv/bin
PIP = $(BIN)/python -m pip -qq --disable-pip-version-check
PACKAGES = models training inference
DEMO_DATA = data/demo
DEMO_MODEL = models/trained/demo
DEMO_RUN = runs/demo

.PHONY: help install demo test reference docs lock audit clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@sed -nE 's/^([a-z]+):.*## (.*)/make \1\t\2/p' Makefile | expand -t 16

install: .venv/installed  ## make .venv and install labelbeam, its requirements and its tools (minutes; then nothing to do)

.venv/installed: setup.py $(wildcard requirements*.txt)
	@"$(PYTHON)" -c '$(SUPPORTED)' 2>/dev/null || { \
		echo "labelbeam needs Python 3.11, 3.12 or 3.13, found $(or $(PYTHON),none): install one, or name it: make PYTHON=..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
		echo "$(PYTHON) cannot make a virtual environment: install its venv module (Debian: apt-get install python3-venv)." >&2; exit 1; }
	@test -x $(BIN)/python || { echo "Making .venv with $$($(PYTHON) --version) ..."; $(PYTHON) -m venv .venv; }
	@echo "Installing the requirements (some minutes the first time) ..."
	@$(PIP) install --no-deps --require-hashes -r requirements.txt -r requirements-dev.txt -r requirements-demo.txt
	@echo "Installing torch$(TORCH_INDEX:%= from %) ..."
	@$(PIP) install $(and $(TORCH_INDEX),--index-url "$(TORCH_INDEX)") -r requirements-torch.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "Installed into .venv."

demo: install  ## train a small classifier and label a small corpus with it, on this machine, from nothing (minutes)
	@echo "1/3  making the corpus"
	@$(BIN)/python -m training.demo_corpus --output $(DEMO_DATA)
	@echo "2/3  training"
	@$(BIN)/python -m training.train training/configs/demo.toml --data_dir $(DEMO_DATA) --output $(DEMO_MODEL) --overwrite
	@echo "3/3  labelling"
	@$(BIN)/python -m inference.beam_runner --model $(DEMO_MODEL) --input $(DEMO_DATA)/corpus.jsonl --output $(DEMO_RUN) \
		--runner DirectRunner --overwrite
	@echo "Done."
	@echo "  corpus        $(DEMO_DATA)/corpus.jsonl"
	@echo "  model         $(DEMO_MODEL)/"
	@echo "  predictions   $(DEMO_RUN)/predictions/"
	@echo "  report        $(DEMO_RUN)/report.html"

test: install  ## run every check: style, types, import rules, spelling, fast tests
	@echo "ruff check";   $(BIN)/ruff check .
	@echo "ruff format";  $(BIN)/ruff format --check .
	@echo "mypy";         $(BIN)/mypy
	@echo "lint-imports"; $(BIN)/lint-imports
	@echo "codespell";    $(BIN)/codespell
	@echo "pytest";       $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal --durations 10 \
		$(and $(COVERAGE),--cov --cov-report=)
	@if [ -n "$(COVERAGE)" ]; then echo "coverage of models, training, inference: $$($(BIN)/coverage report --format=total) %"; fi

reference: install  ## write the documentation's tables and figures from the code and the result files
	@$(BIN)/python -m docs.generate

docs: install  ## build the documentation's pages into build/site
	@NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs --quiet build --strict
	@echo "Documentation: build/site/index.html (its search wants a server: python3 -m http.server -d build/site)"

# Resolve for every supported Python, on Linux and macOS, with the hash of every file. Versions stay as they are
# unless setup.py asks for others; `make lock UPGRADE=--upgrade` takes the newest. torch has a file of its own, since
# every build of it has other files; NVIDIA's libraries are left out, as torch names the exact ones itself.
RESOLVE = build/lock/bin/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--annotation-style line --no-header $(UPGRADE)
BLOCKS = awk 'FILENAME == ARGV[1] { if (/^[a-z]/) seen[$$1]; next } \
	/^[a-z]/ { skip = $$1 in seen || /^(torch==|nvidia|cuda|triton)/ || /sys_platform == .(win32|emscripten)/ } !skip'

lock:  ## write the requirements files anew from setup.py
	@echo "Resolving ..."
	@$(PYTHON) -m venv build/lock && build/lock/bin/python -m pip -qq --disable-pip-version-check install uv
	@cat requirements-torch.txt requirements.txt > build/lock/run.txt
	@cat build/lock/run.txt requirements-dev.txt > build/lock/all.txt
	@$(RESOLVE) setup.py --output-file build/lock/run.txt
	@$(RESOLVE) setup.py --extra dev --output-file build/lock/all.txt
	@{ echo "# torch alone, which is taken from the index you choose."; \
		grep -oE '^torch==[0-9.]+' build/lock/run.txt; } > requirements-torch.txt
	@{ echo "# What labelbeam runs with, exactly. Written by \`make lock\` from setup.py."; \
		$(BLOCKS) /dev/null build/lock/run.txt; } > requirements.txt
	@{ echo "# What \`make test\` needs beyond requirements.txt, exactly. Written by \`make lock\` from setup.py."; \
		$(BLOCKS) requirements.txt build/lock/all.txt; } > requirements-dev.txt
	@rm -r build/lock

audit:  ## look the pinned requirements up among known vulnerabilities, where pypi.org can be asked
	@$(BIN)/python -c 'import requests; requests.get("https://pypi.org/pypi/pip/25.0/json", timeout=20).json()["vulnerabilities"]' \
		2>/dev/null || { echo "pypi.org cannot be asked: the requirements were not looked up."; exit 0; }; \
	$(PYTHON) -m venv build/audit && build/audit/bin/python -m pip -qq --disable-pip-version-check install pip-audit && \
	build/audit/bin/pip-audit --strict --disable-pip --no-deps -r requirements.txt -r requirements-dev.txt -r requirements-torch.txt

clean:  ## remove .venv, caches, build leftovers and what the demo made; your data, models and runs stay
	rm -rf .venv build dist *.egg-info .*_cache .hypothesis .import_linter_cache .coverage* $(DEMO_DATA) $(DEMO_MODEL) $(DEMO_RUN)
	find $(PACKAGES) tests -name __pycache__ -prune -exec rm -rf {} +
