//! Each connection of the flow is hurt in each way while orders are placed.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use serde::Serialize;

use super::load::{Habit, Load};
use super::report::Report;
use super::stage::Stage;
use super::{CATCH_UP_BOUND, Plan, truth};
use crate::deployment::Part;
use crate::links::Link;
use crate::proxy::Network;
use crate::wait::eventually;

/// A way to hurt a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Cut,
    Slow,
    Drip,
    BlackHole,
}

const FAULTS: [Fault; 4] = [Fault::Cut, Fault::Slow, Fault::Drip, Fault::BlackHole];

/// Orders asked for while a connection is hurt; they need not be taken.
const REQUESTS: u64 = 30;

/// The same, where they wait for a database that does not answer.
const HURT_MAX: Duration = Duration::from_secs(6);

/// A message and its answer take 100 ms.
const DELAY: Duration = Duration::from_millis(50);

/// 20 kB a second: an event takes 25 ms.
const DRIP_BYTES: usize = 200;

/// PostgreSQL gives up a relay that it does not hear of, and the relay gives up PostgreSQL, by the same setting.
const WAL_SENDER_TIMEOUT: &str = "4s";

/// From a good network to everything having arrived, where both ends know that their connection broke.
const NOTICED_BOUND: Duration = Duration::from_secs(30);

/// The same, where nobody was told: the longest of the parts' own bounds, see `docs/guarantees.md`.
const UNNOTICED_BOUND: Duration = Duration::from_secs(90);

impl Fault {
    const fn network(self) -> Network {
        match self {
            Self::Cut => Network::Cut,
            Self::Slow => Network::Slow(DELAY),
            Self::Drip => Network::Drip(DRIP_BYTES),
            Self::BlackHole => Network::BlackHole,
        }
    }

    const fn bound(self) -> Duration {
        match self {
            Self::BlackHole => UNNOTICED_BOUND,
            Self::Cut | Self::Slow | Self::Drip => NOTICED_BOUND,
        }
    }

    /// Whether the part must say what it misses.
    const fn is_said(self) -> bool {
        matches!(self, Self::Cut | Self::BlackHole)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cut => "cut",
            Self::Slow => "slow",
            Self::Drip => "drip",
            Self::BlackHole => "black hole",
        })
    }
}

/// How a connection came through.
#[derive(Debug, Clone, Serialize)]
pub struct Healed {
    /// Who dials whom.
    pub link: String,
    /// What was done to it.
    pub fault: String,
    /// From a good network to the arrival of everything ordered before and meanwhile, in seconds.
    pub seconds: f64,
    /// Whether the part's log named what it missed, or its health was not good, while it missed it; where it should.
    pub said: Option<bool>,
}

/// How all of them came through.
#[derive(Debug, Clone, Serialize)]
pub struct NetworkRun {
    /// One for each connection and fault.
    pub healed: Vec<Healed>,
    /// What was committed and what arrived.
    pub report: Report,
}

impl NetworkRun {
    /// The longest time of each connection and fault.
    #[must_use]
    pub fn lines(&self) -> Vec<String> {
        let line = |one: &Healed| {
            let said = match one.said {
                None => "",
                Some(true) => ", the part said what it missed",
                Some(false) => ", the part said NOTHING",
            };
            format!("{}, {}: all there {:.1} s after{said}", one.link, one.fault, one.seconds)
        };
        self.healed.iter().map(line).collect()
    }
}

/// Starts the flow through proxies and hurts one connection after the other.
///
/// # Errors
/// When something does not start, or does not go on within its bound.
pub async fn network(
    exactly_once: bool,
    progress: impl Fn(&str) + Send + Sync + 'static,
) -> Result<NetworkRun> {
    let plan = Plan { exactly_once, ..Plan::default() };
    let mut stage = Box::pin(Stage::set_with_links(&plan, progress)).await?;
    let measured = Box::pin(hurt_each(exactly_once, &mut stage)).await;
    stage.strike_the_set(measured).await
}

async fn hurt_each(exactly_once: bool, stage: &mut Stage) -> Result<NetworkRun> {
    let began = Instant::now();
    stage.shorten_wal_sender_timeout(WAL_SENDER_TIMEOUT).await?;
    let load = Load::begin(stage.flow.order_service.url(), 0, Habit::OrderAndChange)?;
    let mut healed = Vec::new();
    for link in Link::ALL {
        for fault in FAULTS {
            let one = hurt(link, fault, stage, &load).await;
            let one = one.with_context(|| format!("{link}: {fault}"))?;
            stage.say(&format!("{link}: {fault}: everything there {:.1} s after", one.seconds));
            healed.push(one);
        }
    }
    stage.until_all_ready().await?;
    load.stop().await;
    let counts = stage.count(CATCH_UP_BOUND).await?;
    let seconds = began.elapsed().as_secs_f64();
    // A relay that gives up a connection knows what it has published: nothing may come again.
    let report = Report { counts, exactly_once, seconds, ..Report::default() };
    Ok(NetworkRun { healed, report })
}

async fn hurt(link: Link, fault: Fault, stage: &Stage, load: &Load) -> Result<Healed> {
    stage.until_more_are_handled(3).await?;
    let links = stage.links.as_deref().context("the flow has no proxies")?;
    let part = dialler(link, stage);
    let log_before = fs::metadata(part.log()).map(|log| log.len()).unwrap_or_default();
    links.set(link, fault.network());
    let wanted = load.requests().attempts() + REQUESTS;
    let hurt = load.until("request", HURT_MAX, |requests| requests.attempts() >= wanted);
    let _ = hurt.await;
    // A connection that leads nowhere is known as such when the part's own patience is over.
    let said = if fault.is_said() {
        let said = eventually("word of it", UNNOTICED_BOUND, async || {
            let says = says(link, part, log_before)? || !stage.is_ready(part).await;
            Ok(says.then_some(()))
        });
        Some(said.await.is_ok())
    } else {
        None
    };
    links.set(link, Network::Good);
    let good = Instant::now();
    let ordered = truth::orders(&stage.flow.order_database).await?.len() as u64;
    eventually("shipment of each order", fault.bound(), async || {
        Ok((stage.shipments().await? >= ordered).then_some(()))
    })
    .await?;
    let seconds = good.elapsed().as_secs_f64();
    Ok(Healed { link: link.to_string(), fault: fault.to_string(), seconds, said })
}

fn dialler(link: Link, stage: &Stage) -> &Part {
    match link {
        Link::OrderServiceToPostgres => &stage.flow.order_service,
        Link::RelayToPostgres | Link::RelayToKafka => &stage.flow.relay,
        Link::ShipmentServiceToKafka | Link::ShipmentServiceToMySql => &stage.flow.shipment_service,
    }
}

/// Whether a line of the part's log, written since, warns of the server that it cannot reach.
fn says(link: Link, part: &Part, since: u64) -> Result<bool> {
    let log = fs::read(part.log()).context("read the log")?;
    let from = usize::try_from(since).unwrap_or_default().min(log.len());
    let text = String::from_utf8_lossy(&log[from..]).to_lowercase();
    let server = match link {
        Link::OrderServiceToPostgres | Link::RelayToPostgres => ["postgres", "database"],
        Link::RelayToKafka | Link::ShipmentServiceToKafka => ["kafka", "broker"],
        Link::ShipmentServiceToMySql => ["mysql", "database"],
    };
    let warns = |line: &str| {
        line.contains(" warn ") || line.contains(" error ") || line.contains("waiting")
    };
    Ok(text.lines().any(|line| warns(line) && server.iter().any(|name| line.contains(name))))
}
