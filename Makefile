# The five commands that people use.
.PHONY: install test quick lint run

install:            ## everything for development, in the active environment
	pip install -c constraints.txt -e '.[dev]' && pre-commit install

test:               ## all tests
	pytest -n 2 --dist loadfile

quick:              ## tests without whole runs and browsers
	pytest -m "not slow and not browser"

lint:               ## lint, format check, types
	ruff check . && ruff format --check . && pyright

run:                ## the quickstart
	curate run configs/quickstart.yaml
