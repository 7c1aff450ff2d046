//! What every request goes through on its way in and out.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::auth::{AuthConfig, Right};
use crate::api::problem::{PATH_INVALID, Problem};
use crate::api::query::Query;
use crate::api::routes;
use crate::clock::Stopwatch;
use crate::id::fresh_request_id;

/// How long a request may take, its body included.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The header that names a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// Characters of a caller's own request id, at most.
const MAX_REQUEST_ID: usize = 64;

/// Outermost: gives the request its id and its time, and writes problems down.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let id = request_id(request.headers());
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let watch = Stopwatch::start();
    let mut response = match tokio::time::timeout(TIMEOUT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => Problem::timed_out().into_response(),
    };
    let millis = watch.elapsed().as_millis();
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        let (status, code, cause) = (problem.status().as_u16(), problem.code(), problem.cause().unwrap_or_default());
        if status >= 500 {
            tracing::warn!(request = id, %method, path, status, code, cause, millis, "request failed");
        } else {
            tracing::debug!(request = id, %method, path, status, code, millis, "request refused");
        }
        write(&mut response, problem, &id);
    } else {
        tracing::debug!(request = id, %method, path, status = response.status().as_u16(), millis, "request served");
    }
    let headers = response.headers_mut();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(REQUEST_ID, id);
    }
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.entry(CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    headers
        .entry(CONTENT_SECURITY_POLICY)
        .or_insert(HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'"));
    response
}

fn request_id(headers: &HeaderMap) -> String {
    let is_sane = |id: &&str| {
        (1..=MAX_REQUEST_ID).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let given = headers.get(REQUEST_ID).and_then(|id| id.to_str().ok()).filter(is_sane);
    given.map_or_else(|| fresh_request_id().to_string(), ToOwned::to_owned)
}

fn write(response: &mut Response, problem: Problem, id: &str) {
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(seconds) = problem.retry_after_seconds() {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if problem.status() == StatusCode::UNAUTHORIZED {
        headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"amends\""));
    }
    *response.body_mut() = Body::from(serde_json::to_vec(&problem.into_document(id)).unwrap_or_default());
}

/// Whether the caller wants to see what is sensitive, or something like it: only who may gets as far as being told what
/// is wrong with the words.
fn asks_to_reveal(uri: &Uri) -> bool {
    let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(uri);
    pairs.is_ok_and(|pairs| pairs.iter().any(|(name, value)| name == "reveal" && !matches!(&**value, "" | "false")))
}

/// Innermost: lets through who may do what the route's row in the table asks for, with parameters that it knows. What
/// has no row asks for as much as reading does, so that nobody learns from 404 and 405 what there is.
pub(super) async fn admit(
    State(auth): State<Arc<AuthConfig>>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Result<Response, Problem> {
    let route = path.as_ref().and_then(|path| routes::find(request.method(), path.as_str()));
    let right = match route {
        Some(route) if route.can_reveal() && asks_to_reveal(request.uri()) => Right::Reveal,
        Some(route) => route.right,
        None => Right::Read,
    };
    let caller = auth.admit(request.headers(), right, !request.method().is_safe()).await?;
    if right != Right::Open {
        auth.check_namespace(request.headers())?;
    }
    if request.uri().path().contains("%00") {
        return Err(Problem::new(PATH_INVALID, "the path contains a NUL character"));
    }
    if let Some(route) = route {
        let query = Query::parse(request.uri(), route.query)?;
        request.extensions_mut().insert(query);
    }
    request.extensions_mut().insert(caller);
    Ok(next.run(request).await)
}
