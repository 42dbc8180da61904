//! Dead letters again: listed, replayed in order, marked, and their keys free afterwards.

use anyhow::{Context, Result, bail, ensure};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use relay::connector_config::DeadLetterConfig;
use relay::dead_letter::desk::ReplaySummary;
use relay::dead_letter::topic::DeadLetterTopic;
use relay::task::TaskHandle;
use serde_json::{Value, json};
use sqlx::PgConnection;
use testbed::{eventually, servers, topic, unique_name};

use crate::connect_worker::{Worker, example_config, outbox_database};
use crate::outbox::{DEADLINE, Outbox, running, trace_of_failure};

/// What a replay repeats at the most after a crash: it marks its progress that often.
const LETTERS_PER_MARK: usize = 100;

/// An outbox, its events' topic, and its dead letters'.
struct Parking {
    outbox: Outbox,
    topic: String,
    letters: String,
}

impl Parking {
    async fn new() -> Result<Self> {
        let (topic, letters) = (unique_name("events"), unique_name("letters"));
        let mut outbox = Outbox::new().await?;
        outbox
            .execute("alter table inventory.outboxevent alter aggregatetype drop not null")
            .await?;
        let outbox = outbox
            .with("transforms.outbox.route.topic.replacement", &topic)
            .with("errors.tolerance", "all")
            .with("errors.deadletterqueue.topic.name", &letters)
            .with("errors.deadletterqueue.topic.replication.factor", "1")
            .with("relay.errors.parked.key", "park");
        Ok(Self { outbox, topic, letters })
    }

    async fn start(&self) -> Result<TaskHandle> {
        let task = self.outbox.start_to_test_kafka().await?;
        running(&task).await?;
        Ok(task)
    }

    fn with(self, option: &str, value: &str) -> Self {
        Self { outbox: self.outbox.with(option, value), ..self }
    }

    /// Inserts rows; without an aggregate type they can only be routed by another column.
    async fn emit(&mut self, key: &str, number: u32, aggregate_type: Option<&str>) -> Result<()> {
        let aggregate_type = aggregate_type.map_or("null".to_owned(), |text| format!("'{text}'"));
        self.outbox
            .execute(&format!(
                "insert into inventory.outboxevent (aggregatetype, aggregateid, type, payload) \
                 values ({aggregate_type}, '{key}', 'OrderCreated', '{{\"n\": {number}}}')"
            ))
            .await
    }

    /// Key and number of each event, in the order of the topic.
    async fn published(&self, count: usize) -> Result<Vec<(String, String)>> {
        let bootstrap_servers = servers().await?.bootstrap_servers();
        let all = topic::wait_for(bootstrap_servers, &self.topic, count, DEADLINE).await?;
        all.iter().map(|record| Ok((record.key_text(), number(record)?.to_string()))).collect()
    }

    async fn letters(&self, count: usize) -> Result<Vec<topic::Record>> {
        let bootstrap_servers = servers().await?.bootstrap_servers();
        topic::wait_for(bootstrap_servers, &self.letters, count, DEADLINE).await
    }
}

/// The number in an event's payload.
fn number(record: &topic::Record) -> Result<u32> {
    let payload: Value = serde_json::from_str(&record.value_text())?;
    let number = payload["n"].as_u64().context("no number")?;
    Ok(u32::try_from(number)?)
}

async fn replay(task: &TaskHandle) -> Result<ReplaySummary> {
    let desk = task.dead_letters().context("no dead letters")?;
    let answered = desk.ask().context("too many have asked")?;
    tokio::time::timeout(DEADLINE, answered).await??.map_err(anyhow::Error::msg)
}

fn events(expected: &[(&str, &str)]) -> Vec<(String, String)> {
    expected.iter().map(|(key, number)| ((*key).to_owned(), (*number).to_owned())).collect()
}

#[tokio::test]
async fn a_replay_publishes_parked_events_in_order_with_the_options_of_now_and_frees_their_keys()
-> Result<()> {
    let mut parking = Parking::new().await?;
    let task = parking.start().await?;
    parking.emit("7", 1, None).await?;
    parking.emit("7", 2, Some("Order")).await?;
    parking.emit("8", 1, Some("Order")).await?;
    parking.emit("7", 3, Some("Order")).await?;
    parking.letters(3).await?;
    assert_eq!(parking.published(1).await?, events(&[("8", "1")]));
    // Nothing has changed: what failed fails again, and keeps its place before the others of its key.
    let again = replay(&task).await?;
    assert_eq!((again.replayed, again.dead_again, again.complete), (0, 3, true));
    task.stop().await;

    // The other column is never null. The key is still parked after the start.
    let mut parking = parking.with("transforms.outbox.route.by.field", "type");
    let task = parking.start().await?;
    parking.emit("7", 4, Some("Order")).await?;
    parking.emit("8", 2, Some("Order")).await?;
    assert_eq!(parking.published(2).await?, events(&[("8", "1"), ("8", "2")]));
    // Three letters, their mark after the first replay, the same three, and the new one.
    parking.letters(3 + 3 + 1 + 1).await?;
    let summary = replay(&task).await?;
    assert_eq!((summary.replayed, summary.dead_again, summary.complete), (4, 0, true));
    parking.emit("7", 5, Some("Order")).await?;
    let expected =
        [("8", "1"), ("8", "2"), ("7", "1"), ("7", "2"), ("7", "3"), ("7", "4"), ("7", "5")];
    assert_eq!(parking.published(7).await?, events(&expected));
    let nothing = replay(&task).await?;
    assert_eq!(nothing, ReplaySummary { complete: true, ..ReplaySummary::default() });
    task.stop().await;

    // The mark survives a start: nothing is parked any more.
    let task = parking.start().await?;
    parking.emit("7", 6, Some("Order")).await?;
    assert_eq!(parking.published(8).await?.last(), events(&[("7", "6")]).first());
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn an_event_that_fails_again_keeps_its_key_parked_and_the_others_go_out() -> Result<()> {
    let mut parking = Parking::new().await?;
    let task = parking.start().await?;
    parking.emit("7", 1, None).await?;
    parking.emit("7", 2, Some("Order")).await?;
    parking.emit("9", 1, Some("to be cleaned by a person")).await?;
    task.stop().await;
    // Now the aggregate type may have blanks, but not be null.
    let mut parking = parking.with("transforms.outbox.route.topic.regex", "(?<routedByValue>.*)");
    let task = parking.start().await?;
    let summary = replay(&task).await?;
    parking.emit("7", 3, Some("Order")).await?;
    parking.emit("9", 2, Some("Order")).await?;
    ensure!(summary.dead_again == 2 && summary.complete, "{summary:?}");
    let published = parking.published(2).await?;
    assert_eq!(published, events(&[("9", "1"), ("9", "2")]));
    let letters = parking.letters(6).await?;
    let last: Value = serde_json::from_str(&letters[letters.len() - 1].value_text())?;
    assert_eq!(
        (&last["kind"], &last["change"]["after"]["payload"]),
        (&json!("parked"), &json!("{\"n\": 3}"))
    );
    task.stop().await;
    Ok(())
}

#[tokio::test]
async fn a_dead_letter_topic_that_cannot_be_made_stops_the_task_and_says_why() -> Result<()> {
    let option = "errors.deadletterqueue.topic.replication.factor";
    let parking = Parking::new().await?.with(option, "3");
    let task = parking.outbox.start_to_test_kafka().await?;
    let trace = trace_of_failure(&task).await.with_context(|| format!("{:?}", task.state()))?;
    assert!(trace.contains(option) && trace.contains(&parking.letters), "{trace}");
    Ok(())
}

#[tokio::test]
async fn a_compacted_dead_letter_topic_is_refused() -> Result<()> {
    let parking = Parking::new().await?;
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers().await?.bootstrap_servers());
    let admin: AdminClient<DefaultClientContext> = config.create()?;
    let compacted = NewTopic::new(&parking.letters, 1, TopicReplication::Fixed(1))
        .set("cleanup.policy", "compact");
    for created in admin.create_topics([&compacted], &AdminOptions::new()).await? {
        created.map_err(|(topic, error)| anyhow::anyhow!("create {topic}: {error}"))?;
    }
    let task = parking.outbox.start_to_test_kafka().await?;
    let trace = trace_of_failure(&task).await?;
    assert!(trace.contains("cleanup.policy"), "{trace}");
    Ok(())
}

/// A relay process whose connector keeps dead letters, and the connection to its database.
struct Process {
    worker: Worker,
    config: Value,
    topics: String,
    topic: String,
    letters: String,
    sql: PgConnection,
    /// Keeps the database.
    _database: testbed::PostgresDatabase,
}

impl Process {
    async fn start() -> Result<Self> {
        let (database, mut sql) = outbox_database().await?;
        sqlx::raw_sql("alter table inventory.outboxevent alter aggregatetype drop not null")
            .execute(&mut sql)
            .await?;
        let mut config = example_config(&database)?;
        let (topics, topic, letters) =
            (unique_name("replay"), unique_name("events"), unique_name("letters"));
        config["transforms.outbox.route.topic.replacement"] = json!(topic);
        config["errors.tolerance"] = json!("all");
        config["errors.deadletterqueue.topic.name"] = json!(letters);
        config["errors.deadletterqueue.topic.replication.factor"] = json!("1");
        config["relay.errors.parked.key"] = json!("park");
        let worker = Worker::start(&topics, &[]).await?;
        let mut process = Self { worker, config, topics, topic, letters, sql, _database: database };
        process.configure("transforms.outbox.route.by.field", "aggregatetype").await?;
        Ok(process)
    }

    async fn configure(&mut self, option: &str, value: &str) -> Result<()> {
        self.config[option] = json!(value);
        let put = self.worker.call("PUT", "/connectors/c/config", Some(&self.config)).await?;
        ensure!(put.0 < 300, "{}", put.1);
        self.running().await
    }

    /// Waits for a task that runs with the configuration of now.
    async fn running(&self) -> Result<()> {
        eventually("the task streams", DEADLINE, || async {
            let (_, tasks) = self.worker.get("/connectors/c/tasks").await?;
            let option = "transforms.outbox.route.by.field";
            let current = tasks[0]["config"][option] == self.config[option];
            let (_, status) = self.worker.get("/connectors/c/status").await?;
            Ok((current && status["tasks"][0]["state"] == "RUNNING").then_some(()))
        })
        .await?;
        Ok(())
    }

    /// Replays, once the task with the configuration of now streams.
    async fn replay(&self) -> Result<Value> {
        eventually("the letters are replayed", DEADLINE, || async {
            let path = "/connectors/c/dead-letters/replay";
            let (status, answer) = self.worker.call("POST", path, None).await?;
            ensure!(status == 200 || status == 409, "{answer}");
            Ok((status == 200).then_some(answer))
        })
        .await
    }

    /// In a new life, whose relay ends in good order: how many letters were left, and the numbers of all events that
    /// are there then. Their first occurrences must be `0..count`, in this order.
    async fn replay_the_rest(&mut self, count: u32) -> Result<(u64, Vec<u32>)> {
        self.worker = Worker::start(&self.topics, &[]).await?;
        self.running().await?;
        let summary = self.replay().await?;
        self.worker.program.terminate().await?;
        let stored = topic::read(servers().await?.bootstrap_servers(), &self.topic).await?;
        let numbers = stored.iter().map(number).collect::<Result<Vec<u32>>>()?;
        let mut first: Vec<u32> = numbers.clone();
        let mut seen = std::collections::HashSet::new();
        first.retain(|number| seen.insert(*number));
        assert_eq!(first, (0..count).collect::<Vec<u32>>(), "lost or out of order");
        Ok((summary["replayed"].as_u64().context("no count")?, numbers))
    }

    /// Inserts rows that cannot be routed by their aggregate type, five to a key.
    async fn emit(&mut self, count: u32) -> Result<()> {
        sqlx::raw_sql(sqlx::AssertSqlSafe(format!(
            "insert into inventory.outboxevent (id, aggregateid, type, timestamp, payload) \
             select gen_random_uuid(), (n / 5)::text, 'OrderCreated', now(), jsonb_build_object('n', n) \
             from generate_series(0, {}) n",
            count - 1
        )))
        .execute(&mut self.sql)
        .await?;
        topic::wait_for(
            servers().await?.bootstrap_servers(),
            &self.letters,
            count as usize,
            DEADLINE,
        )
        .await?;
        Ok(())
    }
}

#[tokio::test]
async fn dead_letters_are_listed_and_replayed_over_rest() -> Result<()> {
    let mut process = Process::start().await?;
    let path = "/connectors/c/dead-letters";
    let (status, none) = process.worker.get(path).await?;
    assert_eq!((status, &none["open"]), (200, &json!(0)), "{none}");
    process.emit(7).await?;
    let (status, list) = process.worker.get(&format!("{path}?limit=2")).await?;
    assert_eq!((status, &list["open"], &list["topic"]), (200, &json!(7), &json!(process.letters)));
    let shown = list["dead_letters"].as_array().context("no list")?;
    assert_eq!(shown.len(), 2);
    assert_eq!((&shown[0]["key"], &shown[0]["offset"]), (&json!("0"), &json!(0)));
    assert_eq!(shown[1]["change"]["after"]["payload"], "{\"n\": 1}");
    assert_eq!(process.worker.get(&format!("{path}?limit=x")).await?.0, 400);
    process.configure("transforms.outbox.route.by.field", "type").await?;
    let replay = format!("{path}/replay");
    let summary = process.replay().await?;
    assert_eq!(
        summary,
        json!({"replayed": 7, "without_event": 0, "dead_again": 0, "complete": true})
    );
    assert_eq!(process.worker.get(path).await?.1["open"], 0);
    let metrics = process.worker.text("/metrics").await?;
    for told in
        ["relay_errors_total", "relay_dead_letters_total", "relay_dead_letters_replayed_total"]
    {
        let line = format!("\n{told}{{connector=\"c\"}} 7\n");
        assert!(metrics.contains(&line), "{line} in\n{metrics}");
    }
    // A task that does not stream replays nothing.
    assert_eq!(process.worker.call("PUT", "/connectors/c/pause", None).await?.0, 202);
    process.worker.states("c", "PAUSED", Some("PAUSED")).await?;
    let (status, answer) = process.worker.call("POST", &replay, None).await?;
    assert_eq!(status, 409, "{answer}");
    assert_eq!(
        process.worker.call("POST", "/connectors/x/dead-letters/replay", None).await?.0,
        404
    );
    process.worker.program.terminate().await?;
    Ok(())
}

#[tokio::test]
async fn a_relay_that_dies_within_a_replay_repeats_at_most_what_was_not_marked() -> Result<()> {
    const COUNT: u32 = 1_000;
    let marked = 5 * LETTERS_PER_MARK;
    for support in ["requested", "required"] {
        // By steps of the relay's own: what was published and not marked, and what was marked.
        for (step, repeated) in [("before replay mark", LETTERS_PER_MARK), ("after replay mark", 0)]
        {
            let mut process = Process::start().await?;
            process.configure("exactly.once.support", support).await?;
            process.emit(COUNT).await?;
            process.configure("transforms.outbox.route.by.field", "type").await?;
            process.worker.program.terminate().await?;
            let failpoint = format!("{step}:5");
            process.worker =
                Worker::start(&process.topics, &[("RELAY_FAILPOINT", &failpoint)]).await?;
            process.running().await?;
            // The call ends with the relay.
            tokio::select! {
                answered = process.replay() => bail!("the relay did not die {step}: {answered:?}"),
                died = process.worker.dies_at_a_failpoint() => died?,
            }
            let (left, numbers) = process.replay_the_rest(COUNT).await?;
            // With a transaction, what was published before the mark was not visible.
            let twice = if support == "required" { 0 } else { repeated };
            assert_eq!(numbers.len() - COUNT as usize, twice, "{support}, {step}: came twice");
            let open = COUNT as usize - marked + repeated;
            assert_eq!(
                left,
                u64::try_from(open)?,
                "{support}, {step}: replayed in the second life"
            );
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_relay_that_is_stopped_within_a_replay_repeats_nothing() -> Result<()> {
    const COUNT: u32 = 3_000;
    let mut process = Process::start().await?;
    process.emit(COUNT).await?;
    process.configure("transforms.outbox.route.by.field", "type").await?;
    let replay = process.replay();
    let some = topic::wait_for(servers().await?.bootstrap_servers(), &process.topic, 1, DEADLINE);
    // It is stopped while it is at it; the call ends with it.
    tokio::select! {
        answered = replay => bail!("the replay was over before the relay was: {answered:?}"),
        some = some => { some?; }
    }
    let status = process.worker.program.terminate().await?;
    ensure!(status.success(), "{status}");
    let (left, numbers) = process.replay_the_rest(COUNT).await?;
    assert_eq!(numbers.len(), COUNT as usize, "came twice");
    assert!(left < u64::from(COUNT), "{left} were left");
    Ok(())
}

#[tokio::test]
async fn a_reader_of_dead_letters_ends_when_nobody_waits_for_it_any_more() -> Result<()> {
    let bootstrap_servers = servers().await?.bootstrap_servers();
    let topic = unique_name("letters");
    for _ in 0..5 {
        topic::produce(bootstrap_servers, &topic, None, &[], Some(b"no letter")).await?;
    }
    let config = DeadLetterConfig {
        topic,
        replication: 1,
        context_headers: false,
        park_keys: false,
        parked_keys_max: 1,
    };
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", bootstrap_servers);
    let letters = DeadLetterTopic::new(client, "c", &config);
    let (whole, cut, asked) = tokio::task::spawn_blocking(move || {
        let whole = letters.index(&|| true);
        let asked = std::cell::Cell::new(0);
        let cut = letters.index(&|| asked.replace(asked.get() + 1) < 2);
        (whole, cut, asked.get())
    })
    .await?;
    assert!(whole.is_ok(), "{whole:?}");
    assert!(cut.is_err() && asked == 3, "{cut:?}, asked {asked} times");
    Ok(())
}
