//! What each topic takes: its `max.message.bytes`, asked of the brokers beside the stream and remembered.
//!
//! Kafka refuses a record or a whole batch that is too large and takes the next one, so that later events of a key
//! would overtake it. A record that its topic may refuse therefore travels alone; and of a topic that takes less than a
//! whole batch, no more is under way than fits into one record of it. The broker alone decides: nothing is refused
//! here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use tokio::sync::Notify;

use super::clients::connection_config;

/// Where a topic's limit is not known (nobody may describe it), a record of this many bytes travels alone: far below
/// the limit that a topic has by default (1 MiB) nothing is refused for its size.
pub(super) const ALONE_BYTES_MIN: usize = 256 << 10;

/// The same while the answer is on its way: below this, limits are mistakes.
const ALONE_BYTES_ASKING: usize = 8 << 10;

/// librdkafka's `batch.size`, unless it is set: a topic that takes this much refuses no batch of smaller records.
const BATCH_BYTES: usize = 1_000_000;

/// What a batch and a record in it weigh beside key, value and headers (Kafka's protocol: 61 bytes and up to 42).
const OVERHEAD: usize = 128;

/// After this time a limit is asked for again: an operator may have changed it.
const REFRESH: Duration = Duration::from_secs(60);

/// The same for a topic that is not there yet.
const REFRESH_NO_TOPIC: Duration = Duration::from_secs(2);

/// How long the brokers may take to answer; until then the limits above hold.
const ASK_TIMEOUT: Duration = Duration::from_secs(10);

/// Topics that are remembered; the limit of others is not known.
const TOPICS_MAX: usize = 1_000;

/// The option of a topic.
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";

/// Limits that the sink looks at without a lock: a connector writes to few topics.
const RECENT_MAX: usize = 8;

/// After so many records of a topic the sink looks for what has changed.
const RECENT_USES: u32 = 256;

/// The limits of the topics that were written to.
#[derive(Clone)]
pub(super) struct TopicLimits {
    config: Arc<ClientConfig>,
    batch_bytes: usize,
    topics: Arc<Mutex<HashMap<String, Topic>>>,
    /// Whether there is a topic that takes less than a batch, or one whose limit is being asked for: else nothing is
    /// counted.
    counting: Arc<AtomicBool>,
    /// Told when an answer has come.
    answered: Arc<Notify>,
}

/// What was known of a few topics a moment ago.
#[derive(Default)]
pub(super) struct RecentLimits(Vec<(String, Limit, u32)>);

#[derive(Debug, Clone, Copy)]
struct Topic {
    limit: Limit,
    asked_at: Instant,
    /// Bytes under way, where the topic takes less than a batch.
    under_way: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Limit {
    Asking,
    Known(usize),
    Unknown,
}

impl Limit {
    /// Whether a record of this weight may be refused for its size.
    const fn may_refuse(self, bytes: usize) -> bool {
        match self {
            Self::Asking => bytes >= ALONE_BYTES_ASKING,
            Self::Known(limit) => bytes + OVERHEAD > limit,
            Self::Unknown => bytes >= ALONE_BYTES_MIN,
        }
    }

    /// Bytes that may be under way, where a batch could be refused.
    const fn under_way_max(self, batch_bytes: usize) -> Option<usize> {
        match self {
            // One at a time: the answer is there within the time that a producer takes for its first record.
            Self::Asking => Some(0),
            Self::Known(limit) if limit < batch_bytes + OVERHEAD => Some(limit),
            _ => None,
        }
    }
}

impl TopicLimits {
    /// Asks with the settings of the producer.
    pub(super) fn new(producer: &ClientConfig, answered: Arc<Notify>) -> Self {
        let batch_bytes = producer.get("batch.size").and_then(|bytes| bytes.parse().ok());
        Self {
            config: Arc::new(connection_config(producer)),
            batch_bytes: batch_bytes.unwrap_or(BATCH_BYTES),
            topics: Arc::default(),
            counting: Arc::default(),
            answered,
        }
    }

    /// Whether there is a topic for which the bytes under way count.
    pub(super) fn is_counting(&self) -> bool {
        self.counting.load(Ordering::Relaxed)
    }

    /// Whether the topic may refuse a record of this weight for its size.
    pub(super) fn may_refuse(&self, recent: &mut RecentLimits, topic: &str, bytes: usize) -> bool {
        if let Some((_, limit, uses)) = recent.0.iter_mut().find(|(name, ..)| name == topic)
            && *uses < RECENT_USES
        {
            *uses += 1;
            return limit.may_refuse(bytes);
        }
        let limit = self.limit(topic);
        recent.0.retain(|(name, ..)| name != topic);
        if limit != Limit::Asking {
            recent.0.truncate(RECENT_MAX - 1);
            recent.0.insert(0, (topic.to_owned(), limit, 0));
        }
        limit.may_refuse(bytes)
    }

    /// Whether another record of this weight may be under way.
    pub(super) fn has_room(&self, topic: &str, bytes: usize) -> bool {
        if !self.is_counting() {
            return true;
        }
        let topics = self.lock();
        let Some(known) = topics.get(topic) else { return true };
        let Some(max) = known.limit.under_way_max(self.batch_bytes) else { return true };
        known.under_way == 0 || known.under_way + bytes + OVERHEAD <= max
    }

    /// A record is under way from now on.
    pub(super) fn take(&self, topic: &str, bytes: usize) {
        if !self.is_counting() {
            return;
        }
        if let Some(known) = self.lock().get_mut(topic)
            && known.limit.under_way_max(self.batch_bytes).is_some()
        {
            known.under_way += bytes + OVERHEAD;
        }
    }

    /// A record is no longer under way. True: the topic is one of those that may have made the sink full.
    pub(super) fn release(&self, topic: &str, bytes: usize) -> bool {
        if !self.is_counting() {
            return false;
        }
        let mut topics = self.lock();
        let Some(known) = topics.get_mut(topic) else { return false };
        known.under_way = known.under_way.saturating_sub(bytes + OVERHEAD);
        known.limit.under_way_max(self.batch_bytes).is_some()
    }

    /// What is known now; asks where that is nothing, or old.
    fn limit(&self, topic: &str) -> Limit {
        let mut topics = self.lock();
        let known = topics.get(topic).copied();
        if let Some(known) = known.filter(|known| known.asked_at.elapsed() < REFRESH) {
            return known.limit;
        }
        if known.is_none() && topics.len() >= TOPICS_MAX {
            return Limit::Unknown;
        }
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return Limit::Unknown };
        let limit = known.map_or(Limit::Asking, |known| known.limit);
        let under_way = known.map_or(0, |known| known.under_way);
        topics.insert(topic.to_owned(), Topic { limit, asked_at: Instant::now(), under_way });
        self.count(&topics);
        drop(topics);
        let (limits, topic) = (self.clone(), topic.to_owned());
        runtime.spawn(async move {
            limits.learn(&topic, ask(&limits.config, &topic).await);
        });
        limit
    }

    fn learn(&self, topic: &str, answer: Answer) {
        let mut topics = self.lock();
        if let Some(known) = topics.get_mut(topic) {
            known.limit = match (answer, known.limit) {
                (Answer::Limit(limit), _) => Limit::Known(limit),
                // Brokers that are away tell nothing; what the topic takes is what it took.
                (Answer::Nothing, Limit::Known(limit)) => Limit::Known(limit),
                (Answer::NoTopic | Answer::Nothing, _) => Limit::Unknown,
            };
            if answer == Answer::NoTopic
                && let Some(sooner) = known.asked_at.checked_sub(REFRESH - REFRESH_NO_TOPIC)
            {
                known.asked_at = sooner;
            }
            if known.limit.under_way_max(self.batch_bytes).is_none() {
                known.under_way = 0;
            }
        }
        self.count(&topics);
        drop(topics);
        self.answered.notify_one();
    }

    fn count(&self, topics: &HashMap<String, Topic>) {
        let counts =
            topics.values().any(|known| known.limit.under_way_max(self.batch_bytes).is_some());
        self.counting.store(counts, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Topic>> {
        // Nothing panics while it is held.
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the brokers say of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    Limit(usize),
    /// It is not there; the first record may make it.
    NoTopic,
    /// Nothing that helps.
    Nothing,
}

/// A client for one question, so that none is kept for a topic that is asked about once a minute.
async fn ask(config: &ClientConfig, topic: &str) -> Answer {
    let Ok(admin) = config.create::<AdminClient<DefaultClientContext>>() else {
        return Answer::Nothing;
    };
    let options = AdminOptions::new().request_timeout(Some(ASK_TIMEOUT));
    let resource = ResourceSpecifier::Topic(topic);
    let described = admin.describe_configs([&resource], &options).await;
    // Closing a client waits for its threads.
    tokio::task::spawn_blocking(move || drop(admin));
    match described.ok().and_then(|described| described.into_iter().next()) {
        // rdkafka passes over the error of a topic that is not there: what it gives has no entries.
        Some(Ok(config)) if config.entries.is_empty() => Answer::NoTopic,
        Some(Ok(config)) => {
            let value = config.get(MAX_MESSAGE_BYTES).and_then(|entry| entry.value.as_deref());
            let limit = value.and_then(|value| value.parse().ok());
            limit.map_or(Answer::Nothing, Answer::Limit)
        }
        _ => {
            tracing::debug!(kafka.topic = topic, "max.message.bytes of the topic is not known");
            Answer::Nothing
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(topic: &str, answer: Option<Answer>) -> TopicLimits {
        let limits = TopicLimits::new(&ClientConfig::new(), Arc::default());
        let asked = Topic { limit: Limit::Asking, asked_at: Instant::now(), under_way: 0 };
        limits.lock().insert(topic.to_owned(), asked);
        let topics = limits.lock();
        limits.count(&topics);
        drop(topics);
        if let Some(answer) = answer {
            limits.learn(topic, answer);
        }
        limits
    }

    #[test]
    fn what_a_topic_may_refuse_for_its_size_is_known_beforehand() {
        let may = |limit, bytes| {
            limits("t", Some(limit)).may_refuse(&mut RecentLimits::default(), "t", bytes)
        };
        assert!(!may(Answer::Limit(2_000), 1_000) && may(Answer::Limit(2_000), 1_900));
        assert!(!may(Answer::Nothing, 200_000) && may(Answer::NoTopic, ALONE_BYTES_MIN));
    }

    #[test]
    fn a_limit_that_was_learnt_counts_for_the_next_records() {
        let (limits, mut recent) = (limits("t", None), RecentLimits::default());
        assert!(limits.may_refuse(&mut recent, "t", 100_000), "not known yet");
        limits.learn("t", Answer::Limit(1_048_588));
        assert!(!limits.may_refuse(&mut recent, "t", 100_000));
        limits.learn("t", Answer::Limit(2_000));
        let asked = (0..=RECENT_USES).filter(|_| limits.may_refuse(&mut recent, "t", 100_000));
        assert!(asked.count() > 0, "a change is noticed");
    }

    #[test]
    fn a_limit_that_was_known_holds_while_the_brokers_are_away() {
        let limits = limits("t", Some(Answer::Limit(2_000)));
        limits.learn("t", Answer::Nothing);
        assert!(limits.may_refuse(&mut RecentLimits::default(), "t", 1_900));
        assert!(takes(&limits, 1_000) && !takes(&limits, 1_000));
    }

    #[test]
    fn a_topic_that_takes_less_than_a_batch_of_the_users_size_is_counted() {
        let mut producer = ClientConfig::new();
        producer.set("batch.size", "4000000");
        let limits = TopicLimits::new(&producer, Arc::default());
        let asked = Topic { limit: Limit::Asking, asked_at: Instant::now(), under_way: 0 };
        limits.lock().insert("t".to_owned(), asked);
        limits.learn("t", Answer::Limit(1_048_588));
        assert!(takes(&limits, 1_000_000) && !takes(&limits, 1_000_000));
    }

    /// Takes a record if there is room for it.
    fn takes(limits: &TopicLimits, bytes: usize) -> bool {
        let has_room = limits.has_room("t", bytes);
        if has_room {
            limits.take("t", bytes);
        }
        has_room
    }

    #[test]
    fn no_more_is_under_way_than_a_small_topic_takes_at_once() {
        let small = limits("t", Some(Answer::Limit(2_000)));
        assert!(takes(&small, 800) && takes(&small, 800));
        assert!(!takes(&small, 800), "the three together may be one batch");
        assert!(small.release("t", 800));
        assert!(takes(&small, 800));
        let common = limits("t", Some(Answer::Limit(1_048_588)));
        assert!((0..10_000).all(|_| takes(&common, 800)));
        assert!(!common.release("t", 800));
    }

    #[test]
    fn until_a_topic_is_known_one_record_at_a_time_is_under_way() {
        let asking = limits("t", None);
        assert!(takes(&asking, 64) && !takes(&asking, 64));
        assert!(asking.release("t", 64) && takes(&asking, 64));
        asking.learn("t", Answer::Limit(1_048_588));
        assert!((0..100).all(|_| takes(&asking, 800)));
        // What was under way before a limit became small is not waited for.
        asking.learn("t", Answer::Limit(2_000));
        assert!(takes(&asking, 800) && takes(&asking, 800) && !takes(&asking, 800));
    }

    #[test]
    fn a_record_larger_than_its_topic_takes_is_under_way_alone() {
        let small = limits("t", Some(Answer::Limit(2_000)));
        assert!(takes(&small, 5_000) && !takes(&small, 1));
        small.release("t", 5_000);
        assert!(takes(&small, 1));
    }
}
