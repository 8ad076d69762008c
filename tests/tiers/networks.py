#!/usr/bin/env python3
"""Deliveries through a parent over links with token-bucket rates, where packets are lost, links are cut, and parents
are killed, replaced and revoked.

Usage: networks.py BINARIES [--bytes N] [--only NAME] [--rate 100mbit] [--work DIR]    (as root; needs ip, tc, nft, rsync)
"""

import argparse
import pathlib
import tempfile
import time

from fleet import DISTRIBUTOR, MIB, Fleet, mib
from harness import make_source, require, same, wait_until

# Headers, tags, acknowledgements and what is sent twice, per byte of a package.
OVERHEAD = 1.10
# What a receiver may have to fetch again: what was not synced, a frame in the making, what was under way.
AGAIN = 16 * MIB + 8 * MIB + 16 * MIB


class Case:
    def __init__(self, arguments, work, name, routes, relays=(), rate=True):
        self.source = work / "source"
        self.fleet = Fleet(f"net-{name}"[:11], arguments.binaries, work / name, routes, relays)
        self.rate = arguments.rate if rate else None

    def __enter__(self):
        fleet = self.fleet.__enter__()
        fleet.start_distributor(self.source)
        fleet.join_all()
        for place in fleet.subscribers():
            for parent in place.parents:
                if self.rate:
                    fleet.limit(fleet.places[parent], place, self.rate)
        return fleet

    def __exit__(self, *failure):
        self.fleet.__exit__(*failure)


def demand_all(fleet, rows, source):
    wrong = [row for row in rows if row["stage"] != "extracted"]
    if wrong:
        raise SystemExit(f"not extracted: {wrong}")
    for place in fleet.recipients():
        if not same(source, fleet.target(place)):
            raise SystemExit(f"the target of {place.name} differs from the source")


def demand_soon(fleet, source, seconds=300):
    places = fleet.recipients()
    wait_until("every target", lambda: all(same(source, fleet.target(place)) for place in places), seconds, pause=0.5)


def demand_once(fleet, before, package, links, again=0):
    for parent, child in links:
        sent = fleet.sent(parent, child) - before[parent.name, child.name]
        if sent > package * OVERHEAD + again + 512 * 1024:
            raise SystemExit(f"{sent} bytes went from {parent.name} to {child.name}, for a package of {package}")
        print(f"    {parent.short} -> {child.short}: {sent / package:.2f} packages")


def wait_sent(fleet, parent, child, before, count):
    told = f"{mib(count)} from {parent.short} to {child.short}"
    wait_until(told, lambda: fleet.sent(parent, child) - before[parent.name, child.name] >= count, 180)


def loss(arguments, work):
    """One packet of a hundred is lost on each link, both ways."""
    routes = {"p1": [None], "s1": ["p1"], "s2": ["p1"]}
    with Case(arguments, work, "loss", routes) as fleet:
        package, root = fleet.build(), fleet["dist"]
        for parent, child in ((root, fleet["p1"]), (fleet["p1"], fleet["s1"]), (fleet["p1"], fleet["s2"])):
            fleet.lose(parent, child, 10)
        before = fleet.all_sent()
        rows, took = fleet.send()
        demand_all(fleet, rows, work / "source")
        print(f"  delivered at 1 % loss in {took:.1f} s, {fleet.lost_packets()} packets were lost")
        demand_once(fleet, before, package, [(root, fleet["p1"]), (fleet["p1"], fleet["s1"])], again=package // 10)


def cut(arguments, work):
    """The link between the Distributor and a parent is cut in the middle of a transfer, and joined again."""
    with Case(arguments, work, "cut", {"p1": [None], "s1": ["p1"]}) as fleet:
        package, root, parent = fleet.build(), fleet["dist"], fleet["p1"]
        before = fleet.all_sent()
        fleet.start_sending()
        wait_sent(fleet, root, parent, before, package * 0.4)
        fleet.cut(root, parent)
        time.sleep(arguments.cut_seconds)
        fleet.mend(root, parent)
        begun = time.monotonic()
        demand_soon(fleet, work / "source")
        print(f"  cut for {arguments.cut_seconds} s; delivered {time.monotonic() - begun:.1f} s after it was mended")
        demand_once(fleet, before, package, [(root, parent), (parent, fleet["s1"])], again=AGAIN)


def killed(arguments, work):
    """A parent is killed with -9 in the middle of a transfer, and started again."""
    with Case(arguments, work, "kill", {"p1": [None], "s1": ["p1"], "s2": ["p1"]}, relays=["p1"]) as fleet:
        package, root, parent = fleet.build(), fleet["dist"], fleet["p1"]
        before = fleet.all_sent()
        fleet.start_sending()
        wait_sent(fleet, root, parent, before, package * 0.5)
        parent.node.kill()
        time.sleep(2)
        parent.node.start()
        begun = time.monotonic()
        demand_soon(fleet, work / "source")
        print(f"  delivered {time.monotonic() - begun:.1f} s after the parent was started again")
        demand_once(fleet, before, package, [(root, parent), (parent, fleet["s1"])], again=AGAIN)


def replaced(arguments, work):
    """A parent is gone for good; its child goes to the other one that its route names, and goes on with what it has.
    Then the operator replaces it in the route."""
    routes = {"p1": [None], "p2": [None], "s1": ["p1", "p2"]}
    with Case(arguments, work, "repl", routes, relays=["p1", "p2"]) as fleet:
        package, first, second, child = fleet.build(), fleet["p1"], fleet["p2"], fleet["s1"]
        before = fleet.all_sent()
        fleet.start_sending()
        wait_sent(fleet, first, child, before, package * 0.5)
        first.node.kill()
        begun = time.monotonic()
        had = fleet.sent(first, child) - before[first.name, child.name]
        demand_soon(fleet, work / "source")
        print(f"  delivered {time.monotonic() - begun:.1f} s after the first parent was gone")
        sent = fleet.sent(second, child) - before[second.name, child.name]
        print(f"    p1 -> s1: {had / package:.2f} packages, then p2 -> s1: {sent / package:.2f}")
        if sent > (package - had / OVERHEAD) * OVERHEAD + AGAIN:
            raise SystemExit(f"{sent} bytes came from the second parent, {had} of {package} were there")
        fleet.distributor.cli("subscriber", "update", child.name, "--parent", second.name)
        (work / "source" / "another").write_bytes(b"more" * 1000)
        fleet.build()
        rows, _ = fleet.send()
        demand_all(fleet, rows, work / "source")
        (work / "source" / "another").unlink()
        print("  and the next revision came through the parent that replaced it")


def revoked(arguments, work):
    """A revoked parent is cut off within a second and gets nothing any more; its child goes to the other one."""
    routes = {"p1": [None], "p2": [None], "s1": ["p1", "p2"]}
    with Case(arguments, work, "revo", routes, relays=["p1", "p2"]) as fleet:
        first, second, child = fleet["p1"], fleet["p2"], fleet["s1"]
        package = fleet.build()
        rows, _ = fleet.send()
        demand_all(fleet, rows, work / "source")
        begun = time.monotonic()
        fleet.distributor.cli("certificate", "revoke", first.name)
        wait_until("the revoked parent is cut off", lambda: not first.node.is_connected(), 20)
        print(f"  the revoked parent was cut off after {time.monotonic() - begun:.1f} s")
        before = fleet.all_sent()
        (work / "source" / "another").write_bytes(b"more" * 100_000)
        fleet.build()
        fleet.start_sending()
        demand_soon(fleet, work / "source")
        (work / "source" / "another").unlink()
        sent = fleet.sent(fleet["dist"], first) - before[DISTRIBUTOR, first.name]
        print(f"  its child got the next revision {time.monotonic() - begun:.1f} s after the revocation; "
              f"{sent} bytes went to the revoked one")
        if sent > 64 * 1024:
            raise SystemExit(f"{sent} bytes went to a revoked parent")
        if package is None or second.name == first.name:
            raise SystemExit("nothing was sent")


CASES = (loss, cut, killed, replaced, revoked)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=60 * MIB)
    parser.add_argument("--rate", default="100mbit", help="of every link, each way")
    parser.add_argument("--cut-seconds", type=float, default=20)
    parser.add_argument("--only", help="one case: " + ", ".join(case.__name__ for case in CASES))
    parser.add_argument("--work", type=pathlib.Path)
    arguments = parser.parse_args()
    require("ip", "tc", "nft", "rsync")
    for case in CASES:
        if arguments.only in (None, case.__name__):
            print(f"{case.__name__}: {' '.join(case.__doc__.split())}", flush=True)
            with tempfile.TemporaryDirectory(prefix="ted-networks-", dir=arguments.work) as folder:
                make_source(pathlib.Path(folder) / "source", arguments.bytes)
                case(arguments, pathlib.Path(folder))


if __name__ == "__main__":
    main()
