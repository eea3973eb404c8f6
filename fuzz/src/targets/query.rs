//! Queries of URLs: pages, cursors, moments of the past, and what is asked of `/changes`.

use audit::Bound;
use axum::extract::FromRequestParts;
use axum::http::Request;
use axum::http::request::Parts;
use gateway_ws::testing::read_changes_query;
use platform::error::ApiError;
use query_api::Requested;

use crate::{Outcome, refused};

pub fn run(data: &[u8]) -> Outcome {
    let Ok(query) = std::str::from_utf8(data) else {
        return Outcome::Refused;
    };
    if let Err(error) = read_changes_query(query) {
        told(&error);
    }
    // What no URL can have never gets here.
    let Ok(request) = Request::get(format!("/room?{query}")).body(()) else {
        return Outcome::Refused;
    };
    match requested(request.into_parts().0) {
        Ok(requested) => {
            let limit = requested.page.limit;
            assert!((1..=100).contains(&limit), "{limit}");
            if let Some(Bound::Position(position)) = requested.as_of {
                assert_eq!(position.to_string().parse(), Ok(position));
            }
            Outcome::Accepted
        }
        Err(error) => told(&error),
    }
}

fn requested(mut parts: Parts) -> Result<Requested, ApiError> {
    // It waits for nothing: there is no body.
    let reading = Requested::from_request_parts(&mut parts, &());
    tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap()
        .block_on(reading)
}

fn told(error: &ApiError) -> Outcome {
    assert!(error.status().is_client_error(), "{}", error.status());
    refused(&error.message())
}
