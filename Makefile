# make run: set up and run the main job on two real inputs.   make test: set up and run the tests.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip install --quiet --disable-pip-version-check
TORCH  := torch==2.13.0

.PHONY: run test docs lint clean

run: $(VENV)/.run
	@echo "== Real logs: 10,000 decisions of a random policy of a fashion shop (Open Bandit)"
	$(BIN)/surpass improve open-bandit:random/men --out reports/open-bandit --overwrite
	@echo "== Digits as logged decisions, where the truth is known"
	$(BIN)/surpass improve digits --out reports/digits --overwrite
	@echo "== Reports: reports/open-bandit/report.html and reports/digits/report.html"

test: $(VENV)/.dev
	@echo "== Running the tests"
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	$(BIN)/lint-imports

docs: $(VENV)/.dev
	$(BIN)/mkdocs build --strict --quiet

# torch first: a CPU machine then keeps the CPU build, whatever the other packages ask for.
$(VENV)/.torch:
	@echo "== Making the virtual environment $(VENV) with $(TORCH) (several minutes on the first run)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) --upgrade pip
	$(PIP) $(TORCH)
	@touch $@

$(VENV)/.run: $(VENV)/.torch pyproject.toml
	@echo "== Installing surpass[serve] and the Open Bandit sample"
	$(PIP) --editable '.[serve]'
	$(PIP) --no-deps obp==0.4.1
	@touch $@

$(VENV)/.dev: $(VENV)/.torch pyproject.toml
	@echo "== Installing surpass[dev]"
	$(PIP) --editable '.[dev]'
	$(PIP) --no-deps obp==0.4.1
	@touch $@

clean:
	rm -rf $(VENV) reports site
