# make demo   installs everything into .venv, serves the networks that ship and stylizes a photo over HTTP
# make test   runs all tests, also those against a real TorchServe
# make test-fast  runs those that start no server, train nothing and compute little    make check-release  runs the full release tests
# make serve  keeps a server running; MODELS="styles mine" selects its models    make lint  checks the code
# make bench  measures speed and memory in a few minutes, into runs/bench; python -m benchmarks --help lists more
# make gallery  recreates the pictures of docs/
.PHONY: demo test test-fast check-release serve bench gallery lint clean
.DELETE_ON_ERROR:

PYTHON ?= python3
MODELS ?= styles super_resolution_x4
BIN := .venv/bin
# More processes than cores, as they mostly wait for servers. All tests of a module run in one process.
PARALLEL := -n 4 --dist loadfile --no-loadscope-reorder
# Compiled modules are kept, whatever the environment says: tests start many processes that import the same ones.
TESTING := OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest
READY := .venv/.ready

demo: $(READY)
	@$(BIN)/perceptual demo docs/photos/coffee.jpg

test: $(READY)
	@$(TESTING) $(PARALLEL)

test-fast: $(READY)
	@$(TESTING) -n logical --dist loadfile -m "not serves and not trains and not slow and not release"

check-release: $(READY)
	@$(BIN)/python -m pytest -m release

serve: $(READY)
	@$(BIN)/perceptual package $(MODELS)
	@$(BIN)/perceptual serve $(MODELS)

bench: $(READY)
	@$(BIN)/python -m benchmarks inference --sizes 256 512 1024 --batch 1
	@$(BIN)/python -m benchmarks memory --sizes 512 2048
	@$(BIN)/python -m benchmarks training --repeats 5
	@$(BIN)/python -m benchmarks serving --requests 24
	@$(BIN)/python -m benchmarks collection --styles 4 --repeats 2

gallery: $(READY)
	@$(BIN)/python docs/gallery.py

lint: $(READY)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo

clean:
	rm -rf .venv build demo model_store/*.mar

# Recreated when the requirements change. An active virtual environment is ignored.
$(READY): setup.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or newer is needed; name one: make PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "installing into .venv (PyTorch is about 5 GB; this takes a few minutes)"
	@$(BIN)/python -m pip install --disable-pip-version-check --progress-bar on -e '.[dev]'
	@touch $@
