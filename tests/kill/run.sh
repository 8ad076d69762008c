#!/bin/sh
# Builds the binaries and kills them over a slow link between two network namespaces. Needs root, ip, tc, rsync, python3.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --locked -p ted-distributor -p ted-subscriber
exec python3 tests/kill/run.py target/release "$@"
