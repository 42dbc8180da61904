//! What `connector-plugins` lists: the classes of Debezium and Kafka that the relay stands in for.

use serde::Serialize;

/// The version of Debezium whose behaviour is spoken; clients read it as the connector's version.
pub(super) const DEBEZIUM_VERSION: &str = "3.7.0.Final";
/// The version of Kafka Connect whose REST API is spoken.
pub(super) const CONNECT_VERSION: &str = "4.3.1";

/// The one connector.
pub(super) const CONNECTOR_CLASS: &str = "io.debezium.connector.postgresql.PostgresConnector";
/// The class of its task, in the task configurations that Kafka Connect stores.
pub(super) const TASK_CLASS: &str = "io.debezium.connector.postgresql.PostgresConnectorTask";
/// The transform.
pub(super) const ROUTER_CLASS: &str = "io.debezium.transforms.outbox.EventRouter";

/// Converters of values and keys, in the order of Kafka Connect's answer.
const CONVERTERS: [(&str, &str); 11] = [
    ("io.debezium.converters.BinaryDataConverter", DEBEZIUM_VERSION),
    ("io.debezium.converters.ByteArrayConverter", DEBEZIUM_VERSION),
    ("org.apache.kafka.connect.converters.BooleanConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.ByteArrayConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.DoubleConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.FloatConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.IntegerConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.LongConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.ShortConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.json.JsonConverter", CONNECT_VERSION),
    ("org.apache.kafka.connect.storage.StringConverter", CONNECT_VERSION),
];

/// Converts headers alone; every other converter does that as well.
const HEADER_CONVERTER: (&str, &str) =
    ("org.apache.kafka.connect.storage.SimpleHeaderConverter", CONNECT_VERSION);

/// A plugin as `GET /connector-plugins` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Plugin {
    class: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    version: &'static str,
}

/// The connectors, or all kinds of plugins.
pub(super) fn list(connectors_only: bool) -> Vec<Plugin> {
    let plugin = |kind| move |(class, version)| Plugin { class, kind, version };
    let mut all = vec![plugin("source")((CONNECTOR_CLASS, DEBEZIUM_VERSION))];
    if !connectors_only {
        all.push(plugin("transformation")((ROUTER_CLASS, DEBEZIUM_VERSION)));
        all.extend(CONVERTERS.map(plugin("converter")));
        all.extend(CONVERTERS.map(plugin("header_converter")));
        all.push(plugin("header_converter")(HEADER_CONVERTER));
    }
    all
}

/// The classes of one kind.
pub(super) fn of_kind(kind: &str) -> Vec<&'static str> {
    list(false).iter().filter(|plugin| plugin.kind == kind).map(|plugin| plugin.class).collect()
}

/// Whether a class is one of those listed.
pub(super) fn is_known(class: &str) -> bool {
    list(false).iter().any(|plugin| plugin.class == class)
}

/// Whether `class` names the connector: in full, by its simple name, or by that without `Connector`.
pub(super) fn is_connector(class: &str) -> bool {
    let simple = CONNECTOR_CLASS.rsplit('.').next().unwrap_or_default();
    let pruned = simple.strip_suffix("Connector").unwrap_or(simple);
    [CONNECTOR_CLASS, simple, pruned].contains(&class)
}

/// Whether the class in a configuration is the one that a path names, in full or in short.
pub(super) fn same_connector(class: &str, path: &str) -> bool {
    let pruned = |name: &str| match name.strip_suffix("Connector") {
        Some(rest) if !rest.is_empty() => rest.to_owned(),
        _ => name.to_owned(),
    };
    pruned(class).ends_with(&pruned(path))
}

/// The connector in the words of Kafka Connect's message about unknown classes.
pub(super) fn connector_description() -> String {
    format!(
        "PluginDesc{{klass=class {CONNECTOR_CLASS}, name='{CONNECTOR_CLASS}', version='{DEBEZIUM_VERSION}', \
         encodedVersion={DEBEZIUM_VERSION}, type=source, typeName='source', location='classpath'}}"
    )
}
