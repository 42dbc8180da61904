//! The wait for Kafka at the start, and where librdkafka's own log lines go.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tokio::time::sleep;

use crate::backoff::Backoff;
use crate::config::Config;

/// A broker that does not answer within this time is away.
const METADATA_TIMEOUT: Duration = Duration::from_secs(3);
/// Back within a second after Kafka was away (librdkafka's default is ten). Milliseconds.
const RECONNECT_DELAY_MAX_MILLIS: &str = "1000";
/// A broker that answers nothing for so long is dialled anew: the connection may lead nowhere, which TCP alone does not
/// tell. Its answers to a consumer come twice a second. Milliseconds.
pub(crate) const ANSWER_TIMEOUT_MILLIS: &str = "10000";

/// Sends librdkafka's log to ours, at debug level: it repeats itself at every attempt, and what matters of it comes
/// back to us as an error, which is logged once.
#[derive(Clone, Copy, Debug)]
pub(crate) struct QuietContext;

impl ClientContext for QuietContext {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log(&error.to_string(), reason);
    }
}

impl rdkafka::consumer::ConsumerContext for QuietContext {}

/// A log line of librdkafka.
pub(crate) fn log(facility: &str, message: &str) {
    tracing::debug!(target: "librdkafka", facility, "{message}");
}

/// Keeps why a login was refused or a certificate not trusted: an answer to a request does not tell.
#[derive(Debug, Default)]
struct LastWords(Mutex<Option<String>>);

impl LastWords {
    fn take(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl ClientContext for LastWords {
    fn log(&self, _level: RDKafkaLogLevel, facility: &str, message: &str) {
        log(facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        log(&error.to_string(), reason);
        // Behind it stands how long it took, which is never the same.
        let words = reason.split(" (after ").next().unwrap_or(reason).to_owned();
        if matches!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)
        ) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(words);
        }
    }
}

impl rdkafka::consumer::ConsumerContext for LastWords {}

/// What every client of ours begins with.
pub(crate) fn client_config(config: &Config, client_id: &str) -> ClientConfig {
    let mut client = ClientConfig::new();
    client
        // What librdkafka notices of its own accord; `log` says it at the level debug.
        .set_log_level(RDKafkaLogLevel::Info)
        .set("bootstrap.servers", &config.bootstrap_servers)
        .set("client.id", client_id)
        .set("reconnect.backoff.max.ms", RECONNECT_DELAY_MAX_MILLIS);
    config.kafka_security.apply(&mut client);
    client
}

/// Waits until a broker answers, however long that takes. Creates no topic: it asks for none by name.
///
/// # Errors
/// A setting that librdkafka refuses.
pub(crate) async fn wait(config: &Config) -> anyhow::Result<()> {
    let bootstrap_servers = &config.bootstrap_servers;
    let client = client_config(config, "shipment-service-start");
    let client: BaseConsumer<LastWords> = client.create_with_context(LastWords::default())?;
    let client = Arc::new(client);
    let mut backoff = Backoff::new();
    let mut said = String::new();
    loop {
        let asked = Arc::clone(&client);
        let problem = match tokio::task::spawn_blocking(move || {
            let answer = asked.fetch_metadata(None, METADATA_TIMEOUT);
            // A consumer hands errors out when it is polled.
            while asked.poll(Duration::ZERO).is_some() {}
            answer.map(|metadata| metadata.brokers().len())
        })
        .await?
        {
            Ok(0) => "no broker is known yet".to_owned(),
            Ok(brokers) => {
                tracing::info!(
                    kafka.bootstrap_servers = bootstrap_servers,
                    brokers,
                    "Kafka is there"
                );
                return Ok(());
            }
            Err(error) => client.context().take().unwrap_or_else(|| error.to_string()),
        };
        // Each reason once, not each attempt.
        if problem != said {
            tracing::info!(
                kafka.bootstrap_servers = bootstrap_servers,
                error = problem,
                "Waiting for Kafka"
            );
            said = problem;
        }
        sleep(backoff.next()).await;
    }
}
