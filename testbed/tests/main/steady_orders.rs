//! Orders that keep coming at a steady pace, whatever happens behind the order-service.

use std::sync::Arc;
use std::time::Duration;

use reqwest::Client;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use crate::flow::{DEADLINE, place_order};

/// Clients that place orders at the same time.
const PLACERS: u32 = 4;

/// Customers of one client. No customer has two clients, so their orders have one order.
const CUSTOMERS_OF_EACH: u32 = 5;

/// All customers; ids begin with 1.
pub(crate) const CUSTOMERS: u32 = PLACERS * CUSTOMERS_OF_EACH;

/// Between two orders of a client: 50 a second of all, which leaves a busy machine of two cores its breath.
const PACE: Duration = Duration::from_millis(80);

/// Orders, from now until [`SteadyOrders::stop`].
pub(crate) struct SteadyOrders {
    go_on: watch::Sender<bool>,
    placed: watch::Receiver<usize>,
    placers: JoinSet<()>,
}

impl SteadyOrders {
    /// `url` is that of the order-service. Each order must be taken.
    pub(crate) fn begin(client: &Client, url: &str) -> Self {
        let (go_on, may_go_on) = watch::channel(true);
        let (counter, placed) = watch::channel(0);
        let counter = Arc::new(counter);
        let mut placers = JoinSet::new();
        for placer in 0..PLACERS {
            let (client, url, counter) = (client.clone(), url.to_owned(), Arc::clone(&counter));
            let may_go_on = may_go_on.clone();
            placers.spawn(async move {
                let mut pace = interval(PACE);
                pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
                let customers = (0..CUSTOMERS_OF_EACH).map(|n| 1 + placer * CUSTOMERS_OF_EACH + n);
                for customer in customers.cycle() {
                    pace.tick().await;
                    if !*may_go_on.borrow() {
                        break;
                    }
                    place_order(&client, &url, customer).await.expect("an order is taken");
                    counter.send_modify(|count| *count += 1);
                }
            });
        }
        Self { go_on, placed, placers }
    }

    /// Orders placed so far.
    pub(crate) fn placed(&self) -> usize {
        *self.placed.borrow()
    }

    /// Waits until this many more have been placed, and returns how many there are then.
    pub(crate) async fn more(&mut self, more: usize) -> usize {
        let expected = self.placed() + more;
        self.until(expected).await
    }

    /// Waits until this many have been placed in all, and returns how many there are then.
    pub(crate) async fn until(&mut self, expected: usize) -> usize {
        let reached = self.placed.wait_for(|placed| *placed >= expected);
        *tokio::time::timeout(DEADLINE, reached).await.expect("orders are placed").unwrap()
    }

    /// Ends the flow; returns how many orders were placed.
    pub(crate) async fn stop(mut self) -> usize {
        self.go_on.send_replace(false);
        while let Some(ended) = self.placers.join_next().await {
            ended.expect("each order is taken");
        }
        self.placed()
    }
}
