//! What can be killed, how, and how it comes back.

use std::fmt;

use anyhow::{Context as _, Result};

use crate::deployment::Deployment;

/// A process of the flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum Part {
    Relay,
    Kafka,
    #[value(name = "postgresql")]
    Postgres,
    #[value(name = "mysql")]
    MySql,
    OrderService,
    ShipmentService,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Relay,
        Self::Kafka,
        Self::Postgres,
        Self::MySql,
        Self::OrderService,
        Self::ShipmentService,
    ];

    /// `kill -9`, and waits until it is gone.
    pub async fn kill(self, flow: &mut Deployment) {
        match self {
            Self::Relay => flow.relay.kill().await,
            Self::Kafka => flow.servers.kafka.kill().await,
            Self::Postgres => flow.servers.postgres.kill().await,
            Self::MySql => flow.servers.mysql.kill().await,
            Self::OrderService => flow.order_service.kill().await,
            Self::ShipmentService => flow.shipment_service.kill().await,
        }
    }

    /// Asks it to end, and waits until it has.
    ///
    /// # Errors
    /// When a program does not end in order.
    pub async fn stop(self, flow: &mut Deployment) -> Result<()> {
        match self {
            Self::Relay => flow.relay.terminate().await,
            Self::Kafka => {
                flow.servers.kafka.stop().await;
                Ok(())
            }
            Self::Postgres => {
                flow.servers.postgres.stop().await;
                Ok(())
            }
            Self::MySql => {
                flow.servers.mysql.stop().await;
                Ok(())
            }
            Self::OrderService => flow.order_service.terminate().await,
            Self::ShipmentService => flow.shipment_service.terminate().await,
        }
    }

    /// Starts it again on its data and port. A server has answered then; a program may still be starting.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(self, flow: &mut Deployment) -> Result<()> {
        let started = match self {
            Self::Relay => flow.relay.start(),
            Self::Kafka => flow.servers.kafka.restart().await,
            Self::Postgres => flow.servers.postgres.restart().await,
            Self::MySql => flow.servers.mysql.restart().await,
            Self::OrderService => flow.order_service.start(),
            Self::ShipmentService => flow.shipment_service.start(),
        };
        started.with_context(|| format!("start {self} again"))
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Relay => "relay",
            Self::Kafka => "Kafka",
            Self::Postgres => "PostgreSQL",
            Self::MySql => "MySQL",
            Self::OrderService => "order-service",
            Self::ShipmentService => "shipment-service",
        })
    }
}
