//! rdkafka, on a librdkafka whose known crashes are mended where no release has the mend yet.
//!
//! Everything is [`rdkafka`]'s own and goes by its name: the workspace's `Cargo.toml` calls this crate `rdkafka`, so that
//! no crate can be built on an unmended one. What is mended, and why, says `build.rs`; decision 19 says why in this way.

pub use rdkafka::*;
