# The two commands of the README are `make demo` and `make test`. Each does all the set-up it needs.

SHELL := /bin/bash
DIST  := target/dist/stillpoint

.DEFAULT_GOAL := help
.PHONY: help demo test bench lint unit suites fuzz-quick fuzz coverage build hooks deny install plugin-package

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: setup-demo hooks build ## A live MariaDB, a real snapshot, a restore, and the proof
	sync # what the build wrote is not to stand in the way of the demo's own disks
	target/release/demo

test: setup-test lint hooks unit fuzz-quick suites ## Everything that must pass before something lands

bench: setup-bench hooks build ## Windows, holds and stalls against the alternatives, in one run
	sync
	target/release/bench

lint: ## Formatting and lints
	cargo fmt --all --check
	cargo clippy --workspace --all-targets -- -D warnings

unit: hooks ## Unit and integration tests of the crates
	cargo build -p stillpoint
	cargo test --workspace --exclude stillpoint-tests --no-run
	sync # what the build wrote is not to stand in the way of the tests' own disks
	cargo test --workspace --exclude stillpoint-tests

suites: hooks ## The main job, faults and bad input, on real servers and file systems
	cargo build -p stillpoint -p embed
	cargo test -p stillpoint-tests --no-run
	sync
	STILLPOINT_BIN=$(CURDIR)/target/debug/stillpoint cargo test -p stillpoint-tests -- --test-threads=1 --nocapture

fuzz-quick: ## Every fuzz target on a fixed number of inputs (a part of make test)
	scripts/fuzz quick

fuzz: ## Every fuzz target for FUZZ_SECONDS (180) each
	scripts/fuzz long

coverage: ## Grant matching and capability checks: every branch both ways (needs rustup's llvm-tools)
	scripts/coverage

build:
	cargo build --release -p stillpoint -p stillpoint-tests --bins

hooks: ## The first-party hooks, as components in target/hooks
	scripts/build-hooks

deny: ## Licences, sources and duplicates of dependencies
	command -v cargo-deny >/dev/null || cargo install --locked cargo-deny
	cargo deny check bans licenses sources

install: hooks ## Into /usr/local
	cargo build --profile dist -p stillpoint
	install -m 755 $(DIST) /usr/local/bin/stillpoint
	install -d /usr/local/share/man/man1 /usr/local/share/stillpoint/hooks
	$(DIST) man >/usr/local/share/man/man1/stillpoint.1
	install -m 644 target/hooks/mysql.wasm /usr/local/share/stillpoint/hooks/

# Another binary may be packed: make plugin-package PLUGIN_BINARY=… (the dist build is not made then).
plugin-package: PLUGIN_BINARY ?= $(DIST)
plugin-package: ## The zip for Alibaba Cloud Assistant's plug-in manager, in target/
	[ "$(PLUGIN_BINARY)" != "$(DIST)" ] || cargo build --profile dist -p stillpoint
	cargo run --quiet -p xtask -- plugin-package $(PLUGIN_BINARY) target/stillpoint-snapshot-plugin.zip

setup-%:
	@scripts/setup $*
