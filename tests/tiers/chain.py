#!/usr/bin/env python3
"""A package through a chain of four tiers, each link limited by a token bucket, against the same package over one hop:
how much longer the last of the chain needs than the only one of the hop. Fails where that is more than 1.15 times.

Usage: chain.py BINARIES [--bytes N] [--rate 160mbit] [--tiers 4] [--work DIR] [--reach 1.15]
       (as root; needs ip, tc, rsync)
"""

import argparse
import pathlib
import tempfile

from fleet import MIB, Fleet, mib
from harness import make_source, require, same


def deliver(arguments, work, what, tiers):
    """Seconds until the last of the chain has received, and until it has extracted."""
    routes = {f"t{tier}": [f"t{tier - 1}" if tier > 1 else None] for tier in range(1, tiers + 1)}
    relays = [name for name in routes if name != f"t{tiers}"]
    times = {}
    for until in ("received", "extracted"):
        with Fleet(f"chain{tiers}", arguments.binaries, work / f"{what}-{until}", routes, relays) as fleet:
            fleet.start_distributor(work / "source")
            fleet.join_all()
            for place in fleet.subscribers():
                fleet.limit(fleet.places[place.parents[0]], place, arguments.rate)
            package = fleet.build()
            _, times[until] = fleet.send(until=until)
            last = fleet[f"t{tiers}"]
            print(f"{tiers} tier{'s' if tiers > 1 else ''}: {mib(package)} {until} in {times[until]:.2f} s, "
                  f"{package / times[until] / 1e6:.1f} MB/s", flush=True)
            if until == "extracted" and not same(work / "source", fleet.target(last)):
                raise SystemExit("the target differs from the source")
    return times


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=200 * 1000 * 1000)
    parser.add_argument("--rate", default="160mbit", help="of every link, each way: 160mbit are 20 MB/s")
    parser.add_argument("--tiers", type=int, default=4)
    parser.add_argument("--reach", type=float, default=1.15)
    parser.add_argument("--work", type=pathlib.Path)
    arguments = parser.parse_args()
    require("ip", "tc", "rsync")
    with tempfile.TemporaryDirectory(prefix="ted-chain-", dir=arguments.work) as folder:
        work = pathlib.Path(folder)
        make_source(work / "source", arguments.bytes)
        one = deliver(arguments, work, "hop", 1)
        chain = deliver(arguments, work, "chain", arguments.tiers)
    ratios = {until: chain[until] / one[until] for until in one}
    told = ", ".join(f"{until} {ratio:.3f}" for until, ratio in ratios.items())
    print(f"a chain of {arguments.tiers} tiers against one hop: {told}")
    if max(ratios.values()) > arguments.reach:
        raise SystemExit(f"more than {arguments.reach}")


if __name__ == "__main__":
    main()
