//! A TCP proxy that can be cut, frozen and healed: a network fault in the hands of a test.

use std::net::SocketAddr;

use anyhow::Result;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// Connections are closed, new ones too.
    Cut,
    /// Nothing is closed, and nothing goes through: what a lost cable looks like.
    Frozen,
}

/// Forwards a port of this machine to a server, as long as it is healed.
pub(super) struct Proxy {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Forwards to `target` (host:port) at once.
    pub(super) async fn to(target: String) -> Result<Proxy> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (state, watched) = watch::channel(State::Open);
        let accepting = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(forward(client, target.clone(), watched.clone()));
            }
        });
        Ok(Proxy { address, state, accepting })
    }

    pub(super) fn port(&self) -> u16 {
        self.address.port()
    }

    pub(super) fn cut(&self) {
        self.state.send_replace(State::Cut);
    }

    pub(super) fn freeze(&self) {
        self.state.send_replace(State::Frozen);
    }

    pub(super) fn heal(&self) {
        self.state.send_replace(State::Open);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

/// Until one side closes, or the state changes. A connection that was frozen is dead for good, as it would be after
/// the timeouts of a real network.
async fn forward(mut client: TcpStream, target: String, mut state: watch::Receiver<State>) {
    let now = *state.borrow_and_update();
    if now == State::Open {
        let Ok(mut server) = TcpStream::connect(target).await else { return };
        tokio::select! {
            _ = copy_bidirectional(&mut client, &mut server) => {}
            _ = state.changed() => {
                if *state.borrow_and_update() == State::Frozen {
                    let _ = state.changed().await;
                }
            }
        }
    } else if now == State::Frozen {
        let _ = state.changed().await;
    }
}
