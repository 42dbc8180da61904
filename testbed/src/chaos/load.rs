//! Customers who order and change their orders all the time, whatever is down behind the order-service.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};

use super::random::Random;

/// Clients that send requests at the same time.
const CLIENTS: u64 = 4;

/// Between two requests of a client: 100 a second of all, which leaves a machine of two cores its breath.
const PACE: Duration = Duration::from_millis(40);

/// Few customers, so that orders of one customer are placed at the same time by several clients.
const CUSTOMERS: u64 = 10;

/// Orders that may still be changed; any client may change any of them.
const OPEN_ORDERS: usize = 8;

/// A request that is not answered by then is given up; the database knows what became of it.
const REQUEST_BOUND: Duration = Duration::from_secs(5);

/// What the clients have seen. What counts in the end is what the database says: an answer may have been cut off.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Requests {
    pub(super) placed: u64,
    pub(super) changed: u64,
    pub(super) refused: u64,
}

impl Requests {
    pub(super) const fn attempts(self) -> u64 {
        self.placed + self.changed + self.refused
    }
}

/// What the clients do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Habit {
    /// Orders, and later changes of their lines: several events of one key.
    OrderAndChange,
    OrderOnly,
}

/// The clients at work, from now until [`Load::stop`].
pub(super) struct Load {
    go_on: watch::Sender<bool>,
    requests: watch::Receiver<Requests>,
    clients: JoinSet<()>,
}

impl Load {
    /// `url` is that of the order-service.
    pub(super) fn begin(url: &str, seed: u64, habit: Habit) -> Result<Self> {
        let http = Client::builder().timeout(REQUEST_BOUND).build().context("an HTTP client")?;
        let (go_on, may_go_on) = watch::channel(true);
        let (counter, requests) = watch::channel(Requests::default());
        let shared =
            Arc::new(Shared { http, url: url.to_owned(), open: Mutex::default(), counter });
        let mut clients = JoinSet::new();
        for client in 0..CLIENTS {
            let random = Random::new(seed.wrapping_add(client + 1));
            clients.spawn(work(Arc::clone(&shared), may_go_on.clone(), random, habit));
        }
        Ok(Self { go_on, requests, clients })
    }

    pub(super) fn requests(&self) -> Requests {
        *self.requests.borrow()
    }

    /// Waits until the requests are as `enough` says.
    ///
    /// # Errors
    /// When they are not within `bound`.
    pub(super) async fn until(
        &self,
        what: &str,
        bound: Duration,
        enough: impl Fn(&Requests) -> bool,
    ) -> Result<()> {
        let mut requests = self.requests.clone();
        let reached = requests.wait_for(enough);
        let reached = tokio::time::timeout(bound, reached).await;
        let reached = reached.with_context(|| format!("after {bound:?} still no {what}"))?;
        reached.map(drop).context("the clients are gone")
    }

    /// Lets the requests that are under way end, and sends no more.
    pub(super) async fn stop(mut self) -> Requests {
        self.go_on.send_replace(false);
        while self.clients.join_next().await.is_some() {}
        self.requests()
    }
}

/// What the clients have in common.
struct Shared {
    http: Client,
    url: String,
    /// Id of the order and of one of its lines.
    open: Mutex<Vec<(i64, i64)>>,
    counter: watch::Sender<Requests>,
}

/// Places one order; returns its id and that of its line.
pub(super) async fn place(http: &Client, url: &str, customer: u64) -> Result<(i64, i64)> {
    let line = json!({"item": "Debezium in Action", "quantity": 2, "totalPrice": 39.98});
    let order =
        json!({"customerId": customer, "orderDate": "2019-01-31T12:13:01", "lineItems": [line]});
    let answer = http.post(format!("{url}/orders")).json(&order).send().await?;
    ensure!(answer.status().is_success(), "{}", answer.status());
    let placed: Value = answer.json().await?;
    let ids = placed["id"].as_i64().zip(placed["lineItems"][0]["id"].as_i64());
    ids.with_context(|| format!("no ids in {placed}"))
}

async fn work(
    shared: Arc<Shared>,
    may_go_on: watch::Receiver<bool>,
    mut random: Random,
    habit: Habit,
) {
    let mut pace = interval(PACE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while *may_go_on.borrow() {
        pace.tick().await;
        let change = habit == Habit::OrderAndChange && random.one_in(2);
        let change = if change { shared.an_open_order(&mut random) } else { None };
        let done = match change {
            Some((order, line)) => shared.change(order, line, random.one_in(2)).await,
            None => shared.place(random.between(1, CUSTOMERS)).await,
        };
        shared.counter.send_modify(|requests| match (done, change) {
            (Ok(()), Some(_)) => requests.changed += 1,
            (Ok(()), None) => requests.placed += 1,
            (Err(_), _) => requests.refused += 1,
        });
    }
}

impl Shared {
    fn an_open_order(&self, random: &mut Random) -> Option<(i64, i64)> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let last = open.len().checked_sub(1)?;
        let chosen = usize::try_from(random.between(0, last as u64)).unwrap_or(last);
        Some(open[chosen])
    }

    async fn place(&self, customer: u64) -> Result<()> {
        let (order, line) = place(&self.http, &self.url, customer).await?;
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.len() == OPEN_ORDERS {
            open.remove(0);
        }
        open.push((order, line));
        Ok(())
    }

    async fn change(&self, order: i64, line: i64, cancel: bool) -> Result<()> {
        let status = json!({"newStatus": if cancel { "CANCELLED" } else { "SHIPPED" }});
        let url = format!("{}/orders/{order}/lines/{line}", self.url);
        let answer = self.http.put(url).json(&status).send().await?;
        ensure!(answer.status().is_success(), "{}", answer.status());
        answer.bytes().await?;
        Ok(())
    }
}
