//! The relay on real servers: each module has its own database, slot, topics and, where it needs one, process.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should panic")]

#[path = "it/stream.rs"]
mod stream;
