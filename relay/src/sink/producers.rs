//! The two producers of a sink: one for records that come alone, one for records that come in convoys.
//!
//! librdkafka's `linger.ms` is fixed when a producer is made. At 0 a record leaves at once: right for one that comes alone.
//! But of a convoy the first few records leave alone, too; the rest must wait until they have arrived (librdkafka has one
//! request for a partition under way), and meanwhile the thread asks the socket without a pause whether it may go on
//! (measured: 400,000 calls of `poll` for 100,000 records). A producer that waits for the whole convoy sends it as one
//! request. Order holds: nothing is on its way when the one takes over from the other.

use rdkafka::ClientConfig;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, PurgeConfig, ThreadedProducer};

use super::SinkError;
use super::producer_config::without_value;

/// How long the producer for convoys waits for a request to become full; handing over a convoy takes less.
const CONVOY_LINGER_MS: &str = "1";

/// Who sets these has decided how records gather: then there is one producer.
const GATHERING: [&str; 4] =
    ["linger.ms", "queue.buffering.max.ms", "batch.num.messages", "batch.size"];

/// The producers of one sink.
pub(super) struct Producers<C: ProducerContext + 'static> {
    alone: ThreadedProducer<C>,
    convoy: Convoy<C>,
    /// The one that is in use.
    in_convoy: bool,
}

/// The producer for convoys. It is made when the first one comes: an idle relay does not pay for it.
enum Convoy<C: ProducerContext + 'static> {
    NotMade(Box<(ClientConfig, C)>),
    Made(ThreadedProducer<C>),
    /// The other one is used for convoys, too.
    None,
}

impl<C: ProducerContext<DeliveryOpaque = usize> + Clone + 'static> Producers<C> {
    /// Starts the producer for single records. `tuned`: properties that the user has set; `convoy_records`: records of a
    /// full convoy.
    pub(super) fn start<'t>(
        config: &ClientConfig,
        mut tuned: impl Iterator<Item = &'t str>,
        convoy_records: usize,
        context: C,
    ) -> Result<Self, SinkError> {
        let convoy = if tuned.any(|name| GATHERING.contains(&name)) {
            Convoy::None
        } else {
            let mut config = config.clone();
            config
                .set("linger.ms", CONVOY_LINGER_MS)
                .set("batch.num.messages", convoy_records.to_string());
            Convoy::NotMade(Box::new((config, context.clone())))
        };
        Ok(Self { alone: make(config, context)?, convoy, in_convoy: false })
    }

    /// Chooses the producer for what comes next. Only while nothing is on its way: otherwise later records of a key
    /// could overtake earlier ones.
    pub(super) fn choose(&mut self, in_convoy: bool) {
        if in_convoy && let Convoy::NotMade(made_of) = &self.convoy {
            let (config, context) = &**made_of;
            self.convoy = match make(config, context.clone()) {
                Ok(producer) => Convoy::Made(producer),
                Err(error) => {
                    tracing::warn!(%error, "no second producer; records are sent by the first");
                    Convoy::None
                }
            };
        }
        self.in_convoy = in_convoy;
    }

    /// Hands a record to the producer that was chosen.
    pub(super) fn send(&self, record: BaseRecord<'_, [u8], [u8], usize>) -> Result<(), KafkaError> {
        let producer = match &self.convoy {
            Convoy::Made(producer) if self.in_convoy => producer,
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
        if let Convoy::Made(producer) = &self.convoy {
            producer.purge(all());
        }
    }
}
