//! The command line of `cargo demo`.

use clap::{Parser, Subcommand, ValueEnum};
use testbed::deployment::Ports;

/// Starts PostgreSQL, MySQL, Kafka, order-service, relay and shipment-service on this machine, registers the connector,
/// places an order, cancels one of its lines, and shows each hop of the events. Then it stays up until Ctrl-C.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Stop after the scenario; the exit code is 0 if everything held
    #[arg(long)]
    pub(crate) once: bool,

    /// Only start everything: no connector is registered, no order placed
    #[arg(long, conflicts_with = "once")]
    pub(crate) no_scenario: bool,

    /// Keep the folder with data and logs
    #[arg(long)]
    pub(crate) keep: bool,

    /// Port of PostgreSQL (0 in any of these: a free one)
    #[arg(long, global = true, default_value_t = 5432)]
    pub(crate) postgres_port: u16,

    /// Port of the MySQL-compatible server
    #[arg(long, global = true, default_value_t = 3306)]
    pub(crate) mysql_port: u16,

    /// Port of Kafka
    #[arg(long, global = true, default_value_t = 9092)]
    pub(crate) kafka_port: u16,

    /// Port of the relay's REST API
    #[arg(long, global = true, default_value_t = 8083)]
    pub(crate) relay_port: u16,

    /// Port of order-service
    #[arg(long, global = true, default_value_t = 8080)]
    pub(crate) order_port: u16,

    /// Port of shipment-service
    #[arg(long, global = true, default_value_t = 8081)]
    pub(crate) shipment_port: u16,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Print the records of a topic of the running demo: key, headers, value
    Topic {
        /// For example OrderEvents or CustomerEvents
        name: String,
        /// Wait for more
        #[arg(short, long)]
        follow: bool,
    },
    /// Ask a database of the running demo
    Sql {
        database: Database,
        /// For example "select * from inventory.purchaseorder"
        query: String,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum Database {
    /// PostgreSQL, of order-service
    OrderDb,
    /// MySQL, of shipment-service
    ShipmentDb,
}

impl Cli {
    /// The chosen ports, each with the flag that moves it.
    pub(crate) fn ports(&self) -> (Ports, [(&'static str, u16); 6]) {
        let or_free = |port| if port == 0 { testbed::free_port() } else { port };
        let ports = Ports {
            postgres: or_free(self.postgres_port),
            mysql: or_free(self.mysql_port),
            kafka: or_free(self.kafka_port),
            relay: or_free(self.relay_port),
            order_service: or_free(self.order_port),
            shipment_service: or_free(self.shipment_port),
        };
        let flags = [
            ("--postgres-port", ports.postgres),
            ("--mysql-port", ports.mysql),
            ("--kafka-port", ports.kafka),
            ("--relay-port", ports.relay),
            ("--order-port", ports.order_service),
            ("--shipment-port", ports.shipment_service),
        ];
        (ports, flags)
    }
}
