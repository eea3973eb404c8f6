//! Helpers for tests that need read models on a real MongoDB server.

use std::env;

use mongodb::Client;
use uuid::Uuid;

/// A MongoDB database of a test's own.
#[derive(Debug)]
pub struct TestDatabase {
    /// Its address, as [`crate::ReadModelsUrl`] reads it.
    pub url: String,
}

impl TestDatabase {
    /// A new, uniquely named database on the server that `HANSARD_TEST_MONGODB` gives (`mongodb://HOST:PORT`,
    /// options may follow).
    ///
    /// `None` means that the test is to be skipped: there is no server and `HANSARD_TEST_EMBEDDED_ONLY` is 1.
    ///
    /// # Panics
    /// When there is no server and the tests were not asked to do without.
    pub fn new() -> Option<Self> {
        let Ok(base) = env::var("HANSARD_TEST_MONGODB") else {
            if env::var("HANSARD_TEST_EMBEDDED_ONLY").is_ok_and(|value| value == "1") {
                println!(
                    "skipped: there is no MongoDB server, and only embedded stacks are wanted"
                );
                return None;
            }
            panic!(
                "this test needs a MongoDB server: run it through `cargo xtask test`, which starts one, or \
                 name one in HANSARD_TEST_MONGODB, or set HANSARD_TEST_EMBEDDED_ONLY=1 to skip it"
            );
        };
        let (base, options) = match base.split_once('?') {
            Some((base, options)) => (base, format!("?{options}")),
            None => (base.as_str(), String::new()),
        };
        let base = base.trim_end_matches('/');
        let name = format!("hansard_test_{}", Uuid::new_v4().simple());
        Some(Self {
            url: format!("{base}/{name}{options}"),
        })
    }

    /// The database itself, to look at it past the port.
    ///
    /// # Errors
    /// What the driver says of the address.
    pub async fn connect(&self) -> mongodb::error::Result<mongodb::Database> {
        let client = Client::with_uri_str(&self.url).await?;
        client
            .default_database()
            .ok_or_else(|| mongodb::error::Error::custom("the address names no database"))
    }

    /// Removes the database. A test that fails leaves it for inspection.
    ///
    /// # Errors
    /// What the driver says.
    pub async fn drop_database(self) -> mongodb::error::Result<()> {
        self.connect().await?.drop().await
    }
}
