//! The worker's configuration, read once from the environment.

/// Settings of the worker process.
#[derive(Debug, Clone, Default)]
pub struct WorkerConfig {
    /// Kafka's bootstrap servers, `host:port,...`.
    pub bootstrap_servers: String,
}
