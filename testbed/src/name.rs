//! Names and ports that no other test of this machine uses.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::ops::RangeInclusive;
use std::sync::{Mutex, PoisonError};

/// A name that nobody else has: the prefix, an underscore and a random lower-case suffix (a valid name for a topic, a
/// consumer group, a replication slot, a database).
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}_{}", &suffix[..12])
}

/// Below the ports that Linux gives to connections that are made (32768 and up, `ip_local_port_range`): a server that is
/// killed and started again must find its port free, whoever has dialled somebody meanwhile.
const PORTS: RangeInclusive<u16> = 18_000..=31_999;

/// A TCP port of 127.0.0.1 that was free a moment ago, another one at each call of this process. Another process may
/// still take it first, so prefer to let the program bind port 0 where it can.
///
/// # Panics
/// When this machine has no free port.
#[must_use]
#[allow(clippy::expect_used)] // Test support: without a port nothing can go on.
pub fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let mut given = GIVEN.lock().unwrap_or_else(PoisonError::into_inner);
    let count = PORTS.end() - PORTS.start() + 1;
    // From a place that other processes do not begin at, each port once.
    let (random, _) = uuid::Uuid::new_v4().as_u64_pair();
    let first = u16::try_from(random % u64::from(count)).unwrap_or_default();
    let candidates = (0..count).map(|step| PORTS.start() + (first + step) % count);
    let is_free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    let mut free = candidates.filter(|port| !given.contains(port)).filter(is_free);
    let port = free.next().expect("a free port of 127.0.0.1");
    drop(free);
    given.insert(port);
    port
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_differ_and_keep_their_prefix() {
        let (one, two) = (unique_name("orders"), unique_name("orders"));
        assert_ne!(one, two);
        assert!(one.starts_with("orders_"));
        assert!(one.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_'));
    }

    #[test]
    fn a_free_port_can_be_bound_and_is_given_once() {
        TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
        let ports: BTreeSet<u16> = (0..50).map(|_| free_port()).collect();
        assert_eq!(ports.len(), 50);
        assert!(ports.iter().all(|port| PORTS.contains(port)));
    }
}
