//! Connections whose peer takes nothing any more.
//!
//! A peer that keeps its connection open without reading blocks whoever writes to it, for as long as it
//! likes. Where that is no way to use the route, its handler sets a [`StallLimit`]: writing that makes no
//! progress for so long breaks the connection.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// For how long writing to one connection may make no progress: at first, as long as it likes. Handlers find
/// it as `ConnectInfo<StallLimit>`, where [`serve`](crate::http::serve) serves them.
#[derive(Debug, Clone, Default)]
pub struct StallLimit(Arc<AtomicU64>);

impl StallLimit {
    /// Limits it, from the next write on that has to wait.
    pub fn set(&self, limit: Duration) {
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX).max(1);
        self.0.store(millis, Ordering::Relaxed);
    }

    fn get(&self) -> Option<Duration> {
        match self.0.load(Ordering::Relaxed) {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        }
    }
}

impl<L> Connected<IncomingStream<'_, Guard<L>>> for StallLimit
where
    L: Listener,
{
    fn connect_info(stream: IncomingStream<'_, Guard<L>>) -> Self {
        stream.io().limit.clone()
    }
}

/// A listener whose connections have a [`StallLimit`].
#[derive(Debug)]
pub struct Guard<L>(pub L);

impl<L: Listener> Listener for Guard<L> {
    type Io = Guarded<L::Io>;
    type Addr = L::Addr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (io, address) = self.0.accept().await;
        (Guarded::new(io), address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.0.local_addr()
    }
}

/// A connection with a [`StallLimit`].
#[derive(Debug)]
pub struct Guarded<Io> {
    io: Io,
    limit: StallLimit,
    /// Runs while writing waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<Io> Guarded<Io> {
    fn new(io: Io) -> Self {
        Self {
            io,
            limit: StallLimit::default(),
            stalled: None,
        }
    }

    /// What writing has come to, unless it has waited for too long.
    fn within_limit<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.stalled = None;
            return written;
        }
        if self.stalled.is_none() {
            self.stalled = self.limit.get().map(|limit| Box::pin(sleep(limit)));
        }
        match &mut self.stalled {
            Some(stalled) => {
                let over = stalled.as_mut().poll(context);
                over.map(|()| Err(io::ErrorKind::TimedOut.into()))
            }
            None => Poll::Pending,
        }
    }
}

impl<Io: AsyncRead + Unpin> AsyncRead for Guarded<Io> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, buffer)
    }
}

impl<Io: AsyncWrite + Unpin> AsyncWrite for Guarded<Io> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.within_limit(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.io).poll_write_vectored(context, bytes);
        self.within_limit(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (here, _there) = duplex(4);
        let mut here = Guarded::new(here);
        here.limit.set(LIMIT);
        let start = tokio::time::Instant::now();
        let error = here.write_all(b"more than four").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed().as_secs(), LIMIT.as_secs());
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_slowly_is_not() {
        let (here, mut there) = duplex(1);
        let mut here = Guarded::new(here);
        here.limit.set(LIMIT);
        let reading = tokio::spawn(async move {
            let mut read = Vec::new();
            for _ in 0..5 {
                tokio::time::sleep(LIMIT - Duration::from_secs(1)).await;
                read.push(there.read_u8().await.unwrap());
            }
            read
        });
        here.write_all(b"hello").await.unwrap();
        assert_eq!(reading.await.unwrap(), b"hello");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_limit_it_is_waited_for() {
        let (here, _there) = duplex(1);
        let mut here = Guarded::new(here);
        let writing = here.write_all(b"hello");
        let hour = Duration::from_secs(3600);
        assert!(tokio::time::timeout(hour, writing).await.is_err());
    }
}
