# `make demo` and `make test` make their virtual environment themselves, the first time only.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# As many test processes as cores. Each starts with tests of neighbouring files, which share a broker
# and other fixtures, and takes tests from another one when its own are done.
PYTEST := $(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

.PHONY: help demo flink-demo flink-up flink-down spark-demo spark-up spark-down test test-fast \
	test-bigquery soak lint bench bench-flink \
	clean

help:
	@echo "make demo   payments through Kafka with kills on the way, each exactly one row"
	@echo "make flink-demo   payments stream through Flink, everything is killed, each exactly one row (Java 17, Maven)"
	@echo "make flink-up   a Flink cluster on this machine (Java 17, Maven); make flink-down ends it"
	@echo "make spark-demo   bounded runs on a Spark cluster, parts of it are killed, each exactly one row (Java 17, Maven)"
	@echo "make spark-up   Spark on this machine (Java 17, Maven); make spark-down ends it"
	@echo "make test   all tests (those on a real Kafka broker, Flink or Spark need Java 17 and Maven)"
	@echo "make test-fast   unit and property tests with a tenth of the examples and no broker: about two minutes"
	@echo "make test-bigquery PROJECT=... DATASET=...   the contract tests against the real BigQuery"
	@echo "make soak SECONDS=600 SEED=1   a streaming job under faults at random moments (Java 17, Maven)"
	@echo "make lint   ruff and mypy"
	@echo "make bench  speed and memory on a real Kafka broker (Java 17, Maven)"
	@echo "make bench-flink   a streaming job on a real Flink cluster: speed, latency, and Spark beside it (Java 17, Maven)"
	@echo "make clean  removes the virtual environment, caches and what the demo left"

demo: $(READY)
	$(BIN)/python -m pipeline demo $(if $(DESTINATION),--destination=$(DESTINATION))

flink-demo: $(READY)
	$(BIN)/python -m pipeline demo --runner=flink

flink-up: $(READY)
	$(BIN)/python -m pipeline flink up

flink-down: $(READY)
	$(BIN)/python -m pipeline flink down

spark-demo: $(READY)
	$(BIN)/python -m pipeline demo --runner=spark

spark-up: $(READY)
	$(BIN)/python -m pipeline spark up

spark-down: $(READY)
	$(BIN)/python -m pipeline spark down

test: $(READY)
	$(PYTEST)

# tests/support/examples.py declares the profile.
test-fast: $(READY)
	$(PYTEST) --hypothesis-profile=fast tests/unit tests/property

# No other target runs this: it needs a project on Google Cloud.
test-bigquery: $(READY)
	@test -n "$(PROJECT)" -a -n "$(DATASET)" || { \
		echo "make test-bigquery needs PROJECT=... and DATASET=... (an existing dataset),"; \
		echo "and application default credentials: gcloud auth application-default login."; exit 2; }
	BIGQUERY_PROJECT=$(PROJECT) BIGQUERY_DATASET=$(DATASET) $(BIN)/python -m pytest \
		tests/bigquery_stand_in/test_write_contract.py \
		tests/bigquery_stand_in/test_rest_contract.py \
		tests/bigquery_stand_in/test_sql_contract.py

# SCHEDULES=1 repeats the schedule of one seed.
soak: $(READY)
	$(BIN)/python -m tests.soak --seed=$(or $(SEED),1) --seconds=$(or $(SECONDS),600) \
		$(if $(SCHEDULES),--schedules=$(SCHEDULES))

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m benchmarks.direct_run

bench-flink: $(READY)
	$(BIN)/python -m benchmarks.flink_stream

# Without its folder a cluster that runs could not be ended any more.
clean:
	@test ! -e .cache/flink-cluster/cluster.json || $(BIN)/python -m pipeline flink down
	@test ! -e .cache/spark-cluster/cluster.json || $(BIN)/python -m pipeline spark down
	rm -rf $(VENV) .cache .mypy_cache .ruff_cache .pytest_cache .hypothesis build dist *.egg-info \
		demo.duckdb demo.duckdb.wal demo.duckdb.ids

$(READY): requirements.lock setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || \
		{ echo "Python 3.11 is needed, and $(PYTHON) is another version."; \
		echo "Install it, or give its path: make PYTHON=/path/to/python3.11 ..."; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	touch $(READY)
