#!/usr/bin/env python3
"""What a parent learns of an encrypted Distribution that it only passes on: a canary that does not compress, in a file's
content and in its name, is found neither in any file of the parent's data directory nor in the memory of its process,
while it relays and afterwards: all that a core dump would hold. In a run without encryption it is found, so that the
search finds what there is to find.

Usage: blind.py BINARIES [--bytes N] [--work DIR]    (as root; needs ip, tc, rsync)
"""

import argparse
import os
import pathlib
import signal
import tempfile

from fleet import MIB, Fleet
from harness import make_source, require, same, wait_until

CANARY_BYTES = 300_000


def plant(source):
    """A file of random bytes with a random name; gives what is searched for."""
    content = os.urandom(CANARY_BYTES)
    name = content[:16].hex()
    (source / name).write_bytes(content)
    pieces = {f"content at {at}": content[at:at + 32] for at in (64, CANARY_BYTES // 2, CANARY_BYTES - 1000)}
    return {"name": name.encode(), **pieces}


def found(canaries, data):
    return [what for what, bytes_ in canaries.items() if bytes_ in data]


def on_disk(canaries, folder):
    names = []
    for path in folder.rglob("*"):
        names += found(canaries, str(path).encode())
        if path.is_file() and not path.is_socket():
            names += found(canaries, path.read_bytes())
    return sorted(set(names))


def in_memory(canaries, process):
    """Everything that a core dump would hold: the readable memory, region by region."""
    names, total = set(), 0
    with open(f"/proc/{process}/mem", "rb", buffering=0) as memory:
        for line in pathlib.Path(f"/proc/{process}/maps").read_text().splitlines():
            span, modes, *rest = line.split()
            if not modes.startswith("r") or rest[-1] in ("[vvar]", "[vsyscall]", "[vvar_vclock]"):
                continue
            begin, end = (int(part, 16) for part in span.split("-"))
            try:
                data = os.pread(memory.fileno(), end - begin, begin)
            except OSError:
                continue
            total += len(data)
            names.update(found(canaries, data))
    if total < MIB:
        raise SystemExit(f"only {total} bytes of memory were read")
    return sorted(names), total


def search(fleet, canaries, when):
    parent = fleet["t1"].node
    # Stopped, so that disk and memory are those of one moment.
    parent.process.send_signal(signal.SIGSTOP)
    disk, (memory, total) = on_disk(canaries, parent.data), in_memory(canaries, parent.process.pid)
    parent.process.send_signal(signal.SIGCONT)
    print(f"  {when}: on the relay's disk: {disk or 'nothing'}; in {total // MIB} MiB of its memory: {memory or 'nothing'}",
          flush=True)
    return disk, memory


def run(arguments, work, encrypt):
    make_source(work / "source", arguments.bytes)
    canaries = plant(work / "source")
    with Fleet("blind", arguments.binaries, work / "fleet", {"t1": [None], "t2": ["t1"]}, relays=["t1"]) as fleet:
        fleet.start_distributor(work / "source", *(["--encrypt"] if encrypt else []))
        fleet.join_all()
        parent, leaf, root = fleet["t1"], fleet["t2"], fleet["dist"]
        for above, below in ((root, parent), (parent, leaf)):
            fleet.limit(above, below, "100mbit")
        package, before = fleet.build(), fleet.sent(root, parent)
        fleet.start_sending()
        seen = []
        for percent in (30, 70):
            share = package * percent / 100
            wait_until(f"{percent} %", lambda: fleet.sent(root, parent) - before >= share, 120)
            seen.append(search(fleet, canaries, f"at {percent} %"))
        wait_until("the leaf's target", lambda: same(work / "source", fleet.target(leaf)), 180, pause=0.3)
        seen.append(search(fleet, canaries, "afterwards"))
        if not list(parent.node.data.rglob("distfile.ted")):
            raise SystemExit("the relay has no package")
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binaries", type=pathlib.Path)
    parser.add_argument("--bytes", type=int, default=40 * MIB)
    parser.add_argument("--work", type=pathlib.Path)
    arguments = parser.parse_args()
    require("ip", "tc", "rsync")
    for encrypt in (False, True):
        print("encrypted:" if encrypt else "not encrypted, for comparison:", flush=True)
        with tempfile.TemporaryDirectory(prefix="ted-blind-", dir=arguments.work) as folder:
            seen = run(arguments, pathlib.Path(folder), encrypt)
        if encrypt and any(disk or memory for disk, memory in seen):
            raise SystemExit("a relay that has no grant knows what it passes on")
        if not encrypt and not all(any(seen[at][place] for at in range(len(seen))) for place in (0, 1)):
            raise SystemExit("the search does not find what is there")


if __name__ == "__main__":
    main()
