//! Every part is stopped and killed while orders are placed; at the end each order has exactly one shipment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::ensure;
use reqwest::Client;
use sqlx::{Connection as _, MySqlConnection, PgConnection};
use testbed::chaos::Part;
use testbed::deployment::Deployment;
use testbed::{eventually, topic};
use tokio::sync::watch;

use crate::flow::{DEADLINE, place_order, register, start};

/// Answered with 200 at the end.
const ORDERS: usize = 500;

/// Clients that place orders at the same time.
const PLACERS: usize = 4;

/// All events of all orders, after the last part is back.
const CATCH_UP_BOUND: Duration = Duration::from_secs(120);

#[derive(Debug, Clone, Copy)]
enum End {
    Stop,
    Kill,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_hundred_orders_have_one_shipment_each_whatever_is_stopped_or_killed() {
    let mut flow = start().await;
    let client = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    register(&client, &flow).await.unwrap();
    let mut orders = Orders::place(&client, flow.order_service.url());
    let interruptions =
        [End::Stop, End::Kill].into_iter().flat_map(|end| Part::ALL.map(|p| (p, end)));
    let share = ORDERS / (2 * Part::ALL.len() * 2);
    for (part, end) in interruptions {
        orders.allow_more(share).await;
        match end {
            End::Stop => part.stop(&mut flow).await.unwrap(),
            End::Kill => part.kill(&mut flow).await,
        }
        if matches!(part, Part::OrderService | Part::Postgres) {
            orders.allow_and_see_a_refusal(share).await;
        } else {
            orders.allow_more(share).await;
        }
        part.start(&mut flow).await.unwrap();
    }
    orders.allow_up_to(ORDERS).await;
    check_end(&flow).await;
    assert_eq!(flow.stop().await, Vec::<String>::new());
}

/// Orders placed by several clients, as many as are allowed so far.
struct Orders {
    allowed: watch::Sender<usize>,
    placed: watch::Receiver<usize>,
    refused: watch::Receiver<usize>,
}

impl Orders {
    fn place(client: &Client, url: &str) -> Self {
        let (allowed, may_place) = watch::channel(0);
        let (counter, placed) = watch::channel(0);
        let (refusals, refused) = watch::channel(0);
        let (counter, refusals) = (Arc::new(counter), Arc::new(refusals));
        for _ in 0..PLACERS {
            let (client, url) = (client.clone(), url.to_owned());
            let (counter, refusals) = (Arc::clone(&counter), Arc::clone(&refusals));
            let mut may_place = may_place.clone();
            tokio::spawn(async move {
                while may_place.wait_for(|allowed| *counter.borrow() < *allowed).await.is_ok() {
                    let taken = eventually("order that is taken", DEADLINE, async || {
                        let placed = place_order(&client, &url, 123).await;
                        if placed.is_err() {
                            refusals.send_modify(|count| *count += 1);
                        }
                        placed.map(Some)
                    });
                    if taken.await.is_ok() {
                        counter.send_modify(|count| *count += 1);
                    }
                }
            });
        }
        Self { allowed, placed, refused }
    }

    /// Waits until this many more have been placed.
    async fn allow_more(&mut self, more: usize) {
        let allowed = *self.allowed.borrow() + more;
        self.allow_up_to(allowed).await;
    }

    async fn allow_up_to(&mut self, allowed: usize) {
        self.allowed.send_replace(allowed);
        let placed = self.placed.wait_for(|placed| *placed >= allowed);
        tokio::time::timeout(DEADLINE, placed).await.expect("orders are placed").unwrap();
    }

    /// Lets the clients run into a part that is down.
    async fn allow_and_see_a_refusal(&mut self, more: usize) {
        let before = *self.refused.borrow();
        self.allowed.send_modify(|allowed| *allowed += more);
        let refused = self.refused.wait_for(|refused| *refused > before);
        tokio::time::timeout(DEADLINE, refused).await.expect("an order is refused").unwrap();
    }
}

/// An order whose answer was lost is in the database without being counted, so the database says what was ordered.
async fn check_end(flow: &Deployment) {
    // Read anew each time: a request that its client gave up may be committed after the first look.
    let ended = eventually("a shipment for each order", CATCH_UP_BOUND, async || {
        let mut postgres = PgConnection::connect(&flow.order_database.url()).await?;
        let query = "select id from inventory.purchaseorder";
        let ordered: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut postgres).await?;
        let ordered: BTreeSet<i64> = ordered.into_iter().collect();
        let mut mysql = MySqlConnection::connect(&flow.shipment_database.url()).await?;
        let query = "select orderId from Shipment";
        let shipped: Vec<i64> = sqlx::query_scalar(query).fetch_all(&mut mysql).await?;
        let distinct: BTreeSet<i64> = shipped.iter().copied().collect();
        let missing: Vec<_> = ordered.difference(&distinct).collect();
        ensure!(missing.is_empty(), "{} orders have no shipment: {missing:?}", missing.len());
        ensure!(distinct.is_subset(&ordered), "shipments of orders that are not there (yet)");
        Ok(Some((ordered, shipped)))
    });
    let (ordered, shipped) = match ended.await {
        Ok(ended) => ended,
        Err(error) => panic!("{error:#}\n{}\n{}", tail(&flow.relay), tail(&flow.shipment_service)),
    };
    assert!(ordered.len() >= ORDERS, "{} orders", ordered.len());
    assert_eq!(shipped.len(), ordered.len(), "an order was shipped twice");
    check_events(flow, &ordered).await;
}

/// Each order has one event in the topic: the same id if it came more than once.
async fn check_events(flow: &Deployment, ordered: &BTreeSet<i64>) {
    let brokers = flow.servers.kafka.bootstrap_servers();
    let records = topic::read(brokers, "OrderEvents").await.unwrap();
    let mut ids: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for record in &records {
        assert_eq!(record.header("eventType").as_deref(), Some("OrderCreated"));
        let order = record.key_text().parse().unwrap();
        ids.entry(order).or_default().insert(record.header("id").unwrap());
    }
    let events: BTreeSet<i64> = ids.keys().copied().collect();
    assert_eq!(&events, ordered);
    assert!(ids.values().all(|ids| ids.len() == 1), "an order has two events");
    println!(
        "{} orders, {} records, {} of them again",
        ordered.len(),
        records.len(),
        records.len() - ordered.len()
    );
    let mut mysql = MySqlConnection::connect(&flow.shipment_database.url()).await.unwrap();
    let consumed: i64 = sqlx::query_scalar("select count(*) from ConsumedMessage")
        .fetch_one(&mut mysql)
        .await
        .unwrap();
    assert_eq!(usize::try_from(consumed).unwrap(), ordered.len());
}

fn tail(part: &testbed::deployment::Part) -> String {
    part.program().map(testbed::Program::tail).unwrap_or_default()
}
