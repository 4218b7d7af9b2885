# The two commands of the README are `make demo` and `make test`. Each does all the set-up it needs.

SHELL := /bin/bash
DIST  := target/dist/stillpoint

.DEFAULT_GOAL := help
.PHONY: help demo test test-vm bench proof faults kills sweep lint unit suites fuzz-quick fuzz coverage build hooks deny install plugin-package sdk-package

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
	cargo build -p embed
	cargo build -p stillpoint --features failpoints
	cargo test -p stillpoint-tests --no-run
	sync
	RUST_BACKTRACE=0 STILLPOINT_BIN=$(CURDIR)/target/debug/stillpoint \
		cargo test -p stillpoint-tests --no-fail-fast -- --test-threads=1 --nocapture

# FAULTS='--filter btrfs --budget 10' picks some; target/debug/faults --help tells what there is.
faults: setup-test hooks ## The whole fault matrix: a table, and target/faults.json (as root; under 60 minutes)
	cargo build -p stillpoint --features failpoints
	cargo build -p stillpoint-tests --bin faults
	sync
	TMPDIR=$$([ -d /dev/shm ] && echo /dev/shm || echo /tmp) STILLPOINT_BIN=$(CURDIR)/target/debug/stillpoint \
		nice -n -10 target/debug/faults --jobs 2 $(FAULTS)

# PROOF='--rounds 20 --only redis' picks some; target/release/proof --help tells what there is.
proof: setup-proof hooks build ## 200 snapshots each of a busy MariaDB and PostgreSQL, restored and examined
	sync
	TMPDIR=$$([ -d /dev/shm ] && echo /dev/shm || echo /tmp) target/release/proof $(PROOF)

kills: hooks ## 10,000 signals at random moments of runs (docs/sweep.md); goes on where it stopped
	cargo build -p stillpoint -p stillpoint-tests --bins
	STILLPOINT_BIN=$(CURDIR)/target/debug/stillpoint target/debug/sweep kills --log target/kills.jsonl

sweep: hooks ## Every system call of a run fails once, and from then on; btrfs under signals (docs/sweep.md)
	cargo build -p stillpoint -p stillpoint-tests --bins
	STILLPOINT_BIN=$(CURDIR)/target/debug/stillpoint target/debug/sweep btrfs
	STILLPOINT_BIN=$(CURDIR)/target/debug/stillpoint target/debug/sweep calls

fuzz-quick: ## Every fuzz target on a fixed number of inputs (a part of make test)
	scripts/fuzz quick

fuzz: ## Every fuzz target for FUZZ_SECONDS (180) each
	scripts/fuzz long

test-vm: ## systemd, frozen root, LVM, stuck and failing disks, power cuts: in a virtual machine of its own
	scripts/test-vm $(TESTS)

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
	install -m 644 $(patsubst hooks/%/,target/hooks/%.wasm,$(wildcard hooks/*/)) /usr/local/share/stillpoint/hooks/
	install -d /usr/local/lib/systemd/system
	install -m 644 packaging/systemd/* /usr/local/lib/systemd/system/

# Another binary may be packed: make plugin-package PLUGIN_BINARY=… (the dist build is not made then).
plugin-package: PLUGIN_BINARY ?= $(DIST)
plugin-package: ## The zip for Alibaba Cloud Assistant's plug-in manager, in target/
	[ "$(PLUGIN_BINARY)" != "$(DIST)" ] || cargo build --profile dist -p stillpoint
	cargo run --quiet -p xtask -- plugin-package $(PLUGIN_BINARY) target/stillpoint-snapshot-plugin.zip

sdk-package: ## The Rust SDK as a registry would take it: packed, unpacked, built
	cargo package -p stillpoint-hook
	cargo doc -p stillpoint-hook --no-deps

setup-%:
	@scripts/setup $*
