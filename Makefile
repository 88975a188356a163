# make bench   from a fresh clone to the comparison of tsresnet18 with its twin under attack
# make test    linters, types and the whole test suite
# make fuzz    damages files of every kind for a minute and reads them
# make gpu     what only a real GPU shows; skips without one
# make speed   this project beside the stock libraries, about 30 minutes
# Another interpreter: make test PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
ZOO := $(BIN)/tdsnn-zoo

.PHONY: bench test fuzz gpu speed data clean

bench: data
	@echo "3/4 The checkpoints of tsresnet18 and its twin ..."
	@$(ZOO) download tsresnet18 >/dev/null
	@echo "4/4 Accuracy without and under attack, 1,000 test images of each (about four minutes) ..."
	@$(ZOO) bench --attack pgd --n 1000 --eps 1 --eps 4

# One more than the two cores that are common: some tests wait for processes that they started.
test: .venv/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3

fuzz: .venv/.installed-dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.fuzz --seconds 60

gpu: .venv/.installed-dev
	$(BIN)/python -m pytest -m gpu -s tests

speed: .venv/.installed-dev
	$(BIN)/python -m benchmarks.speed

# What is cached or installed already needs no network; Debian's package is the last resort. What the first try
# said is of interest only if the second fails too.
data: .venv/.installed
	@echo "2/4 Fashion-MNIST, from the cache, a local mirror, a Debian package or the Hugging Face Hub ..."
	@$(ZOO) data fetch fashion_mnist >.venv/fetch.log 2>&1 \
		|| ( $(DEBIAN_DATA) && $(ZOO) data fetch fashion_mnist ) >>.venv/fetch.log 2>&1 \
		|| { status=$$?; cat .venv/fetch.log >&2; exit $$status; }

DEBIAN_DATA = { \
	command -v apt-get >/dev/null || { echo "Fashion-MNIST is missing and there is no apt-get."; exit 4; }; \
	if [ "$$(id -u)" = 0 ]; then as=; \
	elif sudo -n true 2>/dev/null; then as="sudo -n"; \
	else echo "Run this first: sudo apt-get install dataset-fashion-mnist"; exit 4; fi; \
	install="$$as apt-get install -y --no-install-recommends dataset-fashion-mnist"; \
	$$install || { $$as apt-get update && $$install; }; }

.venv/.installed: pyproject.toml
	@echo "1/4 Installing tdsnn-zoo into .venv (a minute or two) ..."
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

# torchattacks pins an old requests, topoloss pulls in torchtyping with an old typeguard and a pytest plug-in;
# --no-deps keeps these out of the environment.
.venv/.installed-dev: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	$(BIN)/python -m pip install --quiet --no-deps torchattacks==3.5.1 topoloss==0.0.2
	touch $@

clean:
	rm -rf .venv dist build .pytest_cache .mypy_cache .ruff_cache .hypothesis
