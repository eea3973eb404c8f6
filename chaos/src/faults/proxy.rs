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
