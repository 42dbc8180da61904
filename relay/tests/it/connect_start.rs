//! A worker whose broker goes away while it starts: it waits for it and says so, whatever it was just asking.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use testbed::{servers, unique_name};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};

use crate::connect_worker::{DEADLINE, Worker};

/// Kafka's numbers of the requests (Kafka protocol guide, "API keys").
const CREATE_TOPICS: i16 = 19;
const DESCRIBE_CONFIGS: i16 = 32;

/// In front of the broker: cuts a connection on the first requests of a kind.
struct Interposer {
    port: u16,
    cuts_left: Arc<AtomicUsize>,
}

impl Interposer {
    async fn cutting(api_key: i16, times: usize) -> Result<Self> {
        let broker = servers().await?.bootstrap_servers();
        let broker: u16 = broker.rsplit(':').next().context("a port")?.parse()?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let cuts_left = Arc::new(AtomicUsize::new(times));
        let cuts = Arc::clone(&cuts_left);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let cuts = Arc::clone(&cuts);
                tokio::spawn(async move {
                    let server = TcpStream::connect(("127.0.0.1", broker)).await?;
                    let (from_client, to_client) = client.into_split();
                    let (from_server, to_server) = server.into_split();
                    // The first that ends drops both halves, and with them the connection.
                    tokio::select! {
                        ended = requests(from_client, to_server, api_key, &cuts) => ended,
                        ended = answers(from_server, to_client, broker, port) => ended,
                    }
                });
            }
        });
        Ok(Self { port, cuts_left })
    }
}

/// Every message is its length in four bytes and then its bytes; a request begins with its API key.
async fn message(from: &mut OwnedReadHalf) -> Result<Vec<u8>> {
    let length = from.read_u32().await?;
    let mut bytes = vec![0; usize::try_from(length)?];
    from.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn pass(to: &mut OwnedWriteHalf, bytes: &[u8]) -> Result<()> {
    to.write_u32(u32::try_from(bytes.len())?).await?;
    Ok(to.write_all(bytes).await?)
}

async fn requests(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    api_key: i16,
    cuts: &AtomicUsize,
) -> Result<()> {
    loop {
        let request = message(&mut from).await?;
        let takes_one = |left: usize| left.checked_sub(1);
        if request[..2] == api_key.to_be_bytes()
            && cuts.fetch_update(Ordering::SeqCst, Ordering::SeqCst, takes_one).is_ok()
        {
            return Ok(());
        }
        pass(&mut to, &request).await?;
    }
}

/// The broker's own address leads past this one, so it is replaced: host and port as the protocol writes them.
async fn answers(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    broker: u16,
    port: u16,
) -> Result<()> {
    let address = |port: u16| [b"127.0.0.1".as_slice(), &i32::from(port).to_be_bytes()].concat();
    let (theirs, ours) = (address(broker), address(port));
    loop {
        let mut answer = message(&mut from).await?;
        for at in 0..answer.len().saturating_sub(theirs.len() - 1) {
            if answer[at..].starts_with(&theirs) {
                answer[at..at + ours.len()].copy_from_slice(&ours);
            }
        }
        pass(&mut to, &answer).await?;
    }
}

async fn starts_although_cut(api_key: i16, topics: &str) -> Result<()> {
    let kafka = Interposer::cutting(api_key, 4).await?;
    let worker = Worker::start_only(&format!("127.0.0.1:{}", kafka.port), topics, &[])?;
    worker.program.line("waiting for Kafka", DEADLINE).await?;
    worker.ready().await?;
    assert_eq!(kafka.cuts_left.load(Ordering::SeqCst), 0);
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_while_the_storage_topics_are_made_is_waited_for() -> Result<()> {
    starts_although_cut(CREATE_TOPICS, &unique_name("start")).await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_goes_away_while_the_storage_topics_are_checked_is_waited_for() -> Result<()>
{
    let topics = unique_name("start");
    Worker::start(&topics, &[]).await?.program.terminate().await?;
    starts_although_cut(DESCRIBE_CONFIGS, &topics).await
}
