//! Reading topics: for the scenario as records arrive, and for `cargo demo topic`.

use std::io::{self, Write as _};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use testbed::topic::{self, Reader, Record};
use tokio::sync::mpsc;

use crate::cli::Cli;
use crate::screen::{Screen, one_line};

/// A record, and when it was seen.
pub(crate) struct Arrival {
    pub(crate) at: Instant,
    pub(crate) record: Record,
}

/// Follows a topic from its beginning on a thread of its own.
pub(crate) struct Follower {
    topic: &'static str,
    arrivals: mpsc::UnboundedReceiver<Arrival>,
}

impl Follower {
    pub(crate) fn start(bootstrap_servers: &str, topic: &'static str) -> Result<Self> {
        let mut reader = Reader::open(bootstrap_servers, topic)?;
        let (sender, arrivals) = mpsc::unbounded_channel();
        std::thread::spawn(move || {
            while !sender.is_closed() {
                // An error now (the topic's leader is being chosen, say) is none a moment later.
                let Ok(Some(record)) = reader.next() else { continue };
                let _ = sender.send(Arrival { at: Instant::now(), record });
            }
        });
        Ok(Self { topic, arrivals })
    }

    /// The next record.
    pub(crate) async fn next(&mut self, bound: Duration) -> Result<Arrival> {
        match tokio::time::timeout(bound, self.arrivals.recv()).await {
            Ok(Some(arrival)) => Ok(arrival),
            Ok(None) => bail!("the reader of topic {} has ended", self.topic),
            Err(_) => bail!("no record in topic {} within {bound:?}", self.topic),
        }
    }

    /// Records that nobody waited for.
    pub(crate) fn surplus(&mut self) -> usize {
        std::iter::from_fn(|| self.arrivals.try_recv().ok()).count()
    }
}

/// `cargo demo topic NAME [--follow]`.
pub(crate) async fn print(cli: &Cli, name: &str, follow: bool) -> Result<bool> {
    let bootstrap_servers = format!("127.0.0.1:{}", cli.kafka_port);
    if !follow {
        let read = topic::read(&bootstrap_servers, name).await;
        let records = read.with_context(|| {
            format!("no Kafka on port {}: does `cargo demo` run?", cli.kafka_port)
        })?;
        if records.is_empty() {
            bail!("topic {name} is empty, or does not exist");
        }
        for record in &records {
            if print_record(name, record).is_err() {
                break;
            }
        }
        return Ok(true);
    }
    let mut reader = Reader::open(&bootstrap_servers, name)?;
    let name = name.to_owned();
    let following = tokio::task::spawn_blocking(move || {
        loop {
            if let Some(record) = reader.next()?
                && print_record(&name, &record).is_err()
            {
                return Ok(true);
            }
        }
    });
    following.await?
}

/// An error says that the reader has seen enough (`| head`): nothing is wrong, and nothing more is to be printed.
fn print_record(topic: &str, record: &Record) -> io::Result<()> {
    let mut text = format!("{topic}  partition {}  offset {}\n", record.partition, record.offset);
    text += &format!("  key        {}\n", record.key_text());
    for (name, value) in &record.headers {
        let value = value.as_deref().map(String::from_utf8_lossy).unwrap_or_default();
        text += &format!("  {name:<10} {value}\n");
    }
    text += &format!("  value      {}\n", one_line(&record.value_text()));
    io::stdout().write_all(text.as_bytes())
}

/// The scenario's view of a record.
pub(crate) fn show(screen: Screen, topic: &str, arrival: &Arrival, after: Duration) {
    let record = &arrival.record;
    let place = format!("{topic}, partition {}, offset {}", record.partition, record.offset);
    screen.hop("Kafka", &place, Some(after));
    screen.detail("key", &record.key_text());
    for (name, value) in &record.headers {
        screen.detail(name, &value.as_deref().map(String::from_utf8_lossy).unwrap_or_default());
    }
    screen.detail("value", &one_line(&record.value_text()));
}
