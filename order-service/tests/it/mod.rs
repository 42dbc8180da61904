//! One module per subject; `service.rs` starts what they talk to.

mod contract;
mod documentation;
mod health;
mod orders;
mod outbox;
mod purity;
mod refusals;
mod secured;
mod service;
mod stop;
mod wal;
