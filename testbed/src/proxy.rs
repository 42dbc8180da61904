//! A TCP proxy of our own: a network that can be cut, slowed down, or made to swallow everything without a word.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What the network does to every connection through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Network {
    /// Everything goes through at once.
    Good,
    /// Connections break, and new ones are closed at once.
    Cut,
    /// Everything takes so much longer, in each direction.
    Slow(Duration),
    /// So many bytes go through in each [`DRIP_INTERVAL`], in each direction.
    Drip(usize),
    /// Nothing goes through, and neither side is told. What was connected meanwhile stays dead when the network is good
    /// again, also without a word: what is left of a connection when a device between the two forgets it.
    BlackHole,
}

/// Between two drips.
pub const DRIP_INTERVAL: Duration = Duration::from_millis(10);

/// Taken at a time.
const CHUNK: usize = 16 * 1024;

/// Forwards a port of 127.0.0.1 until it is dropped.
pub struct Proxy {
    address: SocketAddr,
    network: watch::Sender<Network>,
    target: Arc<AtomicU16>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards a free port to `target`, a port of 127.0.0.1 that need not be open yet.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn to(target: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.context("a port for the proxy")?;
        let address = listener.local_addr()?;
        let (network, watched) = watch::channel(Network::Good);
        let target = Arc::new(AtomicU16::new(target));
        let present_target = Arc::clone(&target);
        let accepting = tokio::spawn(async move {
            // Connections end with the proxy.
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((client, _)) = listener.accept().await {
                let target = present_target.load(Ordering::Relaxed);
                connections.spawn(connect(client, target, watched.clone()));
            }
        });
        Ok(Self { address, network, target, accepting })
    }

    /// The port to dial.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// New connections lead to another port, as an address does that moves to a standby.
    pub fn lead_to(&self, target: u16) {
        self.target.store(target, Ordering::Relaxed);
    }

    /// From now on the network is like this.
    pub fn set(&self, network: Network) {
        self.network.send_replace(network);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn connect(client: TcpStream, target: u16, mut network: watch::Receiver<Network>) {
    let now = *network.borrow_and_update();
    match now {
        Network::Cut => return,
        Network::BlackHole => return hold(client).await,
        Network::Good | Network::Slow(_) | Network::Drip(_) => {}
    }
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let both = async {
        tokio::join!(
            forward(from_client, to_server, network.clone()),
            forward(from_server, to_client, network.clone())
        );
    };
    let mut cut = network.clone();
    tokio::select! {
        () = both => {}
        // The halves are dropped, and with them the connection.
        _ = cut.wait_for(|network| *network == Network::Cut) => {}
    }
}

/// Neither reads nor closes.
async fn hold<T>(connection: T) {
    let _connection = connection;
    std::future::pending().await
}

/// One direction, until its end.
async fn forward(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut network: watch::Receiver<Network>,
) {
    let mut chunk = vec![0; CHUNK];
    loop {
        let now = *network.borrow_and_update();
        if now == Network::BlackHole {
            return hold((from, to)).await;
        }
        let room = if let Network::Drip(bytes) = now { bytes.clamp(1, CHUNK) } else { CHUNK };
        let read = tokio::select! {
            biased;
            // It is for what comes next, too.
            _ = network.changed() => continue,
            read = from.read(&mut chunk[..room]) => read,
        };
        let length = match read {
            Ok(length) if length > 0 => length,
            _ => break,
        };
        match now {
            Network::Slow(delay) => tokio::time::sleep(delay).await,
            Network::Drip(_) => tokio::time::sleep(DRIP_INTERVAL).await,
            Network::Good | Network::Cut | Network::BlackHole => {}
        }
        if to.write_all(&chunk[..length]).await.is_err() {
            break;
        }
    }
    let _ = to.shutdown().await;
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use tokio::time::timeout;

    use super::*;

    /// Answers each byte with itself.
    async fn echo() -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.into_split();
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                });
            }
        });
        port
    }

    async fn say(stream: &mut TcpStream, text: &[u8]) -> std::io::Result<()> {
        stream.write_all(text).await?;
        let mut answer = vec![0; text.len()];
        stream.read_exact(&mut answer).await?;
        assert_eq!(answer, text);
        Ok(())
    }

    async fn dial(proxy: &Proxy) -> TcpStream {
        TcpStream::connect(("127.0.0.1", proxy.port())).await.unwrap()
    }

    const A_WHILE: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn a_cut_closes_what_is_open_and_a_good_network_takes_new_connections() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = dial(&proxy).await;
        say(&mut stream, b"good").await.unwrap();
        proxy.set(Network::Cut);
        assert!(matches!(stream.read(&mut [0]).await, Ok(0) | Err(_)));
        assert!(say(&mut dial(&proxy).await, b"cut").await.is_err());
        proxy.set(Network::Good);
        say(&mut dial(&proxy).await, b"good again").await.unwrap();
    }

    #[tokio::test]
    async fn a_black_hole_says_nothing_and_what_it_swallowed_stays_dead() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut before = dial(&proxy).await;
        say(&mut before, b"good").await.unwrap();
        proxy.set(Network::BlackHole);
        let mut within = dial(&proxy).await;
        assert!(timeout(A_WHILE, say(&mut before, b"lost")).await.is_err());
        assert!(timeout(A_WHILE, say(&mut within, b"lost")).await.is_err());
        proxy.set(Network::Good);
        say(&mut dial(&proxy).await, b"good again").await.unwrap();
        assert!(timeout(A_WHILE, before.read(&mut [0])).await.is_err());
        assert!(timeout(A_WHILE, within.read(&mut [0])).await.is_err());
    }

    #[tokio::test]
    async fn a_slow_network_delivers_later() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = dial(&proxy).await;
        proxy.set(Network::Slow(Duration::from_millis(50)));
        let began = Instant::now();
        say(&mut stream, b"there and back").await.unwrap();
        assert!(began.elapsed() >= Duration::from_millis(100));
    }

    #[tokio::test]
    async fn a_drip_delivers_everything_bit_by_bit() {
        let proxy = Proxy::to(echo().await).await.unwrap();
        let mut stream = dial(&proxy).await;
        proxy.set(Network::Drip(10));
        let began = Instant::now();
        say(&mut stream, &[7; 100]).await.unwrap();
        assert!(began.elapsed() >= 9 * DRIP_INTERVAL);
    }
}
