//! What testbed promises to the tests of the other crates, and the whole flow end to end, on real servers.

// The lint's own exception covers test functions, not what they call.
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "main/chaos.rs"]
mod chaos;
#[path = "main/demo.rs"]
mod demo;
#[path = "main/flow.rs"]
mod flow;
#[path = "main/guarantees.rs"]
mod guarantees;
#[path = "main/interruptions.rs"]
mod interruptions;
#[path = "main/measuring.rs"]
mod measuring;
#[path = "main/secrets.rs"]
mod secrets;
#[path = "main/servers.rs"]
mod servers;
#[path = "main/steady_orders.rs"]
mod steady_orders;
#[path = "main/story.rs"]
mod story;
#[path = "main/supervision.rs"]
mod supervision;
#[path = "main/swap.rs"]
mod swap;
