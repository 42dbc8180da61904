//! What librdkafka tells of its own accord: deliveries go to the sink, everything else to the log.

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::DeliveryResult;
use rdkafka::producer::ProducerContext;

/// Hears of each record that was handed over, on the producer's thread.
pub(super) trait Delivered: Send + Sync {
    /// `opaque` is what was handed over with the record.
    fn delivered(&self, result: &DeliveryResult<'_>, opaque: usize);
}

/// A producer's context.
#[derive(Clone)]
pub(super) struct Deliveries<D>(pub(super) D);

impl<D: Delivered> ClientContext for Deliveries<D> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        // librdkafka retries by itself, and what it cannot mend comes back with a delivery or a call.
        tracing::debug!(kafka.facility = facility, kafka.level = ?level, "librdkafka: {message}");
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::warn!(error = %error, "Kafka is not reachable as it should be, retrying: {reason}");
    }
}

impl<D: Delivered> ProducerContext for Deliveries<D> {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, opaque: usize) {
        self.0.delivered(result, opaque);
    }
}
