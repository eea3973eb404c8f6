//! Configuration: defaults, a TOML file, `HANSARD_*` variables and flags, in this order of precedence.
//!
//! Each setting has one name: `read_models` in the file, `HANSARD_READ_MODELS` in the environment and
//! `--read-models` as a flag. What is not a setting is refused by name rather than ignored, and so is a
//! value that does not fit, with the place where it was given.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use event_log::LogUrl;
use events::RoomType;
use keys::KeysUrl;
use read_models::ReadModelsUrl;

use crate::secret;

/// A configuration that can't be used: one sentence that says what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct ConfigError(String);

impl ConfigError {
    /// An error with this sentence.
    pub fn new(sentence: impl Into<String>) -> Self {
        Self(sentence.into())
    }
}

/// The name of the generated master key's file in the data directory.
const GENERATED_MASTER_KEY: &str = "master-key";

/// The longest time for which texts can be set to be kept, in days: 100 years.
const MOST_DAYS: u64 = 100 * 366;

/// Whether callers must prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuthMode {
    /// Anybody may log in as anybody: for trying things out on one machine.
    Open,
    /// A valid token is needed everywhere.
    Token,
}

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

macro_rules! one_of {
    ($name:ident { $($variant:ident = $text:literal),+ }) => {
        impl fmt::Display for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(match self { $(Self::$variant => $text),+ })
            }
        }

        impl FromStr for $name {
            type Err = String;

            fn from_str(text: &str) -> Result<Self, String> {
                match text {
                    $($text => Ok(Self::$variant),)+
                    _ => Err(format!(
                        "{text:?} is not one of the possible values {}",
                        [$($text),+].join(", ")
                    )),
                }
            }
        }
    };
}

one_of!(AuthMode { Open = "open", Token = "token" });
one_of!(LogFormat { Text = "text", Json = "json" });

/// The flags that every binary takes. All optional: what is not given comes from the other layers.
// The texts are the command line's help, where [brackets] stand for what may be left out.
#[allow(rustdoc::broken_intra_doc_links)]
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Args {
    /// Read settings from this TOML file; its keys are named like the flags, with _ instead of -
    /// [env: HANSARD_CONFIG]
    #[arg(long, global = true, value_name = "FILE", help_heading = CONFIGURATION)]
    pub config: Option<PathBuf>,

    /// Address and port to listen on; the variable PORT changes just the default's port
    /// [env: HANSARD_LISTEN] [default: 127.0.0.1:3000]
    #[arg(long, global = true, value_name = "ADDRESS:PORT", help_heading = SERVING)]
    pub listen: Option<String>,

    /// Origins whose web pages may use the API, separated by commas; * for any
    /// [env: HANSARD_ALLOWED_ORIGINS] [default: *]
    #[arg(long, global = true, value_name = "ORIGINS", help_heading = SERVING)]
    pub allowed_origins: Option<String>,

    /// Event log: sqlite:PATH or nats://[USER:PASSWORD@]HOST[:PORT][,HOST...][/STREAM]
    /// [env: HANSARD_LOG] [default: sqlite:log.db]
    #[arg(long, global = true, value_name = "URL", help_heading = STORAGE)]
    pub log: Option<String>,

    /// Key store: sqlite:PATH or nats://[USER:PASSWORD@]HOST[:PORT][,HOST...]/BUCKET
    /// [env: HANSARD_KEYS] [default: sqlite:keys.db, or the bucket STREAM-keys on the log's servers]
    #[arg(long, global = true, value_name = "URL", help_heading = STORAGE)]
    pub keys: Option<String>,

    /// File with the master keys that the keys are encrypted with, one a line, 32 bytes as base64 or hex
    /// digits; the first encrypts, all decrypt [env: HANSARD_MASTER_KEY_FILE] [default: made in the data
    /// directory]
    #[arg(long, global = true, value_name = "FILE", help_heading = STORAGE)]
    pub master_key_file: Option<String>,

    /// File with the keys that tree heads are signed with, one a line; the first signs, all are accepted
    /// [env: HANSARD_SIGNING_KEY_FILE] [default: made in the data directory]
    #[arg(long, global = true, value_name = "FILE", help_heading = PROOF)]
    pub signing_key_file: Option<String>,

    /// File that every signed tree head is appended to, with the projector
    /// [env: HANSARD_TREE_HEADS_FILE] [default: tree-heads]
    #[arg(long, global = true, value_name = "FILE", help_heading = PROOF)]
    pub tree_heads_file: Option<String>,

    /// URL that every signed tree head is posted to, http or https
    /// [env: HANSARD_TREE_HEADS_WEBHOOK] [default: none]
    #[arg(long, global = true, value_name = "URL", help_heading = PROOF)]
    pub tree_heads_webhook: Option<String>,

    /// Sign a tree head at the latest after so many events
    /// [env: HANSARD_TREE_HEAD_EVENTS] [default: 1000]
    #[arg(long, global = true, value_name = "N", help_heading = PROOF)]
    pub tree_head_events: Option<String>,

    /// Sign a tree head at the latest so long after an event, in seconds
    /// [env: HANSARD_TREE_HEAD_SECONDS] [default: 10]
    #[arg(long, global = true, value_name = "N", help_heading = PROOF)]
    pub tree_head_seconds: Option<String>,

    /// Read models: sqlite:PATH or mongodb://HOST[:PORT]/DATABASE
    /// [env: HANSARD_READ_MODELS] [default: sqlite:read.db]
    #[arg(long, global = true, value_name = "URL", help_heading = STORAGE)]
    pub read_models: Option<String>,

    /// How old texts may become, in days, by type of room; where there is none they are kept, with the projector
    /// [env: HANSARD_RETENTION_DAYS] [default: none]
    #[arg(long, global = true, value_name = "TYPE=DAYS,...", help_heading = STORAGE)]
    pub retention_days: Option<String>,

    /// Directory for the files that other settings name by a relative path
    /// [env: HANSARD_DATA_DIR] [default: ./hansard-data]
    #[arg(long, global = true, value_name = "DIR", help_heading = STORAGE)]
    pub data_dir: Option<String>,

    /// Refuse to start on a log that may lose acknowledged events in a power loss
    /// [env: HANSARD_REQUIRE_SYNC] [default: false]
    #[arg(
        long, global = true, value_name = "true|false", help_heading = STORAGE,
        num_args = 0..=1, require_equals = true, default_missing_value = "true"
    )]
    pub require_sync: Option<String>,

    /// How long to wait at start for servers that can't be reached, in seconds
    /// [env: HANSARD_STARTUP_TIMEOUT_SECONDS] [default: 30]
    #[arg(long, global = true, value_name = "N", help_heading = STORAGE)]
    pub startup_timeout_seconds: Option<String>,

    /// How far the read models may be behind the log before query-api and projector say that they are not
    /// ready, in seconds [env: HANSARD_MAX_LAG_SECONDS] [default: 10]
    #[arg(long, global = true, value_name = "N", help_heading = STORAGE)]
    pub max_lag_seconds: Option<String>,

    /// open: anybody may log in as anybody, on loopback addresses only; token: a valid token is needed
    /// everywhere [env: HANSARD_AUTH] [default: open]
    #[arg(long, global = true, value_name = "open|token", help_heading = AUTHENTICATION)]
    pub auth: Option<String>,

    /// File with the secrets that tokens are signed with, one a line, at least 32 bytes each; the first
    /// signs, all are accepted [env: HANSARD_JWT_SECRET_FILE] [default with auth=open: made in the data
    /// directory]
    #[arg(long, global = true, value_name = "FILE", help_heading = AUTHENTICATION)]
    pub jwt_secret_file: Option<String>,

    /// How long an issued token is valid, in seconds
    /// [env: HANSARD_TOKEN_TTL_SECONDS] [default: 86400]
    #[arg(long, global = true, value_name = "N", help_heading = AUTHENTICATION)]
    pub token_ttl_seconds: Option<String>,

    /// Most commands, and most queries, that a process works on at a time
    /// [env: HANSARD_MAX_REQUESTS] [default: 4000]
    #[arg(long, global = true, value_name = "N", help_heading = LIMITS)]
    pub max_requests: Option<String>,

    /// Largest request body, in bytes [env: HANSARD_MAX_BODY_BYTES] [default: 1048576]
    #[arg(long, global = true, value_name = "N", help_heading = LIMITS)]
    pub max_body_bytes: Option<String>,

    /// Longest message text, in bytes of UTF-8 [env: HANSARD_MAX_TEXT_BYTES] [default: 65536]
    #[arg(long, global = true, value_name = "N", help_heading = LIMITS)]
    pub max_text_bytes: Option<String>,

    /// Longest first or last name, in bytes of UTF-8 [env: HANSARD_MAX_NAME_BYTES] [default: 1024]
    #[arg(long, global = true, value_name = "N", help_heading = LIMITS)]
    pub max_name_bytes: Option<String>,

    /// Most members of a room [env: HANSARD_MAX_MEMBERS] [default: 1000]
    #[arg(long, global = true, value_name = "N", help_heading = LIMITS)]
    pub max_members: Option<String>,

    /// How log lines are written [env: HANSARD_LOG_FORMAT] [default: text]
    #[arg(long, global = true, value_name = "text|json", help_heading = LOGGING)]
    pub log_format: Option<String>,

    /// What is logged: error, warn, info, debug or trace, or filters such as info,command_api=debug
    /// [env: HANSARD_LOG_LEVEL] [default: info]
    #[arg(long, global = true, value_name = "LEVEL", help_heading = LOGGING)]
    pub log_level: Option<String>,
}

const CONFIGURATION: &str = "Configuration";
const SERVING: &str = "Serving";
const STORAGE: &str = "Storage";
const PROOF: &str = "Proof";
const AUTHENTICATION: &str = "Authentication";
const LIMITS: &str = "Limits";
const LOGGING: &str = "Logging";

impl Args {
    /// Every setting by its name, with the flag's value.
    fn settings(&self) -> [(&'static str, Option<&str>); 26] {
        [
            ("listen", self.listen.as_deref()),
            ("allowed_origins", self.allowed_origins.as_deref()),
            ("log", self.log.as_deref()),
            ("keys", self.keys.as_deref()),
            ("master_key_file", self.master_key_file.as_deref()),
            ("signing_key_file", self.signing_key_file.as_deref()),
            ("tree_heads_file", self.tree_heads_file.as_deref()),
            ("tree_heads_webhook", self.tree_heads_webhook.as_deref()),
            ("tree_head_events", self.tree_head_events.as_deref()),
            ("tree_head_seconds", self.tree_head_seconds.as_deref()),
            ("read_models", self.read_models.as_deref()),
            ("retention_days", self.retention_days.as_deref()),
            ("data_dir", self.data_dir.as_deref()),
            ("require_sync", self.require_sync.as_deref()),
            (
                "startup_timeout_seconds",
                self.startup_timeout_seconds.as_deref(),
            ),
            ("max_lag_seconds", self.max_lag_seconds.as_deref()),
            ("auth", self.auth.as_deref()),
            ("jwt_secret_file", self.jwt_secret_file.as_deref()),
            ("token_ttl_seconds", self.token_ttl_seconds.as_deref()),
            ("max_requests", self.max_requests.as_deref()),
            ("max_body_bytes", self.max_body_bytes.as_deref()),
            ("max_text_bytes", self.max_text_bytes.as_deref()),
            ("max_name_bytes", self.max_name_bytes.as_deref()),
            ("max_members", self.max_members.as_deref()),
            ("log_format", self.log_format.as_deref()),
            ("log_level", self.log_level.as_deref()),
        ]
    }
}

/// The configuration that a process runs with.
#[derive(Clone)]
pub struct Config {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Origins whose web pages may use the API (CORS) and open WebSockets; empty: any.
    pub allowed_origins: Vec<String>,
    /// Where the event log is.
    pub log: LogUrl,
    /// Where the keys are; `None`: [beside the log](KeysUrl::beside).
    pub keys: Option<KeysUrl>,
    /// The file with the master keys; `None`: one is made in the data directory.
    pub master_key_file: Option<PathBuf>,
    /// The file with the keys that tree heads are signed with; `None`: one is made in the data directory.
    pub signing_key_file: Option<PathBuf>,
    /// The file that every signed tree head is appended to.
    pub tree_heads_file: PathBuf,
    /// Where every signed tree head is posted to.
    pub tree_heads_webhook: Option<url::Url>,
    /// After how many events a tree head is signed at the latest.
    pub tree_head_events: u64,
    /// How long after an event a tree head is signed at the latest, in seconds.
    pub tree_head_seconds: u64,
    /// Where the read models are.
    pub read_models: ReadModelsUrl,
    /// How old texts may become, in days; for ever in rooms of the types that are not there.
    pub retention_days: BTreeMap<RoomType, u32>,
    /// What relative paths in [`log`](Self::log), [`keys`](Self::keys) and
    /// [`read_models`](Self::read_models) are relative to, and where generated secrets are kept.
    pub data_dir: PathBuf,
    /// Whether to refuse a log that may lose acknowledged events in a power loss.
    pub require_sync: bool,
    /// How long to wait at start for unreachable servers, in seconds.
    pub startup_timeout_seconds: u64,
    /// How far the read models may be behind the log before that counts as not ready, in seconds.
    pub max_lag_seconds: u64,
    /// Whether callers must prove who they are.
    pub auth: AuthMode,
    /// The file with the secrets that tokens are signed with.
    pub jwt_secret_file: Option<PathBuf>,
    /// How long an issued token is valid, in seconds.
    pub token_ttl_seconds: u64,
    /// The most commands, and the most queries, that are worked on at a time; see [`crate::admission`].
    pub max_requests: usize,
    /// The largest request body, in bytes.
    pub max_body_bytes: usize,
    /// The longest message text, in bytes.
    pub max_text_bytes: usize,
    /// The longest first or last name, in bytes.
    pub max_name_bytes: usize,
    /// The most members a room may have.
    pub max_members: usize,
    /// How log lines are written.
    pub log_format: LogFormat,
    /// What is logged, as a filter of `tracing-subscriber`.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 3000)),
            allowed_origins: Vec::new(),
            log: LogUrl::Sqlite("log.db".into()),
            keys: None,
            master_key_file: None,
            signing_key_file: None,
            tree_heads_file: "tree-heads".into(),
            tree_heads_webhook: None,
            tree_head_events: 1000,
            tree_head_seconds: 10,
            read_models: ReadModelsUrl::Sqlite("read.db".into()),
            retention_days: BTreeMap::new(),
            data_dir: "./hansard-data".into(),
            require_sync: false,
            startup_timeout_seconds: 30,
            max_lag_seconds: 10,
            auth: AuthMode::Open,
            jwt_secret_file: None,
            token_ttl_seconds: 24 * 60 * 60,
            max_requests: 4000,
            max_body_bytes: 1024 * 1024,
            max_text_bytes: 64 * 1024,
            max_name_bytes: 1024,
            max_members: 1000,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
        }
    }
}

// By hand, because the URLs' own `Debug` shows passwords.
impl fmt::Debug for Config {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Config")
            .field("listen", &self.listen)
            .field("log", &self.log.to_string())
            .field("keys", &self.keys_url().to_string())
            .field("read_models", &self.read_models.to_string())
            .field("data_dir", &self.data_dir)
            .field("auth", &self.auth)
            .finish_non_exhaustive()
    }
}

impl Config {
    /// The configuration from `args`, this process's environment, and the file that either names.
    ///
    /// # Errors
    /// The first setting that is unknown or does not fit.
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        Self::load_from(args, std::env::vars_os())
    }

    /// Where the keys are.
    pub fn keys_url(&self) -> KeysUrl {
        let beside = || KeysUrl::beside(&self.log);
        self.keys.clone().unwrap_or_else(beside)
    }

    /// The file with the master keys: the one that is named, or the one in the data directory, which is made if
    /// it is not there.
    ///
    /// # Errors
    /// It can't be made.
    pub fn existing_master_key_file(&self) -> Result<PathBuf, ConfigError> {
        match &self.master_key_file {
            Some(file) => Ok(file.clone()),
            None => secret::generated(self, GENERATED_MASTER_KEY),
        }
    }

    /// As [`load`](Self::load), with this environment instead of the process's own.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_from(
        args: &Args,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let layers = Layers::gather(args, environment)?;
        let mut config = Self::default();
        if let Some(port) = layers.port {
            config.listen.set_port(port);
        }
        layers.set("listen", &mut config.listen, parse_address)?;
        layers.set(
            "allowed_origins",
            &mut config.allowed_origins,
            parse_origins,
        )?;
        layers.set("log", &mut config.log, parse_url)?;
        layers.set("keys", &mut config.keys, |text| parse_url(text).map(Some))?;
        layers.set("master_key_file", &mut config.master_key_file, |text| {
            parse_path(text).map(Some)
        })?;
        layers.set("signing_key_file", &mut config.signing_key_file, |text| {
            parse_path(text).map(Some)
        })?;
        layers.set("tree_heads_file", &mut config.tree_heads_file, parse_path)?;
        layers.set(
            "tree_heads_webhook",
            &mut config.tree_heads_webhook,
            parse_webhook,
        )?;
        layers.set("tree_head_events", &mut config.tree_head_events, |text| {
            parse_number(text, 1, 1_000_000)
        })?;
        layers.set("tree_head_seconds", &mut config.tree_head_seconds, |text| {
            parse_number(text, 1, 24 * 60 * 60)
        })?;
        layers.set("read_models", &mut config.read_models, parse_url)?;
        layers.set(
            "retention_days",
            &mut config.retention_days,
            parse_retention,
        )?;
        layers.set("data_dir", &mut config.data_dir, parse_path)?;
        layers.set("require_sync", &mut config.require_sync, parse_bool)?;
        layers.set(
            "startup_timeout_seconds",
            &mut config.startup_timeout_seconds,
            |text| parse_number(text, 0, 7 * 24 * 60 * 60),
        )?;
        layers.set("max_lag_seconds", &mut config.max_lag_seconds, |text| {
            parse_number(text, 1, 7 * 24 * 60 * 60)
        })?;
        layers.set("auth", &mut config.auth, str::parse)?;
        layers.set("jwt_secret_file", &mut config.jwt_secret_file, |text| {
            parse_path(text).map(Some)
        })?;
        layers.set("token_ttl_seconds", &mut config.token_ttl_seconds, |text| {
            parse_number(text, 1, 100 * 366 * 24 * 60 * 60)
        })?;
        for (key, limit) in [
            ("max_requests", &mut config.max_requests),
            ("max_body_bytes", &mut config.max_body_bytes),
            ("max_text_bytes", &mut config.max_text_bytes),
            ("max_name_bytes", &mut config.max_name_bytes),
        ] {
            layers.set(key, limit, |text| parse_size(text, 1))?;
        }
        layers.set("max_members", &mut config.max_members, |text| {
            parse_size(text, 2)
        })?;
        layers.set("log_format", &mut config.log_format, str::parse)?;
        layers.set("log_level", &mut config.log_level, parse_filter)?;
        Ok(config)
    }

    /// How much a request's fields may carry.
    pub fn limits(&self) -> contract::Limits {
        contract::Limits {
            name_bytes: self.max_name_bytes,
            text_bytes: self.max_text_bytes,
            members: self.max_members,
        }
    }

    /// [`startup_timeout_seconds`](Self::startup_timeout_seconds) as a duration.
    pub fn startup_timeout(&self) -> Duration {
        Duration::from_secs(self.startup_timeout_seconds)
    }

    /// [`max_lag_seconds`](Self::max_lag_seconds) as a duration.
    pub fn max_lag(&self) -> Duration {
        Duration::from_secs(self.max_lag_seconds)
    }

    /// [`tree_heads_file`](Self::tree_heads_file), in the data directory if it is relative.
    pub fn tree_heads_path(&self) -> PathBuf {
        self.data_dir.join(&self.tree_heads_file)
    }

    /// [`tree_head_seconds`](Self::tree_head_seconds) as a duration.
    pub fn tree_head_interval(&self) -> Duration {
        Duration::from_secs(self.tree_head_seconds)
    }

    /// [`token_ttl_seconds`](Self::token_ttl_seconds) as a duration.
    pub fn token_ttl(&self) -> Duration {
        Duration::from_secs(self.token_ttl_seconds)
    }

    /// Whether only this machine can reach [`listen`](Self::listen).
    pub fn listens_on_loopback(&self) -> bool {
        match self.listen.ip() {
            IpAddr::V4(address) => address.is_loopback(),
            IpAddr::V6(address) => {
                let mapped = address.to_ipv4_mapped();
                address.is_loopback() || mapped.is_some_and(|address| address.is_loopback())
            }
        }
    }

    /// Whether web pages of this origin may use the API.
    pub fn allows_origin(&self, origin: &str) -> bool {
        self.allowed_origins.is_empty()
            || self.allowed_origins.iter().any(|allowed| allowed == origin)
    }
}

/// A setting's text and where it was given.
struct Given {
    text: String,
    place: String,
}

/// The settings that were given, each from the highest layer that has it.
struct Layers {
    given: BTreeMap<&'static str, Given>,
    port: Option<u16>,
}

impl Layers {
    fn gather(
        args: &Args,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, ConfigError> {
        let settings = args.settings();
        let keys: Vec<&'static str> = settings.iter().map(|(key, _)| *key).collect();

        let mut file = args.config.clone();
        let mut port = None;
        let mut variables = Vec::new();
        for (name, value) in environment {
            let Some(name) = name.to_str() else { continue };
            let setting = name.strip_prefix("HANSARD_");
            // Container tools pass variables that are not set as empty ones.
            if (setting.is_none() && name != "PORT")
                || name.starts_with("HANSARD_TEST_")
                || value.is_empty()
            {
                continue;
            }
            let Some(text) = value.to_str() else {
                return Err(ConfigError(format!("{name} is not UTF-8 text")));
            };
            match setting {
                None => port = Some(parse_port(text)?),
                Some("CONFIG") => {
                    file.get_or_insert_with(|| text.into());
                }
                Some(_) => variables.push((name.to_owned(), text.to_owned())),
            }
        }

        let mut given = BTreeMap::new();
        if let Some(file) = &file {
            read_file(file, &keys, &mut given)?;
        }
        let names: Vec<String> = keys.iter().map(|key| variable(key)).collect();
        for (name, text) in variables {
            let Some(index) = names.iter().position(|known| *known == name) else {
                return Err(ConfigError(format!(
                    "unknown variable {name}; {}",
                    suggest(&name, &names)
                )));
            };
            given.insert(keys[index], Given { text, place: name });
        }
        for (key, value) in settings {
            if let Some(text) = value {
                let place = format!("--{}", key.replace('_', "-"));
                let text = text.to_owned();
                given.insert(key, Given { text, place });
            }
        }
        Ok(Self { given, port })
    }

    /// Sets `target` to what was given for `key`, if anything was.
    fn set<T>(
        &self,
        key: &str,
        target: &mut T,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<(), ConfigError> {
        if let Some(Given { text, place }) = self.given.get(key) {
            *target = parse(text).map_err(|reason| ConfigError(format!("{place}: {reason}")))?;
        }
        Ok(())
    }
}

/// The name of a setting's environment variable.
fn variable(key: &str) -> String {
    format!("HANSARD_{}", key.to_uppercase())
}

fn read_file(
    file: &Path,
    keys: &[&'static str],
    given: &mut BTreeMap<&'static str, Given>,
) -> Result<(), ConfigError> {
    let name = file.display();
    let text = std::fs::read_to_string(file).map_err(|error| {
        ConfigError(format!("can't read the configuration file {name}: {error}"))
    })?;
    let table: toml::Table = toml::from_str(&text).map_err(|error| {
        let offset = error.span().map_or(0, |span| span.start);
        let line = 1 + text.bytes().take(offset).filter(|b| *b == b'\n').count();
        let reason = error.message();
        ConfigError(format!("{name} is not valid TOML: line {line}: {reason}"))
    })?;
    for (key, value) in table {
        let Some(known) = keys.iter().find(|known| **known == key) else {
            return Err(ConfigError(format!(
                "unknown key {key} in {name}; {}",
                suggest(&key, keys)
            )));
        };
        let place = format!("{key} in {name}");
        let text = match value {
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(truth) => truth.to_string(),
            toml::Value::Array(items) if key == "allowed_origins" => items
                .into_iter()
                .map(|item| match item {
                    toml::Value::String(text) => Ok(text),
                    other => Err(ConfigError(format!(
                        "{place}: expected strings, found {}",
                        other.type_str()
                    ))),
                })
                .collect::<Result<Vec<_>, _>>()?
                .join(","),
            toml::Value::Table(days) if key == "retention_days" => {
                let days = days.into_iter();
                let days = days.map(|(room_type, days)| format!("{room_type}={days}"));
                days.collect::<Vec<_>>().join(",")
            }
            other => {
                return Err(ConfigError(format!(
                    "{place}: expected a single value, found {}",
                    other.type_str()
                )));
            }
        };
        given.insert(known, Given { text, place });
    }
    Ok(())
}

/// `did you mean X?` when a known name is near, else all of them.
fn suggest<Name: AsRef<str>>(wrong: &str, known: &[Name]) -> String {
    let nearest = known
        .iter()
        .map(|name| (edit_distance(wrong, name.as_ref()), name.as_ref()))
        .min_by_key(|(distance, _)| *distance);
    match nearest {
        Some((distance, name)) if distance <= 3 => format!("did you mean {name}?"),
        _ => {
            let known: Vec<&str> = known.iter().map(AsRef::as_ref).collect();
            format!("the possible ones are {}", known.join(", "))
        }
    }
}

/// How many characters to insert, remove or replace to get from one text to the other (Levenshtein).
fn edit_distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.to_lowercase().chars().collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (index, left) in one.to_lowercase().chars().enumerate() {
        let mut diagonal = row[0];
        row[0] = index + 1;
        for (column, right) in other.iter().enumerate() {
            let replaced = diagonal + usize::from(left != *right);
            diagonal = row[column + 1];
            row[column + 1] = replaced.min(diagonal + 1).min(row[column] + 1);
        }
    }
    row[other.len()]
}

fn parse_port(text: &str) -> Result<u16, ConfigError> {
    text.parse()
        .map_err(|_| ConfigError(format!("PORT: {text:?} is not a port from 0 to 65535")))
}

fn parse_address(text: &str) -> Result<SocketAddr, String> {
    let address = match text.strip_prefix("localhost:") {
        Some(port) => format!("127.0.0.1:{port}"),
        None => text.to_owned(),
    };
    address.parse().map_err(|_| {
        format!("{text:?} is not an IP address with a port, such as 127.0.0.1:3000 or [::1]:3000")
    })
}

fn parse_origins(text: &str) -> Result<Vec<String>, String> {
    if text == "*" {
        return Ok(Vec::new());
    }
    let origins = text.split(',').map(str::trim).filter(|it| !it.is_empty());
    let origins = origins.map(|origin| {
        let url = url::Url::parse(origin).ok();
        let valid = url.is_some_and(|url| url.origin().ascii_serialization() == origin);
        valid.then(|| origin.to_owned()).ok_or_else(|| {
            format!("{origin:?} is not an origin; write it as https://chat.example, with no path")
        })
    });
    let origins: Vec<String> = origins.collect::<Result<_, _>>()?;
    if origins.is_empty() {
        return Err("expected origins separated by commas, or * for any".to_owned());
    }
    Ok(origins)
}

fn parse_url<Url: FromStr<Err: fmt::Display>>(text: &str) -> Result<Url, String> {
    text.parse().map_err(|error: Url::Err| error.to_string())
}

fn parse_webhook(text: &str) -> Result<Option<url::Url>, String> {
    match url::Url::parse(text) {
        Ok(url) if ["http", "https"].contains(&url.scheme()) => Ok(Some(url)),
        _ => Err(format!("{text:?} is not an http or https URL")),
    }
}

fn parse_retention(text: &str) -> Result<BTreeMap<RoomType, u32>, String> {
    let mut retention = BTreeMap::new();
    for part in text.split(',').map(str::trim) {
        let (room_type, days) = part.split_once('=').ok_or_else(|| {
            format!(
                "{part:?} is not a type of rooms with its days, such as {}=90",
                RoomType::ALL[0]
            )
        })?;
        let known: RoomType = room_type
            .trim()
            .parse()
            .map_err(|possible| format!("{room_type:?} is not a type of rooms: {possible}"))?;
        let days = parse_number(days.trim(), 1, MOST_DAYS)
            .map_err(|reason| format!("the days of {known}: {reason}"))?;
        let days = u32::try_from(days).map_err(|error| error.to_string())?;
        if retention.insert(known, days).is_some() {
            return Err(format!("{known} is there twice"));
        }
    }
    Ok(retention)
}

fn parse_path(text: &str) -> Result<PathBuf, String> {
    if text.is_empty() {
        return Err("expected a path, found nothing".to_owned());
    }
    Ok(text.into())
}

fn parse_bool(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

fn parse_number(text: &str, least: u64, most: u64) -> Result<u64, String> {
    let number = text.parse().ok().filter(|it| (least..=most).contains(it));
    number.ok_or_else(|| format!("{text:?} is not a whole number from {least} to {most}"))
}

fn parse_size(text: &str, least: u64) -> Result<usize, String> {
    // More than this in one piece never ends well; it also keeps sums of limits far from overflow.
    let number = parse_number(text, least, 1 << 30)?;
    usize::try_from(number).map_err(|error| error.to_string())
}

fn parse_filter(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::builder().parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!(
            "{text:?} is not a log level; use error, warn, info, debug or trace, or filters such as \
             info,command_api=debug"
        )),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[derive(clap::Parser)]
    struct Binary {
        #[command(flatten)]
        args: Args,
    }

    fn load(flags: &[&str], variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let flags = std::iter::once("hansard").chain(flags.iter().copied());
        let args = <Binary as clap::Parser>::try_parse_from(flags)
            .unwrap()
            .args;
        let variables = variables.iter();
        Config::load_from(&args, variables.map(|(k, v)| ((*k).into(), (*v).into())))
    }

    fn error(flags: &[&str], variables: &[(&str, &str)]) -> String {
        load(flags, variables).unwrap_err().to_string()
    }

    fn file(text: &str) -> (tempfile::TempDir, String) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("hansard.toml");
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap().to_owned();
        (directory, path)
    }

    #[test]
    fn the_arguments_are_consistent_and_documented() {
        let command = Binary::command();
        command.clone().debug_assert();
        let keys = Args::default().settings().map(|(key, _)| key);
        for key in keys {
            let argument = command
                .get_arguments()
                .find(|argument| argument.get_id() == key)
                .unwrap_or_else(|| panic!("no flag for {key}"));
            let help = argument.get_help().unwrap().to_string();
            assert!(
                help.contains(&format!("[env: {}]", variable(key))),
                "{help}"
            );
            assert!(help.contains("[default"), "{help}");
        }
        // Help, version and config are the only ones that are not settings.
        assert_eq!(command.get_arguments().count(), keys.len() + 1);
    }

    #[test]
    fn the_defaults_serve_on_loopback_from_files() {
        let config = load(&[], &[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:3000");
        assert_eq!(config.auth, AuthMode::Open);
        assert_eq!(config.max_body_bytes, 1_048_576);
        assert_eq!(config.log, LogUrl::Sqlite("log.db".into()));
        assert_eq!(config.data_dir, PathBuf::from("./hansard-data"));
        assert!(config.allows_origin("https://any.example"));
    }

    #[test]
    fn flags_beat_variables_beat_the_file_beats_the_defaults() {
        let (_directory, path) = file(
            "max_members = 2\nmax_name_bytes = 2\nmax_text_bytes = 2\nrequire_sync = true\n\
             allowed_origins = [\"https://a.example\", \"https://b.example\"]\n",
        );
        let variables = [
            ("HANSARD_CONFIG", path.as_str()),
            ("HANSARD_MAX_NAME_BYTES", "3"),
            ("HANSARD_MAX_TEXT_BYTES", "3"),
            ("HANSARD_LOG_LEVEL", ""),
            ("HANSARD_TEST_NATS", "anything"),
            ("HOME", "anything"),
        ];
        let config = load(&["--max-text-bytes", "4"], &variables).unwrap();
        assert_eq!(config.max_body_bytes, 1_048_576);
        assert_eq!(config.max_members, 2);
        assert_eq!(config.max_name_bytes, 3);
        assert_eq!(config.max_text_bytes, 4);
        assert!(config.require_sync);
        assert_eq!(config.log_level, "info");
        assert!(config.allows_origin("https://b.example"));
        assert!(!config.allows_origin("https://c.example"));

        let off = load(&["--require-sync=false"], &variables).unwrap();
        assert!(!off.require_sync);
        let (_directory, other) = file("max_members = 7\n");
        let flag = load(&["--config", &other], &variables).unwrap();
        assert_eq!(flag.max_members, 7);
    }

    #[test]
    fn texts_are_kept_by_type_of_room() {
        assert!(load(&[], &[]).unwrap().retention_days.is_empty());
        let (consumers, support) = (RoomType::ConsumerToConsumer, RoomType::ConsumerToSupport);
        let (_directory, path) =
            file("[retention_days]\nconsumer-to-consumer = 90\nconsumer-to-support = 3650\n");
        let config = load(&["--config", &path], &[]).unwrap();
        assert_eq!(
            config.retention_days,
            BTreeMap::from([(consumers, 90), (support, 3650)])
        );
        let variable = [("HANSARD_RETENTION_DAYS", "consumer-to-support=7")];
        let config = load(&["--config", &path], &variable).unwrap();
        assert_eq!(config.retention_days, BTreeMap::from([(support, 7)]));
        let flag = "--retention-days=consumer-to-support=8, consumer-to-consumer=9";
        let config = load(&[flag], &variable).unwrap();
        assert_eq!(
            config.retention_days,
            BTreeMap::from([(consumers, 9), (support, 8)])
        );
    }

    #[test]
    fn port_changes_only_the_default_address() {
        let config = load(&[], &[("PORT", "8080")]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
        let config = load(&["--listen", "localhost:4000"], &[("PORT", "8080")]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:4000");
        assert_eq!(
            error(&[], &[("PORT", "http")]),
            "PORT: \"http\" is not a port from 0 to 65535"
        );
    }

    #[test]
    fn what_is_unknown_is_named_with_the_nearest() {
        assert_eq!(
            error(&[], &[("HANSARD_READ_MODEL", "x")]),
            "unknown variable HANSARD_READ_MODEL; did you mean HANSARD_READ_MODELS?"
        );
        let all = error(&[], &[("HANSARD_SOMETHING_ELSE", "x")]);
        assert!(
            all.contains("the possible ones are HANSARD_LISTEN, "),
            "{all}"
        );

        let (_directory, path) = file("read-models = 'sqlite:x'\n");
        assert_eq!(
            error(&["--config", &path], &[]),
            format!("unknown key read-models in {path}; did you mean read_models?")
        );
        let (_directory, path) = file("[server]\nport = 1\n");
        let all = error(&["--config", &path], &[]);
        assert!(all.contains("unknown key server in"), "{all}");
        assert!(all.contains("the possible ones are listen, "), "{all}");
    }

    #[test]
    fn what_does_not_fit_is_named_with_its_place() {
        for (flag, text, sentence) in [
            (
                "listen",
                "3000",
                "--listen: \"3000\" is not an IP address with a port",
            ),
            (
                "auth",
                "off",
                "--auth: \"off\" is not one of the possible values open, token",
            ),
            (
                "log-format",
                "xml",
                "--log-format: \"xml\" is not one of the possible values text, json",
            ),
            (
                "log-level",
                "a=b=c",
                "--log-level: \"a=b=c\" is not a log level",
            ),
            (
                "max-body-bytes",
                "0",
                "--max-body-bytes: \"0\" is not a whole number from 1 to",
            ),
            (
                "max-members",
                "1",
                "--max-members: \"1\" is not a whole number from 2 to",
            ),
            (
                "max-text-bytes",
                "64k",
                "--max-text-bytes: \"64k\" is not a whole number",
            ),
            (
                "token-ttl-seconds",
                "0",
                "--token-ttl-seconds: \"0\" is not a whole number from 1",
            ),
            (
                "startup-timeout-seconds",
                "x",
                "--startup-timeout-seconds: \"x\" is not a whole",
            ),
            (
                "max-lag-seconds",
                "0",
                "--max-lag-seconds: \"0\" is not a whole number from 1",
            ),
            ("data-dir", "", "--data-dir: expected a path, found nothing"),
            (
                "retention-days",
                "90",
                "--retention-days: \"90\" is not a type of rooms with its days, such as consumer-to-consumer=90",
            ),
            (
                "retention-days",
                "",
                "--retention-days: \"\" is not a type of rooms with its days",
            ),
            (
                "retention-days",
                "support=90",
                "--retention-days: \"support\" is not a type of rooms: possible values are consumer-to-consumer,",
            ),
            (
                "retention-days",
                "consumer-to-support=0",
                "--retention-days: the days of consumer-to-support: \"0\" is not a whole number from 1 to 36600",
            ),
            (
                "retention-days",
                "consumer-to-support=-7",
                "--retention-days: the days of consumer-to-support: \"-7\" is not a whole number",
            ),
            (
                "retention-days",
                "consumer-to-support=week",
                "--retention-days: the days of consumer-to-support: \"week\" is not a whole number",
            ),
            (
                "retention-days",
                "consumer-to-support=1,consumer-to-support=2",
                "--retention-days: consumer-to-support is there twice",
            ),
            (
                "allowed-origins",
                "https://a/b",
                "--allowed-origins: \"https://a/b\" is not an origin",
            ),
            (
                "allowed-origins",
                " , ",
                "--allowed-origins: expected origins separated by commas",
            ),
            ("log", "postgres://x", "--log: "),
            ("read-models", "redis://x", "--read-models: "),
            ("keys", "nats://x", "--keys: \"x:4222\" is no key store URL"),
            ("master-key-file", "", "--master-key-file: expected a path"),
        ] {
            let message = error(&[&format!("--{flag}={text}")], &[]);
            assert!(message.starts_with(sentence), "{message}");
            assert!(!message.contains('\n'), "{message}");
        }
        assert_eq!(
            error(&[], &[("HANSARD_REQUIRE_SYNC", "maybe")]),
            "HANSARD_REQUIRE_SYNC: \"maybe\" is neither true nor false"
        );
        for (text, sentence) in [
            (
                "max_members = 1.5",
                "max_members in PATH: expected a single value, found float",
            ),
            (
                "[retention_days]\nconsumer-to-consumer = 1.5",
                "retention_days in PATH: the days of consumer-to-consumer: \"1.5\" is not a whole number from 1 to 36600",
            ),
            (
                "allowed_origins = [1]",
                "allowed_origins in PATH: expected strings, found integer",
            ),
            (
                "max_members = -1",
                "max_members in PATH: \"-1\" is not a whole number from 2 to 1073741824",
            ),
        ] {
            let (_directory, path) = file(text);
            assert_eq!(
                error(&["--config", &path], &[]),
                sentence.replace("PATH", &path)
            );
        }
        let (_directory, path) = file("auth = 'open'\nlisten = \n");
        let message = error(&["--config", &path], &[]);
        assert!(
            message.starts_with(&format!("{path} is not valid TOML: line 2: ")),
            "{message}"
        );
        assert_eq!(
            error(&["--config", "/nowhere/hansard.toml"], &[]),
            "can't read the configuration file /nowhere/hansard.toml: No such file or directory \
             (os error 2)"
        );
    }

    #[test]
    fn loopback_is_recognised() {
        for (address, loopback) in [
            ("127.0.0.1:1", true),
            ("127.9.9.9:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("0.0.0.0:1", false),
            ("[::]:1", false),
            ("192.168.0.1:1", false),
        ] {
            let config = load(&["--listen", address], &[]).unwrap();
            assert_eq!(config.listens_on_loopback(), loopback, "{address}");
        }
    }
}
