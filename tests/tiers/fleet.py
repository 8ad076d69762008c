"""A fleet in tiers: each node has a network namespace and a data directory of its own, and a pair of interfaces to each
of its parents. There is no other way: nothing is forwarded, so that a node reaches its parents and its children alone."""

import json
import pathlib
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from harness import MIB, Namespaces, Node, deliveries, sh, stopped_at_the_end, wait_until

DISTRIBUTOR = "dist.example"
CHANNEL, DISTRIBUTION = "nightly", "site"
PORT = 1229


class Place:
    """A node of the tree, and where it lives."""

    def __init__(self, number, name, parents):
        self.number, self.name, self.parents = number, name, parents
        self.children = []
        self.address = f"10.{80 + (number >> 14)}.{number >> 7 & 127}.{1 + (number & 127)}"
        self.namespace = None
        self.node = None
        self.extracts = True
        # By the name of the node at the other end.
        self.interfaces = {}

    @property
    def short(self):
        return self.name.split(".")[0]

    @property
    def endpoint(self):
        return f"{self.address}:{PORT}"


class Fleet:
    """`routes` says for each Subscriber its parents in order of preference; the Distributor is `None` or its name.

    Parents stand before their children. `relays` only pass on.
    """

    def __init__(self, prefix, binaries, work, routes, relays=(), environment=None):
        self.binaries, self.work = pathlib.Path(binaries).resolve(), work
        self.namespaces = Namespaces(f"ted-{prefix}")
        self.places = {DISTRIBUTOR: Place(1, DISTRIBUTOR, [])}
        for number, (short, parents) in enumerate(routes.items(), start=2):
            names = [f"{parent}.example" if parent else DISTRIBUTOR for parent in parents]
            self.places[f"{short}.example"] = Place(number, f"{short}.example", names)
        for place in self.subscribers():
            place.extracts = place.short not in relays
            for parent in place.parents:
                self.places[parent].children.append(place.name)
        self.environment = environment or {}

    def __enter__(self):
        self.namespaces.__enter__()
        self.work.mkdir(parents=True, exist_ok=True)
        for place in self.places.values():
            place.namespace = self.namespaces.add(place.short, ipv6=False)
            sh("ip", "-n", place.namespace, "address", "add", f"{place.address}/32", "dev", "lo")
        for place in self.subscribers():
            for parent in place.parents:
                self.join_networks(self.places[parent], place)
        for place in self.places.values():
            binary = "ted-distributor" if place.name == DISTRIBUTOR else "ted-subscriber"
            environment = dict(self.environment)
            if place.name != DISTRIBUTOR and place.children:
                environment["TED_LISTEN"] = f"0.0.0.0:{PORT}"
            place.node = Node(self.binaries / binary, self.work / place.short, place.namespace, environment)
        self.guard = stopped_at_the_end(*(place.node for place in reversed(self.places.values())))
        self.guard.__enter__()
        return self

    def __exit__(self, *failure):
        try:
            self.guard.__exit__(*failure)
        finally:
            self.namespaces.__exit__()

    def __getitem__(self, short):
        return self.places[f"{short}.example"]

    @property
    def distributor(self):
        return self.places[DISTRIBUTOR].node

    def subscribers(self):
        return [place for place in self.places.values() if place.name != DISTRIBUTOR]

    def recipients(self):
        return [place for place in self.subscribers() if place.extracts]

    def join_networks(self, parent, child):
        """One pair of interfaces, and at each end a route to the other end alone."""
        down, up = f"d{child.number}", f"u{parent.number}"
        self.namespaces.pair((parent.namespace, down, None), (child.namespace, up, None))
        for place, other, device in ((parent, child, down), (child, parent, up)):
            sh("ip", "-n", place.namespace, "route", "add", f"{other.address}/32", "dev", device, "src", place.address)
            place.interfaces[other.name] = device

    # What happens to links.

    def limit(self, parent, child, rate):
        for place, other in ((parent, child), (child, parent)):
            self.namespaces.limit(place.namespace, place.interfaces[other.name], rate)

    def lose(self, parent, child, per_mille):
        """Of what arrives at either end, so many packets of a thousand are lost."""
        for place, other in ((parent, child), (child, parent)):
            device = place.interfaces[other.name]
            self.namespaces.packets_as_on_ethernet(place.namespace, device)
            rule = f'iifname "{device}" numgen random mod 1000 < {per_mille} counter drop'
            table = f"table inet loss_{device} {{ chain arriving {{ type filter hook input priority 0; {rule}; }}; }}"
            sh("ip", "netns", "exec", place.namespace, "nft", "-f", "-", input=table)

    def lost_packets(self):
        """What nftables dropped, in all namespaces."""
        lost = 0
        for place in self.places.values():
            for line in self.namespaces.run(place.namespace, "nft", "list", "ruleset").splitlines():
                if "counter packets" in line:
                    lost += int(line.split("counter packets")[1].split()[0])
        return lost

    def cut(self, parent, child):
        sh("ip", "-n", parent.namespace, "link", "set", parent.interfaces[child.name], "down")

    def mend(self, parent, child):
        device = parent.interfaces[child.name]
        sh("ip", "-n", parent.namespace, "link", "set", device, "up")
        sh("ip", "-n", parent.namespace, "route", "replace", f"{child.address}/32", "dev", device, "src", parent.address)

    def sent(self, parent, child):
        """Bytes that left for a child so far, headers included, as the kernel counts them."""
        return self.namespaces.counters(parent.namespace, parent.interfaces[child.name], "tx_bytes")[0]

    def all_sent(self):
        return {
            (parent, place.name): self.sent(self.places[parent], place)
            for place in self.subscribers() for parent in place.parents
        }

    # What an operator does.

    def start_distributor(self, source, *options):
        place = self.places[DISTRIBUTOR]
        self.distributor.cli("init", "--name", DISTRIBUTOR, "--listen", f"0.0.0.0:{PORT}", "--advertise", place.endpoint)
        self.distributor.start()
        self.distributor.cli("distribution", "create", DISTRIBUTION, "--source", source, *options)
        self.distributor.cli("channel", "create", CHANNEL, "--distribution", DISTRIBUTION)

    def target(self, place):
        return self.work / "targets" / place.short

    def declare(self, place):
        """Says who a node is, where it listens, and through whom it is reached."""
        parents = [option for parent in place.parents for option in ("--parent", parent)]
        direct = place.parents == [DISTRIBUTOR]
        endpoint = ["--endpoint", place.endpoint] if place.children else []
        channel = ["--channel", CHANNEL] if place.extracts else []
        self.distributor.cli("subscriber", "create", place.name, *endpoint, *([] if direct else parents), *channel)

    def invite(self, place):
        """The one file that is brought to a node."""
        invite = self.work / f"{place.short}.invite"
        self.distributor.cli("invite", place.name, "--output", invite)
        return invite

    def join(self, place, wait=True):
        invite = self.invite(place)
        place.node.cli("join", invite, "--target", f"{DISTRIBUTION}={self.target(place)}")
        invite.unlink()
        place.node.start(wait=False)
        if wait:
            self.wait_connected(place)

    def wait_connected(self, place, seconds=120):
        wait_until(f"{place.name} is connected", place.node.is_connected, seconds, pause=0.2)

    def join_all(self):
        """Tier after tier: a parent has to run before its children can enrol through it."""
        waiting, here = self.subscribers(), {DISTRIBUTOR}
        for place in waiting:
            self.declare(place)
        while waiting:
            ready = [place for place in waiting if here.issuperset(place.parents)]
            for place in ready:
                self.join(place, wait=False)
            for place in ready:
                self.wait_connected(place)
                here.add(place.name)
            waiting = [place for place in waiting if place.name not in here]

    def build(self):
        """Builds the Distribution; gives the length of its newest baseline."""
        return self.distributor.json("distribution", "build", DISTRIBUTION)["revision"]["package_bytes"]

    def send(self, timeout="600s", until="extracted", demand=True):
        """Sends, waits, and gives a row for each recipient and the seconds that it took."""
        begun = time.monotonic()
        done = self.distributor.run("--json", "send", CHANNEL, "--wait", "--no-build", "--until", until, "--timeout", timeout)
        took = time.monotonic() - begun
        if demand and done.returncode:
            raise SystemExit(f"send: exit {done.returncode}: {done.stdout}{done.stderr}")
        rows = deliveries(json.loads(done.stdout))
        # What a parent passes on is done when it is verified there.
        return [row for row in rows if row.get("role") != "relay"], took

    def start_sending(self):
        self.distributor.cli("send", CHANNEL, "--no-build")


def mib(count):
    return f"{count / MIB:.1f} MiB"
