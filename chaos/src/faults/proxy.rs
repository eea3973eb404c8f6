//! A TCP proxy of our own that breaks what goes through it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use xtask::port::Port;

/// Bytes that are passed on at a time.
const PIECE: usize = 16 * 1024;

/// What a proxy does with connections.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Weather {
    /// Passes everything on.
    Fair,
    /// Passes on, but with this probability at each piece passes half of it on and resets the connection.
    Resets(f64),
    /// Resets each connection, and each new one.
    Cut,
    /// Takes connections and bytes, and passes nothing on.
    Silent,
}

/// A proxy before one server.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    weather: watch::Sender<Weather>,
    task: Option<JoinHandle<()>>,
}

impl Proxy {
    /// Has an address, and doesn't listen yet.
    ///
    /// # Errors
    /// No port is free.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            port: Port::reserve()?,
            weather: watch::Sender::new(Weather::Fair),
            task: None,
        })
    }

    /// `HOST:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        self.port.address()
    }

    /// Begins to listen, and to pass on to the server at `target` (`HOST:PORT`).
    ///
    /// # Errors
    /// It can't listen, or `target` is no address.
    pub async fn listen(&mut self, target: &str, seed: u64) -> anyhow::Result<()> {
        let target: SocketAddr = target
            .parse()
            .with_context(|| format!("{target} is no address"))?;
        let listener = TcpListener::bind(self.address()).await;
        let listener = listener.context("the proxy can't listen")?;
        let weather = self.weather.subscribe();
        let random = Arc::new(Mutex::new(StdRng::seed_from_u64(seed)));
        self.task = Some(tokio::spawn(async move {
            loop {
                if let Ok((client, _)) = listener.accept().await {
                    let passing = pass_on(client, target, weather.clone(), Arc::clone(&random));
                    tokio::spawn(passing);
                }
            }
        }));
        Ok(())
    }

    /// Changes what is done from now on, with open connections too.
    pub fn set(&self, weather: Weather) {
        self.weather.send_replace(weather);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// Both directions of one connection, until either ends.
async fn pass_on(
    client: TcpStream,
    target: SocketAddr,
    weather: watch::Receiver<Weather>,
    random: Arc<Mutex<StdRng>>,
) {
    let _ = client.set_nodelay(true);
    if *weather.borrow() == Weather::Cut {
        let _ = client.set_zero_linger();
        return;
    }
    let Ok(server) = TcpStream::connect(target).await else {
        return;
    };
    let _ = server.set_nodelay(true);
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let mut watched = weather.clone();
    let cut = async {
        // Fails when the proxy is gone.
        let _ = watched.wait_for(|it| *it == Weather::Cut).await;
    };
    let end = tokio::select! {
        () = cut => End::Reset,
        end = copy(&mut from_client, &mut to_server, weather.clone(), &random) => end,
        end = copy(&mut from_server, &mut to_client, weather.clone(), &random) => end,
    };
    if end == End::Reset {
        // Else what has been passed on would still arrive, and the end would look like one that was meant.
        let _ = from_client.as_ref().set_zero_linger();
        let _ = from_server.as_ref().set_zero_linger();
        // Dropped, these would say that all has been sent.
        to_client.forget();
        to_server.forget();
    }
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// One side closed it.
    Closed,
    Reset,
}

async fn copy(
    from: &mut (impl AsyncReadExt + Unpin),
    to: &mut (impl AsyncWriteExt + Unpin),
    mut weather: watch::Receiver<Weather>,
    random: &Mutex<StdRng>,
) -> End {
    let mut piece = vec![0; PIECE];
    loop {
        let Ok(read @ 1..) = from.read(&mut piece).await else {
            return End::Closed;
        };
        let now = match weather.wait_for(|it| *it != Weather::Silent).await {
            Ok(now) => *now,
            Err(_) => return End::Closed,
        };
        let resets = match now {
            Weather::Resets(probability) => random
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .random_bool(probability),
            _ => false,
        };
        let passed = if resets { read / 2 } else { read };
        if to.write_all(&piece[..passed]).await.is_err() {
            return End::Closed;
        }
        if resets {
            return End::Reset;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// How long something may take that must come.
    const SOON: Duration = Duration::from_secs(20);

    /// A proxy before a server that says everything back.
    async fn echo() -> Proxy {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap().to_string();
        tokio::spawn(async move {
            while let Ok((stream, _)) = server.accept().await {
                let (mut from, mut to) = stream.into_split();
                tokio::spawn(async move { tokio::io::copy(&mut from, &mut to).await });
            }
        });
        let mut proxy = Proxy::new().unwrap();
        proxy.listen(&address, 1).await.unwrap();
        proxy
    }

    /// What comes back of four bytes.
    async fn said_back(stream: &mut TcpStream) -> std::io::Result<Vec<u8>> {
        let mut back = vec![0; 4];
        stream.write_all(b"four").await?;
        let read = timeout(SOON, stream.read(&mut back)).await.unwrap()?;
        back.truncate(read);
        Ok(back)
    }

    #[tokio::test]
    async fn fair_weather_passes_everything_on() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        for _ in 0..3 {
            assert_eq!(said_back(&mut stream).await.unwrap(), b"four");
        }
    }

    #[tokio::test]
    async fn a_cut_ends_connections_and_new_ones_until_it_is_over() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(said_back(&mut stream).await.unwrap(), b"four");
        proxy.set(Weather::Cut);
        let reset = timeout(SOON, stream.read_u8()).await.unwrap();
        assert_eq!(
            reset.unwrap_err().kind(),
            std::io::ErrorKind::ConnectionReset
        );
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(timeout(SOON, stream.read_u8()).await.unwrap().is_err());
        proxy.set(Weather::Fair);
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(said_back(&mut stream).await.unwrap(), b"four");
    }

    #[tokio::test]
    async fn a_reset_comes_in_the_middle() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(said_back(&mut stream).await.unwrap(), b"four");
        proxy.set(Weather::Resets(1.0));
        let broken = said_back(&mut stream).await;
        assert!(broken.as_ref().is_ok_and(|it| it.len() < 4) || broken.is_err());
        assert!(timeout(SOON, stream.read_u8()).await.unwrap().is_err());
    }

    #[tokio::test]
    async fn silence_holds_bytes_back_and_loses_none() {
        let proxy = echo().await;
        let mut stream = TcpStream::connect(proxy.address()).await.unwrap();
        assert_eq!(said_back(&mut stream).await.unwrap(), b"four");
        proxy.set(Weather::Silent);
        stream.write_all(b"four").await.unwrap();
        // Whether it would have come can't be waited for; that nothing has come yet is seen beside it.
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        other.write_all(b"more").await.unwrap();
        let nothing = stream.try_read(&mut [0; 4]);
        assert_eq!(nothing.unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        proxy.set(Weather::Fair);
        let mut back = [0; 4];
        timeout(SOON, stream.read_exact(&mut back))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&back, b"four");
        timeout(SOON, other.read_exact(&mut back))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(&back, b"more");
    }
}
