//! The worker's environment: that each variable of it does something.

use std::time::Duration;

use anyhow::Result;
use relay::config::WorkerConfig;
use testbed::{eventually, unique_name};

use crate::connect_worker::{DEADLINE, Worker};

fn read(variables: &[(&str, &str)]) -> WorkerConfig {
    let all = [("BOOTSTRAP_SERVERS", "kafka:9092")].into_iter().chain(variables.iter().copied());
    WorkerConfig::from_variables(all.map(|(n, v)| (n.to_owned(), v.to_owned()))).unwrap()
}

#[test]
fn addresses_of_the_rest_api_are_those_of_the_image_s_variables() {
    let check = |variables: &[(&str, &str)], listen: &str, advertised: &str| {
        let config = read(variables);
        assert_eq!(config.listen.to_string(), listen, "{variables:?}");
        assert_eq!(config.advertised.to_string(), advertised, "{variables:?}");
    };
    check(&[], "0.0.0.0:8083", "127.0.0.1:8083");
    check(&[("REST_PORT", "8084")], "0.0.0.0:8084", "127.0.0.1:8084");
    check(&[("REST_HOST_NAME", "10.0.0.7")], "10.0.0.7:8083", "10.0.0.7:8083");
    check(&[("HOSTNAME", "one")], "0.0.0.0:8083", "one:8083");
    let advertised = [("ADVERTISED_HOST_NAME", "relay"), ("ADVERTISED_PORT", "80")];
    check(&advertised, "0.0.0.0:8083", "relay:80");
    let both = [("CONNECT_LISTENERS", "http://127.0.0.1:1"), ("REST_PORT", "8084")];
    check(&both, "127.0.0.1:1", "127.0.0.1:1");
}

#[test]
fn storage_topics_are_created_as_the_variables_say() {
    let default = read(&[]);
    assert_eq!(default.config_topic.replication, None);
    let config = read(&[
        ("CONNECT_CONFIG_STORAGE_REPLICATION_FACTOR", "1"),
        ("CONNECT_OFFSET_STORAGE_REPLICATION_FACTOR", "2"),
        ("CONNECT_STATUS_STORAGE_REPLICATION_FACTOR", "-1"),
        ("CONNECT_OFFSET_STORAGE_PARTITIONS", "7"),
        ("CONNECT_STATUS_STORAGE_SEGMENT_BYTES", "2097152"),
        ("CONNECT_STATUS_STORAGE_CLEANUP_POLICY", "delete"),
        ("OFFSET_FLUSH_INTERVAL_MS", "1500"),
        ("OFFSET_FLUSH_TIMEOUT_MS", "1"),
        ("SHUTDOWN_TIMEOUT", "3000"),
    ]);
    let topics = [&config.config_topic, &config.offset_topic, &config.status_topic];
    assert_eq!(topics.map(|topic| topic.replication), [Some(1), Some(2), Some(-1)]);
    assert_eq!(topics.map(|topic| topic.partitions), [1, 7, 5]);
    let settings = topics.map(|topic| topic.settings.iter().collect::<Vec<_>>());
    let (segment, ours) = ("segment.bytes".to_owned(), "16777216".to_owned());
    // Offsets are stored once a second: their topic is compacted earlier than with Kafka's segments of a gigabyte. The
    // policy is compact, whatever is said.
    let theirs = "2097152".to_owned();
    assert_eq!(settings, [vec![], vec![(&segment, &ours)], vec![(&segment, &theirs)]]);
    assert_eq!(config.offset_flush_interval, Duration::from_millis(1500));
    assert_eq!(config.shutdown_timeout, Duration::from_secs(3));
}

/// A value that Kafka's client refuses must have reached it.
#[tokio::test(flavor = "multi_thread")]
async fn settings_of_kafka_s_client_reach_it() -> Result<()> {
    for (variables, refused) in [
        (&[("CONNECT_CLIENT_DNS_LOOKUP", "none")][..], "client.dns.lookup"),
        (&[("CONNECT_RECONNECT_BACKOFF_MS", "none")], "reconnect.backoff.ms"),
        (&[("CONNECT_RECONNECT_BACKOFF_MAX_MS", "none")], "reconnect.backoff.max.ms"),
        (&[("CONNECT_METADATA_MAX_AGE_MS", "none")], "metadata.max.age.ms"),
    ] {
        let worker = Worker::start_only("127.0.0.1:1", &unique_name("client"), variables)?;
        assert!(!worker.program.wait(DEADLINE).await?.success());
        let output = worker.program.output().join("\n");
        assert!(output.contains("refuses the worker's settings"), "{output}");
        assert!(output.contains(refused), "{output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_log_has_the_level_and_the_form_that_are_asked_for() -> Result<()> {
    let start = |variables: &[(&str, &str)]| {
        Worker::start_only("127.0.0.1:1", &unique_name("log"), variables)
    };
    let (plain, quiet) = (start(&[])?, start(&[("RUST_LOG", "warn")])?);
    let json = start(&[("LOG_FORMAT", "json")])?;
    plain.program.line("REST API listens", DEADLINE).await?;
    let line = json.program.line("REST API listens", DEADLINE).await?;
    assert!(serde_json::from_str::<serde_json::Value>(&line)?.is_object());
    let answers = || async { Ok((quiet.get("/health/live").await?.0 == 200).then_some(())) };
    eventually("answer of the quiet one", DEADLINE, answers).await?;
    quiet.program.terminate().await?;
    assert!(!quiet.program.output().join("\n").contains("listens"), "{}", quiet.program.tail());
    Ok(())
}
