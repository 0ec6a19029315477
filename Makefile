# Short names for what one does with kiln. Cargo knows what to build; make only calls it.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help

export PATH := $(PATH):/usr/sbin:/sbin:$(or $(CARGO_HOME),$(HOME)/.cargo)/bin

TARGET := $(abspath $(or $(CARGO_TARGET_DIR),target))
KILN := $(TARGET)/release/kiln
IMAGE := debian/bookworm

# Where the tests find their images; not the user's own. Kept as long as scripts/test-images says.
export KILN_TEST_IMAGES ?= $(TARGET)/images

# Where packages for images come from; empty: this host's own apt configuration.
export KILN_MIRROR ?=

# Seconds for each fuzzer.
FUZZ_SECONDS ?= 60

prefix ?= /usr/local
bindir ?= $(prefix)/bin
mandir ?= $(prefix)/share/man
datadir ?= $(prefix)/share

.PHONY: help build demo serve ready test check playbooks deploy-test fmt clippy deny doc shell bench bench-start bench-density bench-guests chaos chaos-broken sim soak fuzz man install clean

help: ## say what there is to make
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

build: ## build target/release/kiln
	@scripts/setup build
	cargo build --release --locked

demo: ## install what is missing, build kiln and an image, run a farm: submit examples/hello.yml, follow it, fetch what it made
	@$(MAKE) ready
	@TIMEFORMAT='demo: a server, a job and its artifact took %0R s, all included'; time scripts/demo $(KILN)

serve: ## the same farm, left running at KILN_LISTEN (127.0.0.1:8080) until Ctrl-C; its files are in KILN_DEMO_DIR
	@$(MAKE) ready
	@KILN_DEMO_DIR=$${KILN_DEMO_DIR:-$${XDG_DATA_HOME:-$$HOME/.local/share}/kiln/demo} scripts/demo $(KILN) serve

ready:
	@scripts/setup build run images
	cargo build --release --locked
	$(KILN) image build --if-missing $${KILN_MIRROR:+--mirror "$$KILN_MIRROR"} $(IMAGE)

test: ## install what is missing, build an image for tests, run all tests, also in real guests
	@scripts/setup build run images tests
	cargo build --workspace --all-features --locked
	@scripts/test-images $(TARGET)/debug/kiln $(KILN_TEST_IMAGES)
	cargo test --workspace --all-features --locked --no-fail-fast 2>&1 | scripts/count-tests

check: fmt clippy deny doc shell playbooks ## formatting, lints, dependencies, documents, shell scripts

fmt: ## is the code formatted?
	cargo fmt --all --check

clippy: ## lints, with warnings denied
	cargo clippy --workspace --all-targets --all-features --locked -- -D warnings

deny: ## are the dependencies what deny.toml wants?
	@scripts/setup build ci
	cargo deny --locked check bans licenses sources
	@if timeout 120 cargo deny --locked fetch db >/dev/null 2>&1 </dev/null; then \
		cargo deny --locked check advisories; \
	else \
		echo 'deny: advisories are NOT checked: their database cannot be fetched from here'; \
	fi

doc: ## does the documentation build without warnings?
	RUSTDOCFLAGS='-D warnings -A rustdoc::private-intra-doc-links' cargo doc --workspace --all-features --no-deps --document-private-items --locked

shell: ## shellcheck of the scripts, and whether Perl reads the guest's helper
	shellcheck scripts/* deploy/backup deploy/ca deploy/kiln-admin deploy/restore crates/kiln/tests/chaos/broken/run .ci/run fuzz/run
	shellcheck --exclude=SC1091,SC2034,SC2154 images/debian/genimg images/debian/guest-[dis]* images/debian/*/genimg
	perl -cw images/debian/guest-agent

# BENCH_DIR: where the JSON goes; cargo runs benchmarks in the crate's directory.
bench: ## what the farm takes and how soon: tables, and JSON beside them; one of them with BENCH=logs
	@scripts/setup build tests
	BENCH_DIR=$(CURDIR) cargo bench --locked -p kiln --features testing --bench farm -- $(BENCH)

playbooks: ## does Ansible read the playbooks of deploy/ansible?
	@bin=$$(scripts/ansible $(TARGET)/deploy); export ANSIBLE_CONFIG=deploy/ansible/ansible.cfg ANSIBLE_HOME=$(TARGET)/deploy/home; \
	for play in site upgrade backup; do \
		$$bin/ansible-playbook -i deploy/ansible/inventory.example.yml --syntax-check deploy/ansible/$$play.yml >/dev/null; \
	done

deploy-test: ## the playbook on three guests of kiln's own, twice; jobs through that farm (DEPLOY_JOB=no: without), a copy, an upgrade; KILN=FILE: that kiln
	@scripts/setup build run images tests
	$(if $(filter command,$(origin KILN)),,cargo build --release --locked)
	@scripts/test-images $(KILN) $(KILN_TEST_IMAGES)
	scripts/deploy-test $(KILN) $(KILN_TEST_IMAGES) $(TARGET)/deploy

bench-start: ## how long to the first task's output, by the seed's way and by all of ours (BENCH_ROUNDS)
	@$(MAKE) bench-guests BENCH=start

bench-density: ## what guests cost: memory, disk, many at once, the jail, the network's path
	@$(MAKE) bench-guests BENCH=density

bench-guests:
	@scripts/setup build run images tests
	cargo build --release --locked
	@scripts/test-images $(KILN) $(KILN_TEST_IMAGES)
	BENCH_DIR=$(CURDIR) cargo bench --locked -p kiln --bench guests -- $(BENCH)

soak: ## start and end a thousand guests, and a hundred in tens; nothing may grow (SOAK_GUESTS, SOAK_PARALLEL)
	@scripts/setup build run images tests
	cargo build --release --locked
	@scripts/test-images $(KILN) $(KILN_TEST_IMAGES)
	SOAK_GUESTS=$${SOAK_GUESTS:-1000} SOAK_PARALLEL=$${SOAK_PARALLEL:-100} \
		cargo test --release --locked -p kiln --test soak -- --nocapture

chaos: ## a farm under faults: 10 seeds, 20,000 jobs, 500 faults; what it promised is checked (CHAOS_SEED, CHAOS_SEEDS, CHAOS_JOBS, CHAOS_FAULTS)
	@scripts/setup build run tests
	CHAOS_SEEDS=$${CHAOS_SEEDS:-10} CHAOS_JOBS=$${CHAOS_JOBS:-2000} CHAOS_FAULTS=$${CHAOS_FAULTS:-50} \
		CHAOS_SECONDS=$${CHAOS_SECONDS:-240} CHAOS_OWNERS=$${CHAOS_OWNERS:-40} \
		cargo test --release --locked -p kiln --features testing --test chaos

chaos-broken: ## break one promise of the farm after the other on purpose, in a copy, and see that `make chaos` finds it
	@scripts/setup build run tests
	crates/kiln/tests/chaos/broken/run

sim: ## farms under a simulated clock: 10,000 seeds, each its jobs and faults; what they promise is checked (SIM_SEED, SIM_SEEDS)
	@scripts/setup build
	SIM_SEEDS=$${SIM_SEEDS:-10000} cargo test --release --locked -p kiln-core --features testing --test sim -- whatever --nocapture

fuzz: ## run each fuzzer for FUZZ_SECONDS: manifests, sources, packed logs, the bytes of guests, QEMU and images
	@scripts/setup build fuzz
	fuzz/run $(FUZZ_SECONDS)

man: build ## write the man pages into docs/man
	$(KILN) man docs/man

install: build ## install the binary, man pages and completions below prefix
	install -D -m 755 $(KILN) $(DESTDIR)$(bindir)/kiln
	install -d $(DESTDIR)$(mandir)/man1 $(DESTDIR)$(datadir)/bash-completion/completions \
		$(DESTDIR)$(datadir)/zsh/site-functions $(DESTDIR)$(datadir)/fish/vendor_completions.d
	$(KILN) man $(DESTDIR)$(mandir)/man1
	$(KILN) completions bash >$(DESTDIR)$(datadir)/bash-completion/completions/kiln
	$(KILN) completions zsh >$(DESTDIR)$(datadir)/zsh/site-functions/_kiln
	$(KILN) completions fish >$(DESTDIR)$(datadir)/fish/vendor_completions.d/kiln.fish

clean: ## remove what was built, the tests' images too
	cargo clean
	rm -rf fuzz/target
