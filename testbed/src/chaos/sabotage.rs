//! The promise broken on purpose, where a test must see that the count finds it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rustix::process::Signal;
use sqlx::{Connection as _, MySqlConnection};

use super::STEP_BOUND;
use super::load::Load;
use super::part::Part;
use super::stage::Stage;
use super::truth;
use crate::database::mysql_options;
use crate::deployment::Deployment;
use crate::wait::eventually;

/// Orders that go through before anything is broken: everything works.
const WARM_UP: u64 = 20;

/// Orders that are placed while the broker stands still. One record may be on its way to the broker, the others wait.
const AT_STAKE: u64 = 40;

/// For the slot to pass what the broker never confirmed: the relay acknowledges ten times a second.
const ACKNOWLEDGED_BOUND: Duration = Duration::from_secs(30);

/// Ends the relay when Kafka has confirmed records for the thirtieth time, before it acknowledges them.
const END_AFTER_CONFIRM: &str = "after confirm:30";

/// Ends the relay behind a commit that PostgreSQL has not heard of.
const END_AFTER_COMMIT: &str = "after commit:30";

/// Which rule is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Sabotage {
    /// The relay acknowledges to PostgreSQL before Kafka has confirmed: events get lost
    EarlyAcknowledgement,
    /// Kafka transactions are committed without the position: events come twice, with exactly once as well
    NoPosition,
    /// The shipment database takes an event and a shipment twice: what comes again is shipped again
    NoDedup,
}

impl Sabotage {
    /// Before the relay starts.
    pub(super) async fn prepare(self, flow: &mut Deployment) -> Result<()> {
        match self {
            Self::EarlyAcknowledgement => {
                flow.relay.set_variable("RELAY_SABOTAGE", "early acknowledgement");
            }
            Self::NoPosition => {
                flow.relay.set_variable("RELAY_SABOTAGE", "no position");
                flow.relay.set_variable("RELAY_FAILPOINT", END_AFTER_COMMIT);
            }
            Self::NoDedup => {
                // What decides about an event that comes again is the insert, and what decides about the insert is the
                // key.
                let options = mysql_options(&flow.shipment_database);
                let mut mysql = MySqlConnection::connect_with(&options).await?;
                for statement in [
                    "alter table ConsumedMessage drop primary key",
                    "alter table Shipment drop index shipment_of_order",
                ] {
                    sqlx::raw_sql(statement).execute(&mut mysql).await.context(statement)?;
                }
                mysql.close().await?;
                flow.relay.set_variable("RELAY_FAILPOINT", END_AFTER_CONFIRM);
            }
        }
        Ok(())
    }

    /// The blow that shows it. Nothing is left to luck: each step waits for the fact that the next one needs.
    pub(super) async fn strike(self, stage: &mut Stage, load: &Load) -> Result<Vec<Part>> {
        match self {
            Self::EarlyAcknowledgement => {
                stage.until_more_are_handled(WARM_UP).await?;
                stage.flow.servers.kafka.signal(Signal::STOP);
                stage.say("Kafka stands still; a relay that waits for it acknowledges nothing");
                let wanted = load.requests().placed + AT_STAKE;
                load.until("order that is taken", STEP_BOUND, |r| r.placed >= wanted).await?;
                until_acknowledged(stage).await?;
                stage.say("the relay has acknowledged what Kafka has not: it is killed");
                stage.flow.relay.kill().await;
                stage.flow.servers.kafka.signal(Signal::CONT);
            }
            Self::NoDedup | Self::NoPosition => {
                let program = stage.flow.relay.program().context("the relay is not running")?;
                let ended = async || Ok(program.exit_status());
                eventually("end of the relay", STEP_BOUND, ended).await.context(program.tail())?;
                stage.say("the relay has died with events in Kafka that it had not acknowledged");
                stage.flow.relay.set_variable("RELAY_FAILPOINT", "");
            }
        }
        Part::Relay.start(&mut stage.flow).await?;
        Ok(vec![Part::Relay])
    }
}

/// Waits until the relay's slot has passed all that is committed now.
async fn until_acknowledged(stage: &Stage) -> Result<()> {
    let database = &stage.flow.order_database;
    let committed = truth::wal_end(database).await?;
    eventually("acknowledgement of what Kafka has not confirmed", ACKNOWLEDGED_BOUND, async || {
        Ok(truth::is_acknowledged(database, &committed).await?.then_some(()))
    })
    .await
}
