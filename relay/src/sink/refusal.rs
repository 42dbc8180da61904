//! What librdkafka's errors mean: a record, a topic or a producer at fault, and what to do; pure.

use rdkafka::error::{KafkaError, RDKafkaErrorCode};

use super::SinkError;

/// What an error of librdkafka means for the relay.
pub(super) fn refusal(error: &KafkaError, topic: &str) -> SinkError {
    let code = error.rdkafka_error_code();
    let of_topic = matches!(
        code,
        Some(
            RDKafkaErrorCode::UnknownTopic
                | RDKafkaErrorCode::UnknownTopicOrPartition
                | RDKafkaErrorCode::InvalidTopic
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
        )
    );
    let advice = match code {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            "it is larger than the topic takes; raise the topic's max.message.bytes"
        }
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::InvalidTopic,
        ) => {
            "the topic does not exist and the broker does not create it, or its name is not legal; \
             create it, or allow auto.create.topics.enable"
        }
        Some(RDKafkaErrorCode::UnknownPartition) => {
            "the topic has no such partition; add partitions, or change the column that selects it"
        }
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => "the relay may not write there; grant it WRITE (and IDEMPOTENT_WRITE on old brokers)",
        Some(RDKafkaErrorCode::InvalidRecord | RDKafkaErrorCode::PolicyViolation) => {
            "the broker's rules for the topic do not allow it"
        }
        Some(RDKafkaErrorCode::InvalidTimestamp) => {
            "its timestamp is too far from the broker's clock; see the topic's \
             message.timestamp.before.max.ms and after.max.ms, and table.field.event.timestamp"
        }
        code if code.is_none_or(ends_the_producer) => {
            return SinkError::Producer { reason: error.to_string() };
        }
        Some(_) | None => "Kafka's documentation of the error says what to do",
    };
    let (topic, reason) = (topic.to_owned(), format!("{error}; {advice}"));
    match of_topic {
        true => SinkError::Topic { topic, reason },
        false => SinkError::Record { topic, reason },
    }
}

/// Errors of the producer as a whole: a new one reads again what was not acknowledged.
const fn ends_the_producer(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::Fatal
            | RDKafkaErrorCode::GaplessGuarantee
            | RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::PurgeInflight
            | RDKafkaErrorCode::MessageTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::OutOfOrderSequenceNumber
            | RDKafkaErrorCode::DuplicateSequenceNumber
            | RDKafkaErrorCode::UnknownProducerId
            | RDKafkaErrorCode::InvalidProducerEpoch
            | RDKafkaErrorCode::NotEnoughReplicas
            | RDKafkaErrorCode::NotEnoughReplicasAfterAppend
    )
}
