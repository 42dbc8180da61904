//! Names and ports that no other test of this machine uses.

use std::net::{Ipv4Addr, TcpListener};

/// A name that nobody else has: the prefix, an underscore and a random lower-case suffix (a valid name for a topic, a
/// consumer group, a replication slot, a database).
#[must_use]
pub fn unique_name(prefix: &str) -> String {
    let suffix = uuid::Uuid::new_v4().simple().to_string();
    format!("{prefix}_{}", &suffix[..12])
}

/// A TCP port of 127.0.0.1 that was free a moment ago. Two calls in one moment get two ports; another process may
/// still take it first, so prefer to let the program bind port 0 where it can.
///
/// # Panics
/// When this machine has no free port.
#[must_use]
#[allow(clippy::expect_used)] // Test support: without a port nothing can go on.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port of 127.0.0.1");
    listener.local_addr().expect("the address of a bound socket").port()
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
    fn a_free_port_can_be_bound() {
        TcpListener::bind((Ipv4Addr::LOCALHOST, free_port())).unwrap();
    }
}
