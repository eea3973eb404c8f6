//! How many requests are worked on at a time: what comes beyond is told at once to come back, so that under
//! any load those that were let in are answered as fast as ever, and memory stays bounded.
//!
//! A refusal must cost next to nothing, or refusing would take the time in which something could be done. So each
//! is counted among the requests, and only one in a while is a line in the log.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Extension;
use axum::error_handling::HandleErrorLayer;
use axum::response::IntoResponse;
use tower::BoxError;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use utoipa_axum::router::OpenApiRouter;

use crate::error::ApiError;

/// Lets at most `most` requests at a time in to all of `routes` together; others get 503 `overloaded`.
///
/// A request is in until its answer begins: streams that follow don't count.
pub fn admit<S>(routes: OpenApiRouter<S>, most: usize) -> OpenApiRouter<S>
where
    S: Clone + Send + Sync + 'static,
{
    routes.layer(
        ServiceBuilder::new()
            .layer(HandleErrorLayer::new(refuse))
            .load_shed()
            .layer(GlobalConcurrencyLimitLayer::new(most)),
    )
}

/// How long refusals go on until the log says so again.
const SILENCE: Duration = Duration::from_secs(10);

/// Among the extensions of an answer: it is a refusal of which there may be very many.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused;

/// The only error there is between the layers: shedding. Handlers answer with errors of their own.
async fn refuse(_: BoxError) -> impl IntoResponse {
    static TOLD: Mutex<Option<Instant>> = Mutex::new(None);
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.is_none_or(|told| told.elapsed() > SILENCE) {
        *told = Some(Instant::now());
        tracing::warn!("more requests at a time than max_requests: some are answered 503");
    }
    drop(told);
    (Extension(Refused), ApiError::overloaded())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Arc;

    use axum::Router;
    use axum::body::Body;
    use axum::http::{Request, Response, StatusCode, header};
    use axum::routing::get;
    use tokio::sync::{Barrier, Notify};
    use tower::ServiceExt;

    use super::*;

    async fn get_path(router: &Router, path: &str) -> Response<Body> {
        let request = Request::get(path).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    }

    #[tokio::test]
    async fn what_is_too_much_is_refused_at_once_on_every_route_and_room_is_made_again() {
        let (inside, leave) = (Arc::new(Barrier::new(3)), Arc::new(Notify::new()));
        let slow = {
            let (inside, leave) = (Arc::clone(&inside), Arc::clone(&leave));
            move || async move {
                let leaving = leave.notified();
                inside.wait().await;
                leaving.await;
            }
        };
        let routes = OpenApiRouter::new()
            .route("/slow", get(slow))
            .route("/quick", get(|| async {}));
        let (router, _) = admit(routes, 2).split_for_parts();
        let first = {
            let router = router.clone();
            tokio::spawn(async move { get_path(&router, "/slow").await.status() })
        };
        assert_eq!(get_path(&router, "/quick").await.status(), StatusCode::OK);
        let second = {
            let router = router.clone();
            tokio::spawn(async move { get_path(&router, "/slow").await.status() })
        };
        inside.wait().await;
        for path in ["/quick", "/slow"] {
            let refused = get_path(&router, path).await;
            assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(refused.headers()[header::RETRY_AFTER], "1");
        }
        leave.notify_waiters();
        assert_eq!(first.await.unwrap(), StatusCode::OK);
        assert_eq!(second.await.unwrap(), StatusCode::OK);
        assert_eq!(get_path(&router, "/quick").await.status(), StatusCode::OK);
    }
}
