//! The control plane's promises: each required call, configurations that survive, masks, limits, a stop that drains.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use serde_json::{Value, json};
use testbed::{eventually, servers, unique_name};

use crate::connect_worker::{DEADLINE, Worker, example_config, outbox_database};

const JSON_MASK: &str = "********";

#[tokio::test(flavor = "multi_thread")]
async fn each_required_call_answers_as_kafka_connect_does() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let worker = Worker::start(&unique_name("api"), &[]).await?;
    let config = example_config(&database)?;
    let (status, root) = worker.get("/").await?;
    assert_eq!(status, 200);
    assert!(root["version"].is_string() && root["kafka_cluster_id"].is_string(), "{root}");
    assert_eq!(worker.get("/connectors").await?, (200, json!([])));

    let create = json!({"name": "outbox-connector", "config": config});
    let (status, created) = worker.call("POST", "/connectors/", Some(&create)).await?;
    assert_eq!((status, &created["name"]), (201, &json!("outbox-connector")), "{created}");
    assert_eq!((&created["type"], &created["tasks"]), (&json!("source"), &json!([])));
    let (status, again) = worker.call("POST", "/connectors/", Some(&create)).await?;
    assert_eq!(status, 409);
    assert_eq!(again["message"], "Connector outbox-connector already exists");
    worker.states("outbox-connector", "RUNNING", Some("RUNNING")).await?;

    let path = "/connectors/outbox-connector";
    let (status, kept) = worker.get(&format!("{path}/config")).await?;
    assert_eq!((status, &kept["topic.prefix"]), (200, &json!("dbserver1")));
    let (status, updated) = worker.call("PUT", &format!("{path}/config"), Some(&config)).await?;
    assert_eq!(status, 200, "{updated}");
    let mut wrong = config.clone();
    wrong["tasks.max"] = json!("0");
    wrong.as_object_mut().unwrap().remove("topic.prefix");
    let (status, refused) = worker.call("PUT", &format!("{path}/config"), Some(&wrong)).await?;
    assert_eq!(status, 400);
    let message = refused["message"].as_str().unwrap();
    assert!(message.contains("the following 2 error(s):\n"), "{message}");

    assert_eq!(worker.call("PUT", &format!("{path}/pause"), None).await?.0, 202);
    worker.states("outbox-connector", "PAUSED", Some("PAUSED")).await?;
    assert_eq!(worker.call("PUT", &format!("{path}/resume"), None).await?.0, 202);
    worker.states("outbox-connector", "RUNNING", Some("RUNNING")).await?;
    assert_eq!(worker.call("POST", &format!("{path}/restart"), None).await?.0, 204);
    let (status, plan) =
        worker.call("POST", &format!("{path}/restart?includeTasks=true"), None).await?;
    assert_eq!((status, &plan["tasks"][0]["state"]), (202, &json!("RESTARTING")));
    worker.states("outbox-connector", "RUNNING", Some("RUNNING")).await?;
    assert_eq!(worker.call("DELETE", path, None).await?.0, 204);
    assert_eq!(worker.get(path).await?.0, 404);
    assert_eq!(worker.call("DELETE", path, None).await?.0, 404);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_and_their_target_states_survive_a_restart_and_a_kill() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let topics = unique_name("survive");
    let first = Worker::start(&topics, &[]).await?;
    for (name, state) in [("runs", "RUNNING"), ("sleeps", "PAUSED"), ("stands", "STOPPED")] {
        let body =
            json!({"name": name, "config": example_config(&database)?, "initial_state": state});
        assert_eq!(first.call("POST", "/connectors", Some(&body)).await?.0, 201);
    }
    first.states("runs", "RUNNING", Some("RUNNING")).await?;
    first.call("DELETE", "/connectors/stands", None).await?;
    let (_, kept) = first.get("/connectors/runs/config").await?;
    assert!(first.program.terminate().await?.success());
    let last_words = first.program.output().join("\n");
    assert!(last_words.contains("task drained and stopped"), "{last_words}");

    let second = Worker::start(&topics, &[]).await?;
    assert_eq!(second.get("/connectors").await?.1, json!(["runs", "sleeps"]));
    second.states("runs", "RUNNING", Some("RUNNING")).await?;
    second.states("sleeps", "PAUSED", None).await?;
    assert_eq!(second.get("/connectors/runs/config").await?.1, kept);
    second.call("PUT", "/connectors/runs/pause", None).await?;
    second.states("runs", "PAUSED", Some("PAUSED")).await?;
    second.program.kill().await;

    let third = Worker::start(&topics, &[]).await?;
    third.states("runs", "PAUSED", Some("PAUSED")).await?;
    third.call("PUT", "/connectors/runs/resume", None).await?;
    third.states("runs", "RUNNING", Some("RUNNING")).await?;
    third.call("DELETE", "/connectors/runs", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn passwords_are_masked_and_a_mask_that_comes_back_keeps_them() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let worker = Worker::start(&unique_name("masks"), &[]).await?;
    let config = example_config(&database)?;
    let path = "/connectors/masked/config";
    let (status, created) = worker.call("PUT", path, Some(&config)).await?;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["config"]["database.password"], JSON_MASK);
    worker.states("masked", "RUNNING", Some("RUNNING")).await?;
    for path in ["/connectors/masked", path, "/connectors/masked/tasks", "/connectors?expand=info"]
    {
        let (_, answer) = worker.get(path).await?;
        let answer = answer.to_string();
        assert!(answer.contains(JSON_MASK) && !answer.contains(&database.password), "{path}");
    }
    let (_, mut edited) = worker.get(path).await?;
    edited["poll.interval.ms"] = json!("100");
    assert_eq!(worker.call("PUT", path, Some(&edited)).await?.0, 200);
    worker.states("masked", "RUNNING", Some("RUNNING")).await?;
    let patch = json!({"database.password": JSON_MASK, "poll.interval.ms": "200"});
    let (status, patched) = worker.call("PATCH", path, Some(&patch)).await?;
    assert_eq!((status, &patched["config"]["poll.interval.ms"]), (200, &json!("200")), "{patched}");
    worker.states("masked", "RUNNING", Some("RUNNING")).await?;
    let mut unknown = edited.clone();
    unknown["name"] = json!("other");
    let (status, refused) = worker.call("PUT", "/connectors/other/config", Some(&unknown)).await?;
    assert_eq!(status, 400);
    assert!(refused["message"].as_str().unwrap().contains("database.password"), "{refused}");
    let log = worker.program.output().join("\n");
    assert!(!log.contains(&database.password), "a password is in the log");
    worker.call("DELETE", "/connectors/masked", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn references_are_resolved_for_the_task_and_shown_as_written() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let env = [("ORDER_DB_PASSWORD", database.password.as_str()), ("RELAY_SHOW_PASSWORDS", "true")];
    let worker = Worker::start(&unique_name("refs"), &env).await?;
    let mut config = example_config(&database)?;
    config["database.password"] = json!("${env:ORDER_DB_PASSWORD}");
    let (status, created) = worker.call("PUT", "/connectors/refs/config", Some(&config)).await?;
    assert_eq!(status, 201, "{created}");
    assert_eq!(created["config"]["database.password"], "${env:ORDER_DB_PASSWORD}");
    worker.states("refs", "RUNNING", Some("RUNNING")).await?;
    worker.call("DELETE", "/connectors/refs", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connectors_of_the_file_list_are_registered_once() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let file = std::env::temp_dir().join(format!("{}.json", unique_name("connector")));
    let body = json!({"name": "listed", "config": example_config(&database)?});
    std::fs::write(&file, body.to_string())?;
    let topics = unique_name("listed");
    let list = file.display().to_string();
    let first = Worker::start(&topics, &[("CONNECTORS", &list)]).await?;
    first.states("listed", "RUNNING", Some("RUNNING")).await?;
    first.call("PUT", "/connectors/listed/pause", None).await?;
    first.states("listed", "PAUSED", Some("PAUSED")).await?;
    first.program.terminate().await?;
    let second = Worker::start(&topics, &[("CONNECTORS", &list)]).await?;
    second.states("listed", "PAUSED", Some("PAUSED")).await?;
    second.call("DELETE", "/connectors/listed", None).await?;
    std::fs::remove_file(&file)?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_settings_end_the_process_before_it_listens() -> Result<()> {
    let missing = [("CONNECTORS", "/nowhere/connector.json")];
    for (env, named) in [
        (missing.as_slice(), "CONNECTORS"),
        (&[("RELAY_CONNECT_TO", "x")], "RELAY_CONNECT_TO"),
        (&[("OFFSET_FLUSH_INTERVAL_MS", "soon")], "OFFSET_FLUSH_INTERVAL_MS"),
    ] {
        let worker = Worker::start_only("127.0.0.1:1", &unique_name("bad"), env)?;
        worker.program.line(named, DEADLINE).await?;
        assert!(!worker.program.wait(DEADLINE).await?.success());
        let output = worker.program.output().join("\n");
        assert!(!output.contains("listens"), "{output}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_without_kafka_is_alive_not_ready_and_stops_at_once() -> Result<()> {
    let worker = Worker::start_only("127.0.0.1:1", &unique_name("alone"), &[])?;
    worker.program.line("waiting for Kafka", DEADLINE).await?;
    assert_eq!(worker.get("/health/live").await?.0, 200);
    assert_eq!(worker.get("/health/ready").await?.0, 503);
    let (status, health) = worker.get("/health").await?;
    assert_eq!((status, &health["status"]), (503, &json!("starting")));
    let begun = Instant::now();
    let (status, refused) = worker.get("/connectors").await?;
    assert_eq!((status, &refused["error_code"]), (503, &json!(503)));
    assert!(begun.elapsed() > Duration::from_secs(1), "it waits a while for Kafka first");
    assert!(worker.program.terminate().await?.success());
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_above_the_limit_are_refused() -> Result<()> {
    let worker = Worker::start(&unique_name("large"), &[]).await?;
    let large = json!({"name": "x".repeat(2 * 1024 * 1024), "config": {}});
    let (status, refused) = worker.call("POST", "/connectors", Some(&large)).await?;
    assert_eq!((status, &refused["error_code"]), (413, &json!(413)));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn storage_records_have_connect_s_keys_and_the_topics_are_compacted() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let topics = unique_name("records");
    let settings = [("CONNECT_CONFIG_STORAGE_SEGMENT_BYTES", "2097152")];
    let worker = Worker::start(&topics, &settings).await?;
    let body = json!({"name": "stored", "config": example_config(&database)?});
    worker.call("POST", "/connectors", Some(&body)).await?;
    worker.states("stored", "RUNNING", Some("RUNNING")).await?;
    worker.call("PUT", "/connectors/stored/stop", None).await?;
    worker.states("stored", "STOPPED", None).await?;
    let offsets =
        json!({"offsets": [{"partition": {"server": "dbserver1"}, "offset": {"lsn": 1}}]});
    let (status, _) = worker.call("PATCH", "/connectors/stored/offsets", Some(&offsets)).await?;
    assert_eq!(status, 200);
    let kafka = servers().await?.bootstrap_servers();
    let read = |kind: &str| {
        let topic = format!("{topics}_{kind}");
        async move { testbed::topic::read(kafka, &topic).await }
    };
    let configs = read("configs").await?;
    let keys: Vec<_> = configs.iter().map(testbed::topic::Record::key_text).collect();
    for key in ["connector-stored", "task-stored-0", "commit-stored", "target-state-stored"] {
        assert!(keys.iter().any(|found| found == key), "{key} in {keys:?}");
    }
    let last = configs.iter().rfind(|record| record.key_text() == "target-state-stored").unwrap();
    assert_eq!(last.value_text(), r#"{"state":"PAUSED","state.v2":"STOPPED"}"#);
    let offsets = read("offsets").await?;
    assert_eq!(offsets.len(), 1);
    assert_eq!(offsets[0].key_text(), r#"["stored",{"server":"dbserver1"}]"#);
    let statuses = eventually("the task's tombstone", DEADLINE, || async {
        let statuses = read("statuses").await?;
        let task = |record: &&testbed::topic::Record| record.key_text() == "status-task-stored-0";
        let gone = statuses.iter().rfind(task).is_some_and(|record| record.value.is_none());
        Ok(gone.then_some(statuses))
    });
    let statuses = statuses.await?;
    let first: Value = serde_json::from_slice(statuses[0].value.as_deref().unwrap_or_default())?;
    ensure!(first["worker_id"] == json!(worker.address), "{first}");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", kafka).create()?;
    let broker_s = "1073741824"; // Kafka's default of log.segment.bytes
    for (kind, segment) in [("configs", "2097152"), ("offsets", "16777216"), ("statuses", broker_s)]
    {
        let topic = format!("{topics}_{kind}");
        let resource = ResourceSpecifier::Topic(&topic);
        let described = admin.describe_configs([&resource], &AdminOptions::new()).await?;
        let config = described.into_iter().next().context("a topic")??;
        let has = |name: &str| config.get(name).and_then(|entry| entry.value.as_deref());
        assert_eq!(has("cleanup.policy"), Some("compact"), "{topic}");
        assert_eq!(has("segment.bytes"), Some(segment), "{topic}");
    }
    worker.call("DELETE", "/connectors/stored", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn many_calls_at_once_are_all_answered_and_a_name_is_given_once() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let worker = Arc::new(Worker::start(&unique_name("crowd"), &[]).await?);
    let config = example_config(&database)?;
    let body = json!({"name": "crowded", "config": config, "initial_state": "STOPPED"});
    let mut calls = tokio::task::JoinSet::new();
    for number in 0..100 {
        let (worker, body) = (Arc::clone(&worker), body.clone());
        calls.spawn(async move {
            match number % 10 {
                0 => worker.call("POST", "/connectors", Some(&body)).await,
                _ => worker.get("/connectors?expand=status&expand=info").await,
            }
        });
    }
    let answers = calls.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    let count = |wanted: u16| answers.iter().filter(|(status, _)| *status == wanted).count();
    assert_eq!((count(200), count(201), count(409)), (90, 1, 9));
    worker.call("DELETE", "/connectors/crowded", None).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn topics_in_use_are_told_as_the_worker_is_set() -> Result<()> {
    let untracked = [("CONNECT_TOPIC_TRACKING_ENABLE", "false")];
    let worker = Worker::start(&unique_name("untracked"), &untracked).await?;
    for (method, path) in [("GET", "/connectors/x/topics"), ("PUT", "/connectors/x/topics/reset")] {
        let (status, refused) = worker.call(method, path, None).await?;
        assert_eq!((status, &refused["error_code"]), (403, &json!(403)));
        assert_eq!(refused["message"], "Topic tracking is disabled.");
    }
    let kept = [("CONNECT_TOPIC_TRACKING_ALLOW_RESET", "false")];
    let worker = Worker::start(&unique_name("kept"), &kept).await?;
    assert_eq!(worker.get("/connectors/x/topics").await?.0, 200);
    let (status, refused) = worker.call("PUT", "/connectors/x/topics/reset", None).await?;
    assert_eq!((status, &refused["message"]), (403, &json!("Topic tracking reset is disabled.")));
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn validation_names_each_wrong_option_and_recommends_values() -> Result<()> {
    let (database, _sql) = outbox_database().await?;
    let worker = Worker::start(&unique_name("validate"), &[]).await?;
    let mut config = example_config(&database)?;
    config["name"] = json!("checked");
    config["snapshot.mode"] = json!("sometimes");
    config["tasks.max"] = json!(0);
    let path = "/connector-plugins/PostgresConnector/config/validate";
    let (status, answer) = worker.call("PUT", path, Some(&config)).await?;
    assert_eq!((status, &answer["error_count"]), (200, &json!(2)), "{answer}");
    let value = |option: &str| {
        let configs = answer["configs"].as_array().unwrap();
        let found = configs.iter().find(|config| config["value"]["name"] == option);
        found.unwrap_or_else(|| panic!("{option} in {answer}"))["value"].clone()
    };
    let mode = value("snapshot.mode");
    assert_eq!(mode["errors"].as_array().map(Vec::len), Some(1));
    assert!(mode["recommended_values"].as_array().unwrap().contains(&json!("no_data")), "{mode}");
    assert_eq!(value("tasks.max")["errors"].as_array().map(Vec::len), Some(1));
    assert_eq!(value("topic.prefix")["errors"], json!([]));
    Ok(())
}
