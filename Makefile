# `make demo` and `make test` set up everything they need; the second time that is quick.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

CACHE := $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/pulumi-keystore
UV_VERSION := 0.13.9
UV := $(CACHE)/uv-$(UV_VERSION)/bin/uv
PYTHON := .venv/bin/python
# Hundreds of processes are started: none shall compile again what another one has compiled.
unexport PYTHONDONTWRITEBYTECODE
ENGINE = export PULUMI_ENGINE="$$($(PYTHON) engine/obtain.py)"

.PHONY: help setup demo quick test coverage pythons torture mutants lint format bench docs site clean

help: ## Show what there is.
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /  make \1\t/' | expand -t 18

$(UV):
	@echo "setup: getting uv $(UV_VERSION) ..."
	@rm -rf $(CACHE)/uv-$(UV_VERSION); mkdir -p $(CACHE)
	@python3 -m venv $(CACHE)/uv-$(UV_VERSION) >/dev/null 2>&1 \
	  || { rm -rf $(CACHE)/uv-$(UV_VERSION); \
	       { [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null \
	         && apt-get -qq update && apt-get -qq install -y python3-venv >/dev/null; } \
	       && python3 -m venv $(CACHE)/uv-$(UV_VERSION); } \
	  || { echo "setup: python3 -m venv does not work: install python3-venv (Debian) and run this again" >&2; exit 1; }
	@$(CACHE)/uv-$(UV_VERSION)/bin/pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

.venv/.ready: uv.lock pyproject.toml harness/pyproject.toml $(UV)
	@echo "setup: installing Python packages ..."
	@$(UV) sync --frozen --quiet --system-certs --compile-bytecode
	@touch $@

setup: .venv/.ready ## Install Python packages and find or build the Pulumi engine.
	@$(PYTHON) engine/obtain.py >/dev/null

demo: .venv/.ready ## Show everything on two real Vault servers; KEEP=1 leaves it running.
	@$(ENGINE); $(PYTHON) -m demo $(if $(KEEP),--keep)

# What needs no server; T=migration for the tests of one domain.
quick: .venv/.ready lint ## Check style, types, and all that needs no server: a minute; T=migration for one domain.
	@QUICK=1 $(PYTHON) -m pytest --quiet -n 2 --dist worksteal $(wildcard tests/unit/$(T) tests/database/$(T))

# Most tests wait for servers: half of them run beside the others; both halves take as long. (A third one beside them
# makes all of them slower: two cores are busy then.) Those in which a moment counts are in the half that comes first
# where both want the processor. Branch coverage is that of the tests that need no server; `make coverage` measures it
# for all of them.
PUNCTUAL := tests/health/test_monitor.py
HALF := $(addprefix tests/,harness torture safety packaging policies)
WITHIN := $(addprefix tests/,unit contract database)
OTHERS := $(addprefix tests/,browser integration outage stacks health) --ignore=$(PUNCTUAL)

test: .venv/.ready lint ## Run every check and test.
	@$(ENGINE); export UV=$(UV); \
	if [ -n "$(PYTEST)" ]; then exec $(PYTHON) -m pytest $(PYTEST); fi; \
	log=$$(mktemp); beside=; failed=; trap 'rm -f $$log; [ -z "$$beside" ] || kill $$beside 2>/dev/null || true' EXIT; \
	$(PYTHON) -m pytest $(HALF) $(PUNCTUAL) >$$log 2>&1 & beside=$$!; \
	nice $(PYTHON) -m coverage run -m pytest $(WITHIN) || failed=1; \
	$(PYTHON) -m coverage combine --quiet && $(PYTHON) -m coverage report || failed=1; \
	nice $(PYTHON) -m pytest $(OTHERS) || failed=1; \
	wait $$beside || failed=1; beside=; cat $$log; \
	[ -z "$$failed" ]

coverage: .venv/.ready ## Measure the branch coverage of all tests, and of what they start: an hour or two.
	@$(ENGINE); export UV=$(UV) FORKED=0; $(PYTHON) -m coverage run -m pytest tests; \
	$(PYTHON) -m coverage combine --quiet; $(PYTHON) -m coverage report --fail-under 0

PYTHONS := 3.11 3.12 3.13

pythons: .venv/.ready ## Run what needs no engine, and one migration, on each Python we support.
	@for version in $(PYTHONS); do \
	  echo "Python $$version"; export UV_PROJECT_ENVIRONMENT=.venv-$$version; \
	  $(UV) sync --frozen --quiet --system-certs --compile-bytecode --python $$version; \
	  .venv-$$version/bin/python -m pytest --quiet tests/unit tests/contract tests/database; \
	  .venv-$$version/bin/python -m pytest --quiet tests/integration/test_migration.py -k every_key_moves; \
	done

torture: .venv/.ready ## Let every call fail, kill everything at every moment, and play every scenario: hours.
	@$(ENGINE); TORTURE_WHOLE=1 $(PYTHON) -m pytest -s tests $(PYTEST)

mutants: .venv/.ready ## Put bugs into a copy of the code and see that a test catches each.
	@$(PYTHON) -m tests.torture.mutants --uv $(UV)

# What users read; the pages of docs/ hold the command's help and the texts of rules, policies and routes.
PROSE := README.md CHANGELOG.md CONTRIBUTING.md SECURITY.md docs stacks/README.md $(wildcard stacks/*/README.md) harness/README.md \
  policies/README.md pulumi_keystore/control_plane/console/templates

lint: .venv/.ready ## Check style, types, imports between layers, and the words of what users read.
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check --quiet .
	@.venv/bin/mypy
	@.venv/bin/codespell --dictionary - --dictionary docs/words.txt --skip '*.png,*.py,*/words.txt' $(PROSE)
	@said=$$(.venv/bin/lint-imports --no-cache) || { echo "$$said"; exit 1; }

format: .venv/.ready ## Format the code.
	@.venv/bin/ruff check --fix --quiet . ; .venv/bin/ruff format --quiet .

docs: .venv/.ready ## Write the generated pages of docs/ anew.
	@$(PYTHON) -m docs.generate

site: .venv/.ready ## Build the documentation as a site, in site/.
	@NO_MKDOCS_2_WARNING=1 .venv/bin/mkdocs build --quiet --strict

bench: .venv/.ready ## Measure migrations beside peers and the servers' own limit; BENCH="--help" tells more.
	@UV=$(UV) $(PYTHON) -m bench.migration $(or $(BENCH),--write)

clean: ## Remove what this checkout made; the caches under ~/.cache/pulumi-keystore stay.
	@rm -rf .venv .venv-* .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis
