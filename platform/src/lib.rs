//! What every service shares: configuration, authentication, errors, telemetry, shutdown.
