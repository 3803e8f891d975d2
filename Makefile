# What a user and a developer of the template type. Needs Python >= 3.11, git and make; uv is used when it
# is there, and installed into .venv when not.
# Python that writes no bytecode starts Copier three times slower
unexport PYTHONDONTWRITEBYTECODE
unexport VIRTUAL_ENV
unexport UV_PROJECT_ENVIRONMENT
export PATH := $(CURDIR)/.venv/bin:$(PATH)

PYTHON ?= python3
ONLY ?=
DEMO := build/demo
# So that the demo also works where git knows no name yet
GIT := git -c user.name=demo -c user.email=demo@localhost -c commit.gpgsign=false

.PHONY: help demo test fast machinery slow mutants bench bench-columns bench-serving bench-monitoring bench-tables bench-texts bench-images bench-networks bench-anomalies bench-imbalance bench-tune bench-cluster bench-oversight bench-ranking bench-forecasting bench-labelling bench-reservoir bench-rules updates sync docs example newest bump lint format clean
.DEFAULT_GOAL := help

help:  ## Show this
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' $(MAKEFILE_LIST)

demo: .venv/.demo  ## Generate the default project into build/demo and run it on its sample
	@rm -rf $(DEMO)
	@echo "1/3 generate $(DEMO)"
	@copier copy --quiet --defaults --vcs-ref HEAD "$(CURDIR)" $(DEMO)
	@git -C $(DEMO) init --quiet --initial-branch main
	@echo "2/3 install what it needs"
	@cd $(DEMO) && uv sync --quiet
	@$(GIT) -C $(DEMO) add . && $(GIT) -C $(DEMO) commit --quiet --message "Generate the project"
	@echo "3/3 run it: uv run my-model run"
	@cd $(DEMO) && uv run --quiet my-model run
	@echo
	@echo "Look into $(DEMO): README.md, docs/design/, reports/model_card.md, reports/plots/, models/model.onnx"
	@echo "On your own data: cd $(DEMO) && uv run my-model adopt FILE --label COLUMN"

test: fast machinery slow  ## Run all tests

fast: .venv/.dev  ## Render the template in many ways and check what comes out (under a minute)
	pytest -q -n 2 tests/fast

machinery: .venv/.dev .venv/.system  ## Run the machinery's tests for one type of problem by turns, EVERY=1 for each; ONLY="serving/test_rows.py -k gap" runs some for each
	python -m tests.machinery $(ONLY)

slow: .venv/.dev .venv/.system  ## Install, run, test and adopt generated projects, as their users do
	pytest -q -n 2 --dist loadfile --no-loadscope-reorder --durations 20 tests/slow

mutants: .venv/.dev  ## Put careless mistakes into a project and see which its tests notice; ONLY=monitoring for some, ONLY=--resume to go on
	python scripts/mutants.py $(ONLY)

bench: .venv/.dev  ## Measure the figures of docs/figures.md; ONLY=render,adopt for some
	python benchmarks/spine.py $(if $(ONLY),--only $(ONLY))

bench-labelling: .venv/.dev  ## Measure what is made of people's labels: votes, wrong ones, the queue; ONLY=votes for some
	python benchmarks/labelling.py $(if $(ONLY),--only $(ONLY))

updates: .venv/.dev  ## Measure what updating a project costs, and that both doors are equal
	python benchmarks/updates.py

bench-columns: .venv/.dev  ## Measure what adopt takes columns for; DATA=folder for other tables
	python benchmarks/columns.py $(DATA)

bench-serving: .venv/.dev  ## Measure what is served against its peers; ONLY=score for some
	python benchmarks/serving.py $(if $(ONLY),--only $(ONLY))

bench-monitoring: .venv/.dev  ## Measure the monitor against its peers; ONLY=speed for some
	python benchmarks/monitoring.py $(if $(ONLY),--only $(ONLY))

bench-tables: .venv/.dev  ## Measure the models on public tables against ten lines; ONLY=bikes,hog for some
	python benchmarks/tables.py $(if $(ONLY),--only $(ONLY))

bench-texts: .venv/.dev  ## Measure free texts against scikit-learn's TfidfVectorizer; ONLY=news for some
	python benchmarks/texts.py $(if $(ONLY),--only $(ONLY))

bench-images: .venv/.dev  ## Measure images against scikit-learn on raw pixels
	python benchmarks/images.py

bench-networks: .venv/.dev  ## Measure a trained network against patches on made surfaces with defects
	python benchmarks/networks.py

bench-anomalies: .venv/.dev  ## Measure what is odd against scikit-learn's IsolationForest
	python benchmarks/anomalies.py

bench-imbalance: .venv/.dev  ## Measure class weights, resampling and focal loss on public tables with a rare yes; ONLY=caravan for some
	python benchmarks/imbalance.py $(if $(ONLY),--only $(ONLY))

bench-tune: .venv/.dev  ## Measure 60 seconds of tuning on three public tables, tuned against untuned; ONLY=caravan for some, ALL=1 for all candidates
	python benchmarks/tuning.py $(if $(ONLY),--only $(ONLY)) $(if $(ALL),--all)

bench-cluster: .venv/.dev  ## Measure two workers of a Ray cluster against one process, scoring and training; ONLY=score for some
	python benchmarks/cluster.py $(if $(ONLY),--only $(ONLY))

bench-oversight: .venv/.dev  ## Measure how soon every worker obeys a stop under load
	python benchmarks/oversight.py

bench-rules: .venv/.dev  ## Measure labels by rule against some hundred labels alone; ONLY=binary for some
	python benchmarks/rules.py $(if $(ONLY),--only $(ONLY))

bench-ranking: .venv/.dev  ## Measure the order of lists against LightGBM's own ranker and the truth; ONLY=bias for some
	python benchmarks/ranking.py $(if $(ONLY),--only $(ONLY))

bench-forecasting: .venv/.dev  ## Measure forecasts of public monthly series against statsforecast's AutoETS and AutoTheta; ONLY=served for some
	python benchmarks/forecasting.py $(if $(ONLY),--only $(ONLY))

bench-reservoir: .venv/.dev  ## Measure a reservoir over a stream of ten million rows against a plain read
	python benchmarks/reservoir.py

sync: .venv/.dev  ## Write cookiecutter.json and the generated pages of docs/ anew, and the dashboard
	python scripts/questions.py
	python scripts/door.py
	python scripts/dashboard.py
	python scripts/example.py
	python scripts/reference.py

docs: .venv/.docs  ## Build the site into build/site; a broken link is an error
	zensical build --strict --clean

example: .venv/.dev  ## Run the example of the site anew, for its figures and pictures
	python scripts/example.py --run

newest: .venv/.demo  ## Report whether the template works with what was released today
	@python scripts/newest.py

bump: .venv/.demo  ## Move the pins inside the template, and its date, to the newest
	@python scripts/bump.py

lint: .venv/.dev  ## Check the template's own Python, and the spelling of all
	ruff check .
	ruff format --check .
	codespell

format: .venv/.dev  ## Let ruff mend what it can
	ruff check --fix .
	ruff format .

clean:  ## Remove what was built
	rm -rf .venv build

# The tools of one dependency group of pyproject.toml; the mark is as old as the file that it was made from
.venv/.%: pyproject.toml scripts/bootstrap.py
	@test -x .venv/bin/python || $(PYTHON) scripts/bootstrap.py .venv
	@uv pip install --quiet --python .venv --group $*
	@touch $@

# What the slow tests and the figures take from Debian: a load tool, a browser, Prometheus, a proxy
.venv/.system: Makefile
	@command -v wrk chromium promtool caddy >/dev/null || { apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends wrk chromium prometheus caddy >/dev/null; }
	@touch $@
