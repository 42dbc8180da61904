//! The two producers of a sink: one for records that come alone, one for records that come in full convoys.
//!
//! librdkafka's `linger.ms` is fixed when a producer is made. At 0 a record leaves at once: right for one that comes
//! alone. But of a convoy the first few records leave alone, too; the rest must wait until they have arrived
//! (librdkafka has one request for a partition under way), and meanwhile the thread asks the socket without a pause
//! whether it may go on (measured: 400,000 calls of `poll` for 100,000 records). A producer that waits for the whole
//! convoy sends it as one request. Order holds: nothing is on its way when the one takes over from the other.

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};

use super::SinkError;
use super::producer_config::without_value;

/// How long the producer for full convoys waits for a request to become full; handing over a convoy takes less. Where
/// its records go to several partitions, none becomes full, and this is what it waits.
const CONVOY_LINGER_MS: &str = "5";

/// Who sets these has decided how records gather: then there is one producer.
const GATHERING: [&str; 4] =
    ["linger.ms", "queue.buffering.max.ms", "batch.num.messages", "batch.size"];

/// The producers of one sink.
pub(super) struct Producers<C: ProducerContext + 'static> {
    alone: ThreadedProducer<C>,
    /// Made with the other one: a producer needs up to half a second for its first request. None: the other one is used
    /// for convoys, too.
    convoy: Option<ThreadedProducer<C>>,
    /// The one that is in use.
    in_convoy: bool,
}

impl<C: ProducerContext<DeliveryOpaque = usize> + Clone + 'static> Producers<C> {
    /// Starts them. `tuned`: properties that the user has set; `convoy_records`: records of a full convoy.
    pub(super) fn start<'t>(
        config: &ClientConfig,
        mut tuned: impl Iterator<Item = &'t str>,
        convoy_records: usize,
        context: C,
    ) -> Result<Self, SinkError> {
        let alone = make(config, context.clone())?;
        if tuned.any(|name| GATHERING.contains(&name)) {
            return Ok(Self { alone, convoy: None, in_convoy: false });
        }
        let mut config = config.clone();
        config
            .set("linger.ms", CONVOY_LINGER_MS)
            .set("batch.num.messages", convoy_records.to_string());
        Ok(Self { alone, convoy: Some(make(&config, context)?), in_convoy: false })
    }

    /// Chooses the producer for what comes next. Only while nothing is on its way: otherwise later records of a key
    /// could overtake earlier ones.
    pub(super) const fn choose(&mut self, in_convoy: bool) {
        self.in_convoy = in_convoy;
    }

    /// Hands a record to the producer that was chosen.
    pub(super) fn send(&self, record: BaseRecord<'_, [u8], [u8], usize>) -> Result<(), KafkaError> {
        let producer = match &self.convoy {
            Some(producer) if self.in_convoy => producer,
            _ => &self.alone,
        };
        producer.send(record).map_err(|(error, _)| error)
    }
}

fn make<C: ProducerContext + 'static>(
    config: &ClientConfig,
    context: C,
) -> Result<ThreadedProducer<C>, SinkError> {
    ThreadedProducer::from_config_and_context(config, context)
        .map_err(|error| SinkError::Configuration { reason: without_value(&error) })
}

impl<C: ProducerContext + 'static> Drop for Producers<C> {
    fn drop(&mut self) {
        // Records that are still queued belong to nobody: they were not acknowledged and will be read again.
        let all = || PurgeConfig::default().queue().inflight();
        self.alone.purge(all());
        if let Some(producer) = &self.convoy {
            producer.purge(all());
        }
    }
}
