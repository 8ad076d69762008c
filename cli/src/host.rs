//! What this machine is called, for `init` without a name: its full DNS name where that resolves, else its address.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, ToSocketAddrs as _, UdpSocket};

use ted_core::name::NodeName;

use crate::error::{ApiError, code};

/// Addresses of networks that exist in documents alone: asking the system how it would get there sends nothing.
const ELSEWHERE: [SocketAddr; 2] = [
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), 9),
    SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), 9),
];

/// The name that a node on this machine gets where none is given. A name that is given is never looked up.
///
/// # Errors
/// [`code::NO_NAME`] where the machine has neither a full name that resolves nor an address.
pub fn default_name() -> Result<NodeName, ApiError> {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let host = read("/proc/sys/kernel/hostname");
    let candidates = candidates(host.trim(), &read("/etc/hosts"), &read("/etc/resolv.conf"));
    let resolves = |name: &NodeName| {
        let found = (name.to_string(), 0).to_socket_addrs();
        found.is_ok_and(|mut addresses| addresses.next().is_some())
    };
    let addresses = ELSEWHERE.iter().filter_map(own_address);
    let chosen = choose(&candidates, resolves, addresses);
    chosen
        .ok_or_else(|| ApiError::new(code::NO_NAME, "this machine has no full DNS name that resolves, and no address"))
}

/// The first full name that resolves, else the first address that others can use.
fn choose(
    candidates: &[NodeName],
    resolves: impl Fn(&NodeName) -> bool,
    addresses: impl IntoIterator<Item = IpAddr>,
) -> Option<NodeName> {
    let named = candidates.iter().find(|name| resolves(name)).cloned();
    named.or_else(|| {
        let mut usable = addresses.into_iter().filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
        usable.next().and_then(|ip| ip.to_string().parse().ok())
    })
}

/// Full names that this machine may have: what it calls itself, the first name of its line in `/etc/hosts`, and its
/// short name in the domains that its resolver searches.
fn candidates(host: &str, hosts: &str, resolver: &str) -> Vec<NodeName> {
    let mut names = vec![];
    if host.contains('.') {
        names.push(host.to_owned());
    }
    for line in hosts.lines().map(|line| line.split('#').next().unwrap_or_default()) {
        let words: Vec<&str> = line.split_whitespace().collect();
        if let [_, first, rest @ ..] = &words[..]
            && (*first == host || rest.contains(&host))
        {
            names.push((*first).to_owned());
        }
    }
    for line in resolver.lines() {
        let mut words = line.split_whitespace();
        if matches!(words.next(), Some("search" | "domain")) {
            names.extend(words.map(|domain| format!("{host}.{domain}")));
        }
    }
    let mut seen = BTreeSet::new();
    let full = |name: &NodeName| {
        let text = name.to_string();
        name.ip().is_none() && text.contains('.') && !text.starts_with("localhost.")
    };
    names.iter().filter_map(|name| name.parse().ok()).filter(|name| full(name) && seen.insert(name.clone())).collect()
}

/// The address from which this machine would reach another one; no packet is sent for it.
fn own_address(elsewhere: &SocketAddr) -> Option<IpAddr> {
    let any: IpAddr = if elsewhere.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOSTS: &str = "127.0.0.1 localhost\n127.0.1.1 web1.example.com web1 # this one\n10.0.0.2 other.example.com\n";

    fn texts(names: &[NodeName]) -> Vec<String> {
        names.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn full_names_come_from_the_host_its_hosts_file_and_its_domains() {
        for (host, hosts, resolver, expected) in [
            ("Web1.Example.com", "", "", &["web1.example.com"][..]),
            ("web1", HOSTS, "", &["web1.example.com"]),
            ("web1", "", "nameserver 10.0.0.1\nsearch a.example b.example\n", &["web1.a.example", "web1.b.example"]),
            ("web1", HOSTS, "domain example.com", &["web1.example.com"]),
            ("localhost", "127.0.0.1 localhost.localdomain localhost", "", &[]),
            ("web1", "127.0.1.1 web1", "search .", &[]),
            ("", "", "", &[]),
            ("a b", HOSTS, "search example.com", &[]),
        ] {
            assert_eq!(texts(&candidates(host, hosts, resolver)), expected, "{host}");
        }
    }

    #[test]
    fn a_name_that_resolves_is_taken_else_an_address_that_others_can_use() {
        let names: Vec<NodeName> = ["a.example", "b.example"].map(|name| name.parse().expect("a name")).into();
        let addresses = || ["127.0.0.1", "0.0.0.0", "10.0.0.7"].map(|ip| ip.parse::<IpAddr>().expect("an address"));
        let chosen = |resolving: &str| choose(&names, |name| name.to_string() == resolving, addresses());
        assert_eq!(chosen("b.example").expect("one").to_string(), "b.example");
        assert_eq!(chosen("").expect("one").to_string(), "10.0.0.7");
        let six = choose(&[], |_| true, ["2001:db8::7".parse().expect("an address")]).expect("one");
        assert_eq!(six.file_stem(), "2001-db8--7", "files have no colon");
        assert_eq!(choose(&names, |_| false, ["::1".parse().expect("an address")]), None);
    }
}
