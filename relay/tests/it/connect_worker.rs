//! A relay process with storage topics of its own, and a client for its REST API.

use std::os::unix::process::ExitStatusExt as _;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testbed::{PostgresDatabase, Program, eventually, free_port, servers, unique_name};

/// Within this time each fact must have become true.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A running relay.
pub(crate) struct Worker {
    pub(crate) program: Program,
    /// `127.0.0.1:port`; also its worker id.
    pub(crate) address: String,
    http: reqwest::Client,
}

/// Status and JSON body of an answer; null for none.
pub(crate) type Answer = (u16, Value);

impl Worker {
    /// Starts a relay on the storage topics `<topics>_configs`, `_offsets` and `_statuses`; returns once it is ready.
    pub(crate) async fn start(topics: &str, env: &[(&str, &str)]) -> Result<Self> {
        let worker = Self::start_only(servers().await?.bootstrap_servers(), topics, env)?;
        worker.ready().await?;
        Ok(worker)
    }

    /// Starts a relay and does not wait for it.
    pub(crate) fn start_only(
        bootstrap_servers: &str,
        topics: &str,
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let address = format!("127.0.0.1:{}", free_port());
        let listeners = format!("http://{address}");
        let [configs, offsets, statuses] =
            ["configs", "offsets", "statuses"].map(|kind| format!("{topics}_{kind}"));
        let mut all = vec![
            ("BOOTSTRAP_SERVERS", bootstrap_servers),
            ("GROUP_ID", topics),
            ("CONFIG_STORAGE_TOPIC", &configs),
            ("OFFSET_STORAGE_TOPIC", &offsets),
            ("STATUS_STORAGE_TOPIC", &statuses),
            ("CONNECT_LISTENERS", &listeners),
            ("CONNECT_KEY_CONVERTER_SCHEMAS_ENABLE", "false"),
            ("CONNECT_VALUE_CONVERTER_SCHEMAS_ENABLE", "false"),
            ("OFFSET_FLUSH_INTERVAL_MS", "500"),
        ];
        all.extend_from_slice(env);
        let program = Program::start(env!("CARGO_BIN_EXE_relay"), &[], &all)?;
        Ok(Self { program, address, http: reqwest::Client::new() })
    }

    /// Waits until it has come to its failpoint (`RELAY_FAILPOINT`), where it aborts.
    pub(crate) async fn dies_at_a_failpoint(&self) -> Result<()> {
        const SIGABRT: i32 = 6;
        let ended =
            eventually("end of the relay", DEADLINE, || async { Ok(self.program.exit_status()) });
        let status = ended.await.context(self.program.tail())?;
        ensure!(status.signal() == Some(SIGABRT), "{status}\n{}", self.program.tail());
        Ok(())
    }

    pub(crate) async fn ready(&self) -> Result<()> {
        let ready = eventually("relay is ready", DEADLINE, || async {
            let (status, _) = self.get("/health/ready").await?;
            Ok((status == 200).then_some(()))
        });
        ready.await.with_context(|| self.program.tail())
    }

    pub(crate) async fn get(&self, path: &str) -> Result<Answer> {
        self.call("GET", path, None).await
    }

    /// The body of an answer of 200 that is no JSON.
    pub(crate) async fn text(&self, path: &str) -> Result<String> {
        let request = self.http.get(format!("http://{}{path}", self.address)).timeout(DEADLINE);
        Ok(request.send().await?.error_for_status()?.text().await?)
    }

    pub(crate) async fn call(
        &self,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Answer> {
        let method = reqwest::Method::from_bytes(method.as_bytes())?;
        let mut request = self.http.request(method, format!("http://{}{path}", self.address));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.timeout(DEADLINE).send().await?;
        let status = response.status().as_u16();
        let text = response.text().await?;
        let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? };
        Ok((status, body))
    }

    /// Waits until connector and task have these states; no task: `None`.
    pub(crate) async fn states(
        &self,
        name: &str,
        connector: &str,
        task: Option<&str>,
    ) -> Result<Value> {
        let what = format!("{name} {connector} with task {task:?}");
        let reached = eventually(&what, DEADLINE, || async {
            let (_, status) = self.get(&format!("/connectors/{name}/status")).await?;
            let reached = status["connector"]["state"] == connector
                && status["tasks"].as_array().map(Vec::len) == Some(usize::from(task.is_some()))
                && task.is_none_or(|task| status["tasks"][0]["state"] == task);
            ensure!(reached, "{status}");
            Ok(Some(status))
        });
        reached.await.with_context(|| self.program.tail())
    }
}

/// A database with the example's outbox table.
pub(crate) async fn outbox_database() -> Result<(PostgresDatabase, PgConnection)> {
    let database = servers().await?.postgres_database().await?;
    let mut sql = PgConnection::connect(&database.url()).await?;
    sqlx::raw_sql(include_str!("connect_schema.sql")).execute(&mut sql).await?;
    Ok((database, sql))
}

/// The configuration of `register-postgres.json`, on this database and a slot of its own.
pub(crate) fn example_config(database: &PostgresDatabase) -> Result<Value> {
    let file: Value = serde_json::from_str(include_str!("../../../register-postgres.json"))?;
    let mut config = file["config"].clone();
    let slot = unique_name("slot").replace('-', "_");
    config["database.hostname"] = json!(database.host);
    config["database.port"] = json!(database.port.to_string());
    config["database.user"] = json!(database.user);
    config["database.password"] = json!(database.password);
    config["database.dbname"] = json!(database.name);
    config["slot.name"] = json!(slot);
    config["publication.name"] = json!(slot);
    config["publication.autocreate.mode"] = json!("filtered");
    config["transforms.outbox.route.topic.replacement"] =
        json!(format!("${{routedByValue}}Events_{slot}"));
    Ok(config)
}
