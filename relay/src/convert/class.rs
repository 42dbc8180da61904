//! Converter classes by the names that Connect takes: the full one, the simple one, the simple one without its kind.

/// A converter that is supported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ConverterClass {
    String,
    Json,
    ByteArray,
    Binary,
    /// Debezium's own `ByteArrayConverter`.
    DebeziumByteArray,
    SimpleHeader,
    Boolean,
    Short,
    Integer,
    Long,
    Float,
    Double,
}

const CLASSES: [(&str, ConverterClass); 12] = [
    ("org.apache.kafka.connect.storage.StringConverter", ConverterClass::String),
    ("org.apache.kafka.connect.json.JsonConverter", ConverterClass::Json),
    ("org.apache.kafka.connect.converters.ByteArrayConverter", ConverterClass::ByteArray),
    ("org.apache.kafka.connect.storage.SimpleHeaderConverter", ConverterClass::SimpleHeader),
    ("io.debezium.converters.BinaryDataConverter", ConverterClass::Binary),
    ("io.debezium.converters.ByteArrayConverter", ConverterClass::DebeziumByteArray),
    ("org.apache.kafka.connect.converters.BooleanConverter", ConverterClass::Boolean),
    ("org.apache.kafka.connect.converters.ShortConverter", ConverterClass::Short),
    ("org.apache.kafka.connect.converters.IntegerConverter", ConverterClass::Integer),
    ("org.apache.kafka.connect.converters.LongConverter", ConverterClass::Long),
    ("org.apache.kafka.connect.converters.FloatConverter", ConverterClass::Float),
    ("org.apache.kafka.connect.converters.DoubleConverter", ConverterClass::Double),
];

impl ConverterClass {
    /// Finds a class by a name. Of two classes with one simple name, Kafka's is meant.
    pub(super) fn find(name: &str) -> Option<Self> {
        let matches = |full: &str| {
            let simple = full.rsplit('.').next().unwrap_or(full);
            let pruned = ["HeaderConverter", "Converter"]
                .iter()
                .find_map(|kind| simple.strip_suffix(kind))
                .unwrap_or(simple);
            name == full || name == simple || name == pruned
        };
        CLASSES.iter().find(|(full, _)| matches(full)).map(|(_, class)| *class)
    }

    /// Full names, for the list of plugins and for messages.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        CLASSES.iter().map(|(name, _)| *name)
    }
}
