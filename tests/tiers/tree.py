#!/usr/bin/env python3
"""A tree of 1 -> 3 -> 15 -> 75 nodes below each other: a Distributor, three parents, five children of each, five of each
of these. Every node has a network namespace of its own and reaches its parent and its children alone; every node joins
with nothing but its invite. One firing; every node extracts. Then what crossed each link, as the kernel counts it:
the Distributor sends the package three times, each parent as many times as it has children, within 2 %.

Usage: tree.py BINARIES [--bytes N] [--widths 3,5,5] [--work DIR]    (as root; needs ip, tc, rsync)
"""

import argparse
import pathlib
import tempfile
import time

from fleet import DISTRIBUTOR, MIB, Fleet, mib
from harness import make_source, require, same

# Headers of UDP and IP on the interface, those of QUIC, acknowledgements, statements, receipts, the next node's presence.
OVERHEAD_OF_PACKAGE, OVERHEAD_BYTES = 0.04, 512 * 1024
# How near it has to come with QUIC's headers taken off.
EXACT = 0.02


def shape(widths):
    routes, tier = {}, [None]
    for depth, width in enumerate(widths, start=1):
        below = []
        for parent in tier:
            for _ in range(width):
                name = f"t{depth}-{len(below) + 1}"
                routes[name] = [parent]
                below.append(name)
        tier = below
    return routes


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=33 * MIB)
    parser.add_argument("--widths", default="3,5,5")
    parser.add_argument("--work", type=pathlib.Path, help="the folder to work in; needs twice the package for each node")
    arguments = parser.parse_args()
    require("ip", "tc", "rsync")
    widths = [int(width) for width in arguments.widths.split(",")]
    with tempfile.TemporaryDirectory(prefix="ted-tree-", dir=arguments.work) as folder:
        work = pathlib.Path(folder)
        make_source(work / "source", arguments.bytes)
        # So many processes on few processors: none needs threads for each.
        environment = {"TED_PARALLELISM": "1", "TOKIO_WORKER_THREADS": "1"}
        with Fleet("tree", arguments.binaries, work / "fleet", shape(widths), environment=environment) as fleet:
            run(fleet, work / "source", arguments.bytes)


def run(fleet, source, total):
    begun = time.monotonic()
    fleet.start_distributor(source)
    fleet.join_all()
    places = fleet.subscribers()
    print(f"{len(places)} nodes joined in {time.monotonic() - begun:.0f} s, each with its invite alone", flush=True)
    package = fleet.build()
    if package < total:
        raise SystemExit(f"a package of {package} bytes from {total}")
    before = fleet.all_sent()
    rows, took = fleet.send(timeout="1200s")
    crossed = {link: after - before[link] for link, after in fleet.all_sent().items()}
    extracted = [row for row in rows if row["stage"] == "extracted"]
    print(f"package of {mib(package)}: {len(extracted)} of {len(places)} nodes extracted in {took:.0f} s", flush=True)
    if len(extracted) != len(places):
        raise SystemExit(f"not everywhere: {rows}")
    for place in places:
        if not same(source, fleet.target(place)):
            raise SystemExit(f"the target of {place.name} differs from the source")
    judge(fleet, package, crossed)


def judge(fleet, package, crossed):
    """Each link carried the package once."""
    most = package * (1 + OVERHEAD_OF_PACKAGE) + OVERHEAD_BYTES
    for tier in sorted({place.name[:2] for place in fleet.subscribers()}):
        shares = [sent / package for (_, child), sent in crossed.items() if child.startswith(tier)]
        print(f"to tier {tier[1]}: {len(shares)} links, {min(shares):.3f} to {max(shares):.3f} packages on each", flush=True)
    wrong = {link: sent for link, sent in crossed.items() if not package <= sent <= most}
    if wrong:
        raise SystemExit(f"links that did not carry the package once, {package} bytes: {wrong}")
    # Of each datagram of 1,452 bytes about 35 are QUIC's own.
    def content(sent):
        return (sent - OVERHEAD_BYTES / 8) * (1 - 35 / 1452) / package

    for place in fleet.places.values():
        times = sum(content(sent) for (parent, _), sent in crossed.items() if parent == place.name)
        if abs(times - len(place.children)) > EXACT * len(place.children):
            raise SystemExit(f"{place.name} sent {times:.3f} packages to {len(place.children)} children")
        if place.name == DISTRIBUTOR:
            print(f"QUIC's headers aside, the Distributor sent {times:.3f} packages to {len(place.children)} children")


if __name__ == "__main__":
    main()
