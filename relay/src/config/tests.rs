//! Tests of how the environment is read.

use super::*;

fn read(variables: &[(&str, &str)]) -> Result<WorkerConfig, ConfigError> {
    let kafka = [("BOOTSTRAP_SERVERS", "kafka:9092")];
    let all = kafka.iter().chain(variables);
    WorkerConfig::from_variables(all.map(|(n, v)| ((*n).to_owned(), (*v).to_owned())))
}

#[test]
fn the_image_s_rule_makes_worker_properties_of_variables() {
    let config =
        read(&[("CONNECT_KEY_CONVERTER_SCHEMAS_ENABLE", "false"), ("GROUP_ID", "7")]).unwrap();
    assert_eq!(config.properties.get("key.converter.schemas.enable"), Some("false"));
    assert_eq!(config.properties.get("value.converter"), Some(JSON_CONVERTER));
    assert_eq!(config.group_id, "7");
    assert_eq!(config.listen.to_string(), "0.0.0.0:8083");
    assert_eq!((config.offset_topic.partitions, config.status_topic.partitions), (25, 5));
}

#[test]
fn bad_settings_are_refused_with_the_variable_s_name() {
    let check = |name: &str, value: &str| {
        assert_eq!(read(&[(name, value)]).unwrap_err().variable, name, "{value}");
    };
    check("BOOTSTRAP_SERVERS", "kafka");
    check("CONNECT_LISTENERS", "tls://0.0.0.0:8083");
    check("CONNECT_LISTENERS", "http://0.0.0.0");
    check("CONNECT_SECURITY_PROTOCOL", "TLS");
    check("CONNECT_PRODUCER_SECURITY_PROTOCOL", "TLS");
    check("CONNECT_REST_EXTENSION_CLASSES", "org.x.Some");
    check("OFFSET_FLUSH_INTERVAL_MS", "soon");
    check("RELAY_CONNECT_TO", "order-db=here");
    check("RELAY_SHOW_PASSWORDS", "maybe");
    check("LOG_FORMAT", "xml");
}

#[test]
fn maps_of_addresses_and_converter_options_are_kept() {
    let config = read(&[
        ("RELAY_CONNECT_TO", "order-db:5432=127.0.0.1:15432"),
        ("CONNECT_PRODUCER_LINGER_MS", "5"),
    ])
    .unwrap();
    assert_eq!(config.connect_to["order-db:5432"], "127.0.0.1:15432");
    assert_eq!(config.converters["key.converter"], JSON_CONVERTER);
    assert_eq!(config.producer["linger.ms"].expose(), "5");
}

#[test]
fn debug_output_holds_no_secret() {
    let login = "x.plain.PlainLoginModule required username=\"u\" password=\"hush\";";
    let config = read(&[
        ("CONNECT_SECURITY_PROTOCOL", "SASL_SSL"),
        ("CONNECT_SASL_MECHANISM", "PLAIN"),
        ("CONNECT_SASL_JAAS_CONFIG", login),
        ("CONNECT_PRODUCER_SASL_JAAS_CONFIG", login),
        ("CONNECT_VALUE_CONVERTER_BASIC_AUTH_USER_INFO", "hush"),
        ("CONNECT_PRODUCER_SSL_KEY_PASSWORD", "hush"),
        ("PGPASSWORD", "hush"),
    ])
    .unwrap();
    assert_eq!(config.kafka_client["sasl.password"].expose(), "hush");
    assert!(!format!("{config:?}").contains("hush"));
}

#[test]
fn an_https_listener_needs_its_certificate_as_pem() {
    let https = ("CONNECT_LISTENERS", "https://0.0.0.0:8443");
    let refused = |more: &[(&str, &str)]| read(&[&[https], more].concat()).unwrap_err().variable;
    assert_eq!(refused(&[]), "CONNECT_SSL_KEYSTORE_LOCATION");
    let store = ("CONNECT_LISTENERS_HTTPS_SSL_KEYSTORE_LOCATION", "/tls.jks");
    assert_eq!(refused(&[store]), store.0);
    let own = ("CONNECT_LISTENERS_HTTPS_SSL_KEYSTORE_LOCATION", "/tls.pem");
    let authentication = ("CONNECT_LISTENERS_HTTPS_SSL_CLIENT_AUTH", "required");
    let missing = refused(&[own, authentication]);
    assert_eq!(missing, "CONNECT_LISTENERS_HTTPS_SSL_TRUSTSTORE_LOCATION");
    // With one setting of the listener's own, none of the worker's counts.
    let worker = ("CONNECT_SSL_TRUSTSTORE_LOCATION", "/ca.pem");
    assert_eq!(refused(&[own, authentication, worker]), missing);
    let tls = read(&[https, own]).unwrap().rest.tls.unwrap();
    assert_eq!(tls.certificates, Pem::File("/tls.pem".into()));
    assert_eq!((tls.key, tls.clients), (Pem::File("/tls.pem".into()), None));
}

#[test]
fn a_lock_that_kafka_connect_would_have_is_not_left_out_in_silence() {
    let extension = (
        "CONNECT_REST_EXTENSION_CLASSES",
        "org.apache.kafka.connect.rest.basic.auth.extension.BasicAuthSecurityRestExtension",
    );
    let refused = read(&[extension]).unwrap_err();
    assert_eq!(refused.variable, extension.0);
    assert!(refused.problem.contains("RELAY_REST_USERS_FILE"), "{refused}");
    let users = ("RELAY_REST_USERS_FILE", "/run/secrets/users");
    assert!(read(&[extension, users]).unwrap().rest.users_file.is_some());
}
