//! The steps at which a change may fail, as Kafka Connect names them.

use std::fmt;

use crate::convert;

/// Where a change failed on its way, as Kafka Connect names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// The connector could not read it.
    Poll,
    /// A transform refused it.
    Transformation,
    /// A converter refused a header.
    HeaderConverter,
    /// A converter refused the key.
    KeyConverter,
    /// A converter refused the value.
    ValueConverter,
    /// Kafka takes no such record: its topic, partition, timestamp or size is wrong.
    Produce,
}

impl fmt::Display for Stage {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Poll => "TASK_POLL",
            Self::Transformation => "TRANSFORMATION",
            Self::HeaderConverter => "HEADER_CONVERTER",
            Self::KeyConverter => "KEY_CONVERTER",
            Self::ValueConverter => "VALUE_CONVERTER",
            Self::Produce => "KAFKA_PRODUCE",
        })
    }
}

impl From<convert::Stage> for Stage {
    fn from(stage: convert::Stage) -> Self {
        match stage {
            convert::Stage::Header => Self::HeaderConverter,
            convert::Stage::Key => Self::KeyConverter,
            convert::Stage::Value => Self::ValueConverter,
            convert::Stage::Record => Self::Produce,
        }
    }
}
