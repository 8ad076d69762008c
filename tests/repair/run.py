#!/usr/bin/env python3
"""Delivers a package between two network namespaces, stops both daemons, flips one bit of the package where it lies, and
counts on the interface what the next send makes cross: one frame. Then the same with the Distributor's own copy damaged
as well: it has to be made whole again from the source first.

Usage: run.py BINARIES [--bytes N] [--encrypt]    (as root; needs ip, rsync)
"""

import argparse
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import (KIB, MIB, Network, Node, deliveries, digest, flip, make_source, require, same, stopped_at_the_end,
                     wait_until)

FRAME_RAW = 4 * MIB
# Handshake, greetings, statement, receipts, acknowledgements.
TALK = 64 * KIB
# Headers of IP, UDP and QUIC, and tags, in packets of 1,200 to 1,452 bytes; and what is sent twice.
OVERHEAD = 1.10
SOURCE_SIZES = [300 * MIB, 40 * MIB, 9 * MIB, 4 * MIB, *[300_000] * 20]


def send(distributor):
    return deliveries(distributor.json("send", "nightly", "--wait", "--no-build", "--timeout", "600s"))


def round_of(what, network, distributor, subscriber, whole, flips):
    """Both nodes are stopped. Flips bits, starts them, verifies, sends, counts."""
    for node, at in flips:
        flip(node.package(), at)
    reports_before = distributor.log().count("Corrupt")
    distributor.start()
    subscriber.start()
    wait_until("the connection", subscriber.is_connected, 60)
    found = subscriber.run("verify")
    lines = [line for line in found.stdout.splitlines() if "damaged" in line]
    if found.returncode == 0 or not lines:
        raise SystemExit(f"{what}: verify found nothing: {found.stdout}{found.stderr}")
    subscriber.package("distfile.corrupt")
    wait_until("the receipt", lambda: distributor.log().count("Corrupt") > reports_before, 60)
    before, begun = network.received(), time.monotonic()
    rows = send(distributor)
    took = time.monotonic() - begun
    crossed = network.received() - before
    row = rows[0]
    frame = row["done_bytes"]
    print(f"{what}: {lines[0].split(': ', 1)[1]}; {frame} bytes of the package served, {crossed} bytes crossed, {took:.1f} s"
          f"{'; ' + row['note'] if row.get('note') else ''}", flush=True)
    if row["stage"] != "extracted":
        raise SystemExit(f"{what}: {row}")
    if not 0 < frame <= FRAME_RAW + 64 * KIB:
        raise SystemExit(f"{what}: {frame} bytes are not one frame")
    if crossed > frame * OVERHEAD + TALK:
        raise SystemExit(f"{what}: {crossed} bytes crossed for a frame of {frame}")
    for node in (distributor, subscriber):
        if digest(node.package()) != whole:
            raise SystemExit(f"{what}: the package of {node.data} is not as it was signed")
    if subscriber.run("verify").returncode:
        raise SystemExit(f"{what}: verify is not content afterwards")
    subscriber.stop()
    distributor.stop()
    return row


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=1000 * MIB)
    parser.add_argument("--encrypt", action="store_true")
    arguments = parser.parse_args()
    require("ip", "rsync")
    binaries = arguments.binaries.resolve()
    with tempfile.TemporaryDirectory(prefix="ted-repair-") as folder, Network("repair", "10.78.0") as network:
        work = pathlib.Path(folder)
        make_source(work / "source", arguments.bytes, SOURCE_SIZES)
        target = work / "target"
        distributor = Node(binaries / "ted-distributor", work / "d", network.a)
        subscriber = Node(binaries / "ted-subscriber", work / "s", network.b)
        with stopped_at_the_end(subscriber, distributor):
            listen = f"{network.addresses[0]}:1229"
            distributor.cli("init", "--name", "dist.example", "--listen", listen, "--advertise", listen)
            distributor.start()
            more = ["--encrypt"] if arguments.encrypt else []
            distributor.cli("distribution", "create", "site", "--source", work / "source", *more)
            distributor.cli("channel", "create", "nightly", "--distribution", "site")
            distributor.cli("invite", "shop.example", "--channel", "nightly", "--output", work / "invite")
            subscriber.cli("join", work / "invite", "--target", f"site={target}")
            package = distributor.json("distribution", "build", "site")["revision"]["package_bytes"]
            subscriber.start()
            wait_until("the connection", subscriber.is_connected, 60)
            before, begun = network.received(), time.monotonic()
            send(distributor)
            print(f"first delivery: package {package}, {network.received() - before} bytes crossed, "
                  f"{time.monotonic() - begun:.1f} s", flush=True)
            if not same(work / "source", target):
                raise SystemExit("the target differs from the source")
            subscriber.stop()
            distributor.stop()
            whole = digest(distributor.package())
            at = package // 2 + 12_345
            round_of("one bit at the Subscriber", network, distributor, subscriber, whole, [(subscriber, at)])
            row = round_of("one bit at each", network, distributor, subscriber, whole,
                           [(subscriber, at), (distributor, at + 77)])
            if "TED-1846" not in (row.get("note") or ""):
                raise SystemExit(f"the repair is not told: {row}")
            if not same(work / "source", target):
                raise SystemExit("the target differs from the source")
    print("each time one frame crossed, and all copies are as they were signed")


if __name__ == "__main__":
    sys.exit(main())
