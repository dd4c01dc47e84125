.DEFAULT_GOAL := help
PYTHON ?= python3
BIN := .venv/bin
SUITE := "not slow and not gpu and not image and not airflow and not browser and not ray"

.PHONY: help install demo test test-slow test-stores coverage mutants faults audit airflow browser ray image image-quick locks vega lint fix docs bench quality bench-gpu bench-night peers clean

help: ## show this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cpu,train,ray,dev]'
	@touch $@

.venv-azurite/installed: # a server of Azure's blob store; without npm its tests are skipped
	if command -v npm; then npm install --silent --no-fund --no-audit --prefix .venv-azurite azurite@3.37.0; fi
	@mkdir -p $(@D) && touch $@

.venv-airflow/installed: deploy/airflow/constraints.txt # Airflow has an environment of its own
	$(PYTHON) -m venv .venv-airflow
	.venv-airflow/bin/pip install --quiet --disable-pip-version-check -r deploy/airflow/constraints.txt
	@touch $@

install: .venv/installed ## make the environment in .venv/

demo: .venv/installed ## MovieLens-100K: fit, export, a whole night, one release
	$(BIN)/python -m examples.demo

test: .venv/installed ## the suite, in parallel
	$(BIN)/pytest -m $(SUITE)

test-slow: .venv/installed ## what takes minutes or gigabytes
	$(BIN)/pytest -m slow -n 0

test-stores: .venv/installed .venv-azurite/installed ## object stores, on servers of this machine: S3 and Azure
	$(BIN)/pytest tests/stores

airflow: .venv/installed .venv-airflow/installed ## nights under a real Airflow; build/airflow.json has what they proved
	$(BIN)/python -c "from examples.demo import make_bundles; make_bundles()"
	$(BIN)/pytest -m airflow -n 0 --show-capture=no tests/airflow tests/dags

browser: .venv/installed ## open our pages in a real Chromium; build/browser/ keeps what they look like
	if ! command -v chromium && ! command -v google-chrome && [ "$$(id -u)" = 0 ] && command -v apt-get; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; fi
	$(BIN)/pytest -m browser -n 0 tests/browser

ray: .venv/installed ## nights over a Ray cluster of two nodes, which it starts on this machine
	$(BIN)/pytest -m ray -n 0 tests/night

image: .venv/installed ## build the images cpu and train, run a small night in them; Docker, or root with buildah and mmdebstrap
	nice $(BIN)/python -m deploy.image

image-quick: .venv/installed ## the install steps of the Dockerfile, in a clean environment
	$(BIN)/pytest -m image -n 0

locks: .venv/installed ## write deploy/locks/ from pyproject.toml and constraints.txt
	$(BIN)/python -m deploy.lock

vega: .venv/installed ## write release/vega.js, which draws the charts of our pages, from the pinned vl-convert-python
	$(BIN)/python -c "import vl_convert; print(vl_convert.javascript_bundle())" > release/vega.js

lint: .venv/installed ## format, lint, types, import rules, Dockerfiles
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile deploy/airflow/Dockerfile

docs: .venv/installed ## build the site of docs/ into build/site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet

fix: .venv/installed ## format and repair what can be repaired
	$(BIN)/ruff format
	$(BIN)/ruff check --fix

coverage: .venv/installed ## the suite once more, with the lines and branches that no test reaches; build/coverage/html
	mkdir -p build/coverage
	$(BIN)/pytest -m $(SUITE) --cov --cov-report=term --cov-report=html

mutants: .venv/installed ## change merge, gates, manifest and histories on purpose: the tests must notice; AGAIN=1 tries survivors only
	$(BIN)/python -m tests.mutants $(if $(AGAIN),--again)

faults: .venv/installed ## break nights on purpose and count what is lost; SHORT=1 takes minutes, SEED=n repeats one
	$(BIN)/python -m tests.faults $(if $(SEED),--seed $(SEED)) $(if $(SHORT),--short)

audit: .venv/installed ## look up known vulnerabilities of all that is installed; where no index of them can be reached, it says so
	$(PYTHON) -m venv build/audit
	build/audit/bin/pip install --quiet --disable-pip-version-check pip-audit
	$(BIN)/pip freeze --disable-pip-version-check --exclude-editable > build/audit/installed.txt
	@build/audit/bin/pip-audit -s osv --strict --no-deps --disable-pip -r build/audit/installed.txt 2> build/audit/said.txt \
		|| { grep -q ConnectionError build/audit/said.txt && echo "NOT AUDITED: the index of vulnerabilities cannot be reached"; } \
		|| { cat build/audit/said.txt; exit 1; }

bench: .venv/installed ## every ratio beside its limit, what others use, and its goal, in 40 minutes; build/bench.json
	rm -rf build/bench-*/
	$(BIN)/python -m benchmarks

quality: .venv/installed ## what models are worth on real data, in an hour; build/quality.json, docs/quality.md; SHORT=1 takes minutes
	$(BIN)/python -m benchmarks.quality $(if $(SHORT),--short)

bench-gpu: ## a GPU beside its ceilings and the processor; needs one, and an environment with nightrec[gpu] and torch
	python3 -m benchmarks.gpu

bench-night: .venv/installed ## time the night on made data, beside its limits
	$(BIN)/python -m benchmarks.night

peers: .venv/installed ## what people use instead of us, each in an environment of its own, for `make bench` and a test
	$(BIN)/python -m benchmarks.peers.environment

clean: ## remove all that was made
	rm -rf .venv .venv-airflow .venv-azurite .venv-peers build mutants
