#!/bin/sh
# Builds the binaries, flips single bits of a package that lies between two network namespaces, and counts what crosses
# until it is whole again. Needs root, ip, rsync, python3.
set -eu
cd "$(dirname "$0")/../.."
cargo build --release --locked -p ted-distributor -p ted-subscriber
exec python3 tests/repair/run.py target/release "$@"
