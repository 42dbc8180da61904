//! Plays the recorded scenarios of Kafka Connect's REST API (`tests/conformance/rest/`) against the relay.
//!
//! Every step must pass.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sqlx::Connection as _;
use testbed::{PostgresDatabase, eventually, servers, unique_name};

use crate::connect_slot_holder::SlotHolder;
use crate::connect_transcript_compare::{differences, holds, reduce};
use crate::connect_worker::{Worker, outbox_database};

/// Roles belong to the server, not to a database.
const ROLE_STATEMENTS: [&str; 3] = ["create role", "alter role", "drop role"];

/// As many as were recorded.
const SCENARIOS: usize = 22;

/// How long a step's `until` may take; the recorded worker took a few seconds.
const UNTIL_DEADLINE: Duration = Duration::from_secs(20);

/// Scenarios played at one time: each has a process, a database and a slot.
const AT_ONCE: usize = 4;

/// What became of a scenario.
struct Played {
    name: String,
    passed: usize,
    failures: Vec<String>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn every_step_of_the_recorded_scenarios_passes() -> Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance/rest");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
    files.sort();
    let permits = std::sync::Arc::new(tokio::sync::Semaphore::new(AT_ONCE));
    let mut playing = tokio::task::JoinSet::new();
    for file in files {
        let permits = std::sync::Arc::clone(&permits);
        playing.spawn(async move {
            let _permit = permits.acquire().await?;
            Box::pin(play(&file)).await.with_context(|| file.display().to_string())
        });
    }
    let mut all = playing.join_all().await.into_iter().collect::<Result<Vec<_>>>()?;
    all.sort_by(|one, other| one.name.cmp(&other.name));
    let report = report(&all);
    println!("{report}");
    assert_eq!(all.len(), SCENARIOS, "scenarios were added or lost");
    assert!(all.iter().all(|played| played.failures.is_empty()), "{report}");
    Ok(())
}

fn report(all: &[Played]) -> String {
    let mut text = String::new();
    for played in all {
        let total = played.passed + played.failures.len();
        let _ = writeln!(text, "{}: {} of {total} steps passed", played.name, played.passed);
        for failure in &played.failures {
            let _ = writeln!(text, "    {failure}");
        }
    }
    let passed: usize = all.iter().map(|played| played.passed).sum();
    let failed: usize = all.iter().map(|played| played.failures.len()).sum();
    let _ = writeln!(text, "{passed} passed, {failed} failed");
    text
}

/// What a scenario is played on.
struct Stage {
    worker: Worker,
    database: PostgresDatabase,
    sql: sqlx::PgConnection,
    http: reqwest::Client,
    holder: Option<SlotHolder>,
}

async fn play(file: &Path) -> Result<Played> {
    let (database, sql) = outbox_database().await?;
    let topics = unique_name("transcript");
    let env = [("RELAY_SHOW_PASSWORDS", "true")];
    let worker = Worker::start(&topics, &env).await?;
    let text = localised(&std::fs::read_to_string(file)?, &worker, &database);
    let scenario: Value = serde_json::from_str(&text)?;
    let http = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build()?;
    let mut stage = Stage { worker, database, sql, http, holder: None };
    let name = scenario["scenario"].as_str().unwrap_or_default().to_owned();
    let mut played = Played { name, passed: 0, failures: Vec::new() };
    for step in scenario["steps"].as_array().context("no steps")? {
        match stage.step(step).await {
            Ok(()) => played.passed += 1,
            Err(problem) => {
                let (number, what) = (&step["step"], step["what"].as_str().unwrap_or_default());
                played.failures.push(format!("step {number} ({what}): {problem:#}"));
            }
        }
    }
    stage.tidy().await?;
    Ok(played)
}

/// Placeholders replaced; slots and topics renamed, since scenarios share servers with other tests.
fn localised(text: &str, worker: &Worker, database: &PostgresDatabase) -> String {
    let unique = unique_name("").replace('-', "_");
    let text = text
        .replace("\"g_", &format!("\"g{unique}_"))
        .replace("=g_bad", &format!("=g{unique}_bad"))
        .replace("${routedByValue}Events", &format!("${{routedByValue}}Events{unique}"))
        .replace("\"OrderEvents\"", &format!("\"OrderEvents{unique}\""))
        .replace("golden_user", &format!("golden{unique}"));
    text.replace("<<WORKER_ID>>", &worker.address)
        .replace("<<PGHOST>>", &database.host)
        .replace("<<PGPORT>>", &database.port.to_string())
        .replace("<<PGUSER>>", &database.user)
        .replace("<<PGPASSWORD>>", &database.password)
        .replace("<<PGDATABASE>>", &database.name)
}

impl Stage {
    async fn step(&mut self, step: &Value) -> Result<()> {
        match step["op"].as_str() {
            None => self.call(step).await,
            Some("sql") => {
                for statement in step["sql"].as_array().into_iter().flatten() {
                    self.execute(statement.as_str().unwrap_or_default()).await?;
                }
                Ok(())
            }
            // The next step waits for a fact.
            Some("sleep") => Ok(()),
            Some("hold_slot") => {
                let slot = step["slot"].as_str().context("no slot")?;
                self.holder = Some(SlotHolder::hold(&self.database, slot, &mut self.sql).await?);
                Ok(())
            }
            Some("release_slot") => {
                let holder = self.holder.take().context("nothing is held")?;
                holder.release(&mut self.sql).await
            }
            Some(other) => bail!("unknown operation {other}"),
        }
    }

    /// As the database's owner, but for what only a superuser may do.
    async fn execute(&mut self, statement: &str) -> Result<()> {
        let sql = sqlx::AssertSqlSafe(statement.to_owned());
        if ROLE_STATEMENTS.iter().any(|begin| statement.starts_with(begin)) {
            let administrator = servers().await?.postgres_administrator(&self.database);
            let mut connection = sqlx::PgConnection::connect(&administrator.url()).await?;
            sqlx::raw_sql(sql).execute(&mut connection).await?;
        } else {
            sqlx::raw_sql(sql).execute(&mut self.sql).await?;
        }
        Ok(())
    }

    async fn call(&self, step: &Value) -> Result<()> {
        let Some(until) = step.get("until") else {
            return self.compare(step, &self.answer(step).await?);
        };
        let last = std::sync::Mutex::new(Value::Null);
        let reached = eventually("the awaited answer", UNTIL_DEADLINE, || async {
            let answer = self.answer(step).await?;
            let reached = holds(until, &answer).then(|| answer.clone());
            *last.lock().unwrap() = answer;
            Ok(reached)
        });
        match reached.await {
            Ok(answer) => self.compare(step, &answer),
            Err(error) => bail!("{error:#}; last: {}", last.lock().unwrap()),
        }
    }

    fn compare(&self, step: &Value, answer: &Value) -> Result<()> {
        let mut answer = answer.clone();
        if let Some(how) = step["reduce"].as_str() {
            reduce(how, &step["request"], &mut answer);
        }
        let found = differences(&step["response"], &answer, &step["unordered"]);
        if found.is_empty() { Ok(()) } else { bail!("{}", found.join("; ")) }
    }

    /// The answer in the form of the recorded ones.
    async fn answer(&self, step: &Value) -> Result<Value> {
        let request = &step["request"];
        let method =
            reqwest::Method::from_bytes(request["method"].as_str().unwrap_or("").as_bytes())?;
        let path = request["path"].as_str().context("no path")?;
        let url = format!("http://{}{path}", self.worker.address);
        let mut call = self.http.request(method, url);
        for (name, value) in request["headers"].as_object().into_iter().flatten() {
            if !name.eq_ignore_ascii_case("content-length") {
                call = call.header(name, value.as_str().unwrap_or_default());
            }
        }
        if let Some(body) = request.get("json") {
            call = call.body(body.to_string());
        } else if let Some(body) = request["body"].as_str() {
            call = call.body(body.to_owned());
        }
        let response = call.timeout(UNTIL_DEADLINE).send().await?;
        let status = response.status().as_u16();
        let header = |name: &str| {
            response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        };
        let content_type = header("content-type");
        let names = response.headers().keys().map(reqwest::header::HeaderName::as_str);
        let headers: serde_json::Map<String, Value> = names
            .filter(|name| !["date", "content-length", "content-type"].contains(name))
            .map(|name| (name.to_owned(), json!(header(name))))
            .collect();
        let text = response.text().await?;
        let mut answer = json!({"status": status, "content_type": content_type});
        if !headers.is_empty() {
            answer["headers"] = headers.into();
        }
        match serde_json::from_str::<Value>(&text) {
            Ok(parsed) => answer["json"] = parsed,
            Err(_) => answer["body"] = text.into(),
        }
        Ok(answer)
    }

    /// Slots outlive their connectors; the server is shared.
    async fn tidy(mut self) -> Result<()> {
        self.worker.program.terminate().await?;
        let drop = "select pg_drop_replication_slot(slot_name) from pg_replication_slots \
                    where database = current_database() and not active";
        sqlx::raw_sql(drop).execute(&mut self.sql).await?;
        Ok(())
    }
}
