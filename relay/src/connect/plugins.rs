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

/// Classes besides the connector, with their kind and version.
const OTHER_PLUGINS: [(&str, &str, &str); 4] = [
    (ROUTER_CLASS, "transformation", DEBEZIUM_VERSION),
    ("org.apache.kafka.connect.json.JsonConverter", "converter", CONNECT_VERSION),
    ("org.apache.kafka.connect.storage.StringConverter", "converter", CONNECT_VERSION),
    ("org.apache.kafka.connect.converters.ByteArrayConverter", "converter", CONNECT_VERSION),
];

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
    let connector = Plugin { class: CONNECTOR_CLASS, kind: "source", version: DEBEZIUM_VERSION };
    let others = OTHER_PLUGINS.iter().filter(|_| !connectors_only);
    let others = others.map(|&(class, kind, version)| Plugin { class, kind, version });
    std::iter::once(connector).chain(others).collect()
}

/// Whether `class` names the connector: in full, by its simple name, or by that without `Connector`.
pub(super) fn is_connector(class: &str) -> bool {
    let simple = CONNECTOR_CLASS.rsplit('.').next().unwrap_or_default();
    let pruned = simple.strip_suffix("Connector").unwrap_or(simple);
    [CONNECTOR_CLASS, simple, pruned].contains(&class)
}

/// The connector in the words of Kafka Connect's message about unknown classes.
pub(super) fn connector_description() -> String {
    format!(
        "PluginDesc{{klass=class {CONNECTOR_CLASS}, name='{CONNECTOR_CLASS}', version='{DEBEZIUM_VERSION}', \
         encodedVersion={DEBEZIUM_VERSION}, type=source, typeName='source', location='classpath'}}"
    )
}
