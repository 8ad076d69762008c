# What is run by hand and by CI alike.

CARGO ?= cargo

.PHONY: all check fmt clippy deny doc test mutants kill-test repair-test update-bytes tiers-test tiers-quick \
	networks-test chain-test bad-frame-test blind-test bench fleet-load

all: check test

check: fmt clippy deny doc

fmt:
	$(CARGO) fmt --all --check

clippy:
	$(CARGO) clippy --workspace --all-targets -- -D warnings

# Duplicate versions are worth knowing, not worth stopping for: `cargo deny check bans` lists them.
deny:
	$(CARGO) deny --log-level error check bans licenses sources

doc:
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --workspace --no-deps

# The command that README gives to everybody.
test:
	$(CARGO) test

# Takes guards out one at a time; a test has to notice each.
mutants:
	sh tests/mutants.sh

# Kills real daemons over a slow link between two network namespaces. Needs root.
kill-test:
	sh tests/kill/run.sh

# Flips single bits of a 1 GB package where it lies, and counts on an interface what mending it makes cross. Needs root.
repair-test:
	sh tests/repair/run.sh

# Counts what updates between adjacent releases make cross, beside rsync, xdelta3 and zstd. CORPORA holds NAME/VERSION/…,
# OPTIONS are those of tests/update_bytes/run.py. Needs root.
update-bytes:
	sh tests/update_bytes/run.sh $(CORPORA) $(OPTIONS)

# A tree of 1 -> 3 -> 15 -> 75 nodes, each in a network namespace of its own: one firing, every link crossed once. Needs root.
tiers-test:
	sh tests/tiers/run.sh tree $(OPTIONS)

# The same, and what is bad or blind at tier 1: about two minutes, what CI runs. Needs root.
tiers-quick: tiers-test
	sh tests/tiers/run.sh bad_frame --bytes 25165824
	sh tests/tiers/run.sh blind --bytes 25165824

# Links that lose packets, are limited and cut; parents that are killed, replaced and revoked. Needs root.
networks-test:
	sh tests/tiers/run.sh networks $(OPTIONS)

# Four tiers at 20 MB/s a link against one hop, measured with optimised binaries. Needs root.
chain-test:
	PROFILE=release sh tests/tiers/run.sh chain $(OPTIONS)

# A bad frame at tier 1, at rest and on arrival, goes no further. Needs root.
bad-frame-test:
	sh tests/tiers/run.sh bad_frame $(OPTIONS)

# What a parent that only passes on learns of an encrypted Distribution: nothing, on disk and in memory. Needs root.
blind-test:
	sh tests/tiers/run.sh blind $(OPTIONS)

bench:
	$(CARGO) bench --bench transfer --bench delta_memory

# Connects thousands of Subscribers to one built Distributor, beside bare quinn. Needs root, for an interface with packets
# of 1,500 bytes, and about 1 GiB of memory. OPTIONS are those of benches/fleet_load/main.rs.
fleet-load:
	$(CARGO) build --release -p ted-distributor
	$(CARGO) bench --no-run --bench fleet_load
	unshare --net sh -c 'ip link set lo mtu 1500 up && exec "$$0" "$$@"' \
		$(CARGO) bench --bench fleet_load -- --subscribers 10000 --channels 1000 $(OPTIONS)
