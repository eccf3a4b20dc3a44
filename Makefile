# make demo    install what is needed into .venv, draw a first picture, print its path
# make test    run the tests, two files at a time, and those of numbers again with the processor's other instructions
# make check   lint, types, import rules
# make docs    build the site of the pages into build/site
# make bench   measure, and print the tables of benchmarks/README.md
# make clean   remove the environment and everything that was made

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: demo test check docs bench install clean

# torch comes first and alone: a pinned torch that is there already keeps pip from choosing another build of it
$(VENV)/runtime: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "GraphFlow needs Python 3.11 or newer; say which with: make PYTHON=python3.12")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check $$(grep '^torch==' constraints.txt)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	@touch $@

$(VENV)/develop: $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

$(VENV)/documentation: $(VENV)/runtime
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[docs]'
	@touch $@

install: $(VENV)/develop

demo: $(VENV)/runtime
	@$(BIN)/graphflow run workflows/text_to_image.json --out out

test: $(VENV)/develop
	$(BIN)/python -m pytest -n 2 --dist loadfile
	@set -e; sets=$$($(BIN)/python -m tests.helpers.instruction_sets); for set in $$sets; do \
		echo "numeric tests with ONEDNN_MAX_CPU_ISA=$$set"; \
		ONEDNN_MAX_CPU_ISA=$$set $(BIN)/python -m pytest -n 2 --dist loadfile -m numeric; \
	done

check: $(VENV)/develop
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# a link or reference that leads nowhere is an error; all of them are shown
docs: $(VENV)/documentation
	$(BIN)/python -m sphinx --quiet --fresh-env --fail-on-warning --keep-going -c docs/site -d build/doctrees . build/site
	@echo build/site/index.html

bench: $(VENV)/develop
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) out build *.egg-info
