//! What testbed promises to the tests of the other crates, on real servers.

#[path = "main/servers.rs"]
mod servers;
#[path = "main/supervision.rs"]
mod supervision;
