//! A proxy on each connection of the flow, so that each can be hurt alone.

use anyhow::Result;

use crate::deployment::Ports;
use crate::name::free_port;
use crate::proxy::{Network, Proxy};
use crate::server::Listener;

/// A connection of the flow: who dials, and whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    OrderServiceToPostgres,
    RelayToPostgres,
    RelayToKafka,
    ShipmentServiceToKafka,
    ShipmentServiceToMySql,
}

impl Link {
    /// All of them, in the order of an event's way.
    pub const ALL: [Self; 5] = [
        Self::OrderServiceToPostgres,
        Self::RelayToPostgres,
        Self::RelayToKafka,
        Self::ShipmentServiceToKafka,
        Self::ShipmentServiceToMySql,
    ];
}

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::OrderServiceToPostgres => "order-service to PostgreSQL",
            Self::RelayToPostgres => "relay to PostgreSQL",
            Self::RelayToKafka => "relay to Kafka",
            Self::ShipmentServiceToKafka => "shipment-service to Kafka",
            Self::ShipmentServiceToMySql => "shipment-service to MySQL",
        })
    }
}

/// All proxies of a flow.
pub struct Links {
    proxies: [Proxy; Link::ALL.len()],
    /// Kafka's own ports behind the proxies: a broker sends its clients to the address that it advertises, so each proxy
    /// needs a listener that advertises it.
    kafka: [Listener; 2],
}

impl Links {
    /// Proxies to the servers that will listen on these ports.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(ports: &Ports) -> Result<Self> {
        let (relay, shipment) = (free_port(), free_port());
        let targets = [ports.postgres, ports.postgres, relay, shipment, ports.mysql];
        let [order, relay_postgres, relay_kafka, shipment_kafka, mysql] = targets.map(Proxy::to);
        let proxies = tokio::try_join!(order, relay_postgres, relay_kafka, shipment_kafka, mysql)?;
        let proxies: [Proxy; 5] = proxies.into();
        let kafka = [
            Listener { name: "RELAY", port: relay, advertised: proxies[2].port() },
            Listener { name: "SHIPMENT", port: shipment, advertised: proxies[3].port() },
        ];
        Ok(Self { proxies, kafka })
    }

    /// The port to dial.
    #[must_use]
    pub fn port(&self, link: Link) -> u16 {
        self.proxies[link as usize].port()
    }

    /// From now on this connection is like this.
    pub fn set(&self, link: Link, network: Network) {
        self.proxies[link as usize].set(network);
    }

    /// What Kafka must listen on besides its own port.
    pub(crate) fn kafka_listeners(&self) -> &[Listener] {
        &self.kafka
    }
}
