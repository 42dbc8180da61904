//! A TCP connection that can rest: while nobody wants to read, bytes that arrive wake nobody.
//!
//! The runtime watches a socket with edge-triggered epoll, which reports every arrival, asked for or not. A walsender
//! writes once per transaction; while the relay lets bytes gather, each of these writes would wake a thread of the
//! runtime for nothing (measured: 47,000 wake-ups for 100,000 transactions, and half of the throughput).

use std::io::{self, ErrorKind, Read as _, Write as _};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// What may arrive unread, where the server is near. The walsender writes once per WAL message. While there is room,
/// each write travels as a packet of its own; when there is none, writes gather on the server's side and leave as one.
/// The kernel would let the room grow to megabytes (measured: 85,000 to 125,000 packets where 2,000 do, and up to twice
/// the walsender's processor time).
const WINDOW_BYTES: usize = 32 * 1024;

/// A server that takes a connection within this time is near: there the window leaves 16 MB/s to a stream at the least.
const NEAR: Duration = Duration::from_millis(2);

/// Limits what may arrive unread, where the server was reached within `connecting`.
pub(super) fn limit_window(stream: &TcpStream, connecting: Duration) -> io::Result<()> {
    if connecting > NEAR {
        return Ok(());
    }
    SockRef::from(stream).set_recv_buffer_size(WINDOW_BYTES)
}

/// A non-blocking TCP connection.
#[derive(Debug)]
pub(super) struct Socket(State);

#[derive(Debug)]
enum State {
    /// The runtime is told of everything that arrives.
    Watched(TcpStream),
    /// Nobody is told: reads and writes find out for themselves.
    Resting(std::net::TcpStream),
    /// It could not be handed over, and is closed.
    Lost,
}

impl Socket {
    pub(super) const fn new(stream: TcpStream) -> Self {
        Self(State::Watched(stream))
    }

    /// No wake-ups until a read or a write finds that it has to wait.
    ///
    /// # Errors
    /// When the runtime cannot let go of it; the connection is closed then.
    pub(super) fn rest(&mut self) -> io::Result<()> {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Watched(stream) => State::Resting(stream.into_std()?),
            other => other,
        };
        Ok(())
    }

    fn watched(&mut self) -> io::Result<Pin<&mut TcpStream>> {
        self.0 = match std::mem::replace(&mut self.0, State::Lost) {
            State::Resting(stream) => State::Watched(TcpStream::from_std(stream)?),
            other => other,
        };
        match &mut self.0 {
            State::Watched(stream) => Ok(Pin::new(stream)),
            State::Resting(_) | State::Lost => Err(ErrorKind::NotConnected.into()),
        }
    }

    /// `None`: it is watched, or would have to wait.
    fn at_once(
        &mut self,
        attempt: impl FnOnce(&mut std::net::TcpStream) -> io::Result<usize>,
    ) -> Option<io::Result<usize>> {
        let State::Resting(stream) = &mut self.0 else { return None };
        let result = attempt(stream);
        let waits = |error: &io::Error| {
            matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
        };
        (!result.as_ref().is_err_and(waits)).then_some(result)
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(result) = self.at_once(|stream| stream.read(buffer.initialize_unfilled())) {
            return Poll::Ready(result.map(|length| buffer.advance(length)));
        }
        self.watched()?.poll_read(context, buffer)
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.at_once(|stream| stream.write(bytes)) {
            Some(result) => Poll::Ready(result),
            None => self.watched()?.poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has no buffer of its own to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.watched()?.poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (Socket, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (ours, theirs) = tokio::join!(TcpStream::connect(address), listener.accept());
        (Socket::new(ours.unwrap()), theirs.unwrap().0)
    }

    #[tokio::test]
    async fn what_arrived_while_it_rested_is_read() {
        let (mut socket, mut peer) = pair().await;
        socket.rest().unwrap();
        peer.write_all(b"events").await.unwrap();
        let mut read = [0; 6];
        socket.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"events");
    }

    #[tokio::test]
    async fn a_read_waits_for_what_comes_after_the_rest() {
        let (mut socket, mut peer) = pair().await;
        socket.rest().unwrap();
        let mut read = [0; 6];
        let both = tokio::join!(socket.read_exact(&mut read), peer.write_all(b"events"));
        assert!(both.0.is_ok() && both.1.is_ok());
        assert_eq!(&read, b"events");
        socket.write_all(b"thanks").await.unwrap();
        socket.rest().unwrap();
        socket.write_all(b"again").await.unwrap();
        let mut answer = [0; 11];
        peer.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"thanksagain");
    }

    #[tokio::test]
    async fn the_end_of_the_connection_is_seen_after_a_rest() {
        let (mut socket, peer) = pair().await;
        socket.rest().unwrap();
        drop(peer);
        assert_eq!(socket.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
