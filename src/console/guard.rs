//! What every request to the console goes through on its way in and out.

use axum::extract::{MatchedPath, Request, State};
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, COOKIE, HeaderName, LOCATION, ORIGIN, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::api::Right;
use crate::api::auth::{Proof, same_machine, same_origin};
use crate::console::failure::{Bare, Failure};
use crate::console::visit::{SESSION, Visit, cookie, place, theme};
use crate::console::{House, layout, routes};

/// What a browser may do with a page: nothing but what the console itself brings along.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    form-action 'self'; frame-ancestors 'none'; base-uri 'none'";

/// Outermost: headers.
pub(super) async fn finish(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let mut set = |name: HeaderName, value: &'static str| {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    };
    set(CONTENT_SECURITY_POLICY, POLICY);
    set(X_CONTENT_TYPE_OPTIONS, "nosniff");
    set(REFERRER_POLICY, "no-referrer");
    set(CACHE_CONTROL, "no-store");
    set(HeaderName::from_static("cross-origin-opener-policy"), "same-origin");
    set(HeaderName::from_static("cross-origin-resource-policy"), "same-origin");
    set(HeaderName::from_static("permissions-policy"), "camera=(), geolocation=(), microphone=()");
    response
}

/// Lets through who may see the page, and renders failures as pages.
pub(super) async fn admit(
    State(house): State<House>,
    path: Option<MatchedPath>,
    mut request: Request,
    next: Next,
) -> Response {
    let route = path.as_ref().and_then(|path| routes::find(request.method(), path.as_str()));
    let unknown = if request.method().is_safe() { Right::Read } else { Right::Operate };
    let right = route.map_or(unknown, |route| route.right);
    let is_open = match house.0.auth.is_open().await {
        Ok(is_open) => is_open,
        Err(error) => return Bare(error.into()).into_response(),
    };
    let mut visit = match house.visit(request.uri(), request.headers(), is_open).await {
        Ok(visit) => visit,
        Err(failure) => return Bare(failure).into_response(),
    };
    if let Err(failure) = allowed(is_open, &request, &visit, right) {
        // Nothing of who it might have been is shown to a page of another site.
        visit.csrf = String::new();
        return layout::failed(&visit, failure);
    }
    if !visit.is_in && right != Right::Open {
        return to_login(&request, &visit);
    }
    request.extensions_mut().insert(visit.clone());
    let mut response = next.run(request).await;
    match response.extensions_mut().remove::<Failure>() {
        Some(failure) => layout::failed(&visit, failure),
        None => response,
    }
}

impl House {
    async fn visit(&self, uri: &Uri, headers: &HeaderMap, is_open: bool) -> Result<Visit, Failure> {
        let (root, mut here) = place(uri.path());
        if let Some(query) = uri.query() {
            here = format!("{here}?{query}");
        }
        let session = cookie(headers, SESSION).filter(|_| !is_open);
        let token = match session {
            Some(session) => self.known(session, self.now()).await?,
            None => None,
        };
        let csrf = match (&token, session) {
            (Some(_), Some(session)) => self.csrf(session).await?,
            _ => self.csrf(if is_open { "open" } else { "login" }).await?,
        };
        let is_in = is_open || token.is_some();
        let namespaces = match token.as_ref().map(|identity| identity.proof) {
            Some(Proof::Token(sha256)) => self.0.doors.open_to(Some(sha256)),
            // An issuer's word is for the namespace that it was shown to.
            Some(Proof::Issuer(_)) => Vec::new(),
            None if is_open => self.0.doors.open_to(None),
            None => Vec::new(),
        };
        Ok(Visit {
            root,
            here,
            namespace: self.namespace().clone(),
            namespaces,
            is_in,
            role: token.as_ref().map(|identity| identity.role),
            name: token.map_or_else(|| "anonymous".to_owned(), |identity| identity.name),
            csrf,
            theme: theme(headers),
        })
    }
}

fn allowed(is_open: bool, request: &Request, visit: &Visit, right: Right) -> Result<(), Failure> {
    let headers = request.headers();
    if is_open {
        same_machine(headers).map_err(|_| {
            Failure::forbidden(
                "This server is open to its own machine only",
                "It runs without tokens, so that only localhost, 127.0.0.1 and [::1] are answered.",
            )
        })?;
    }
    if !request.method().is_safe() {
        let site = site(headers);
        // Pages with the policy no-referrer, as these are, send `Origin: null` with their forms; what the browser itself
        // says of the sender tells them apart from others.
        let is_unnamed = headers.get(ORIGIN).is_some_and(|origin| origin == "null") && site == Some("same-origin");
        let is_own = site.is_none_or(|site| matches!(site, "same-origin" | "none"));
        if !is_own || !is_unnamed && same_origin(headers).is_err() {
            return Err(Failure::forbidden(
                "This came from a page of another site",
                "Changes are taken from the console's own pages only. Nothing was done.",
            ));
        }
    }
    if visit.is_in && !visit.may(right) {
        let role = visit.role.map_or("nobody", crate::api::Role::as_str);
        return Err(Failure::forbidden(
            "Your token does not allow this",
            format!(
                "It is called `{}` and has the role {role}; acting on sagas needs operator. Nothing was done.",
                visit.name
            ),
        ));
    }
    Ok(())
}

fn site(headers: &HeaderMap) -> Option<&str> {
    headers.get("sec-fetch-site").and_then(|site| site.to_str().ok())
}

/// To the login, and back to this page afterwards.
fn to_login(request: &Request, visit: &Visit) -> Response {
    if *request.method() != Method::GET {
        let failure = Failure::new(
            StatusCode::UNAUTHORIZED,
            "You are not logged in",
            "The session has ended, or the token was taken away. Log in and try again; nothing was done.",
        );
        return layout::failed(visit, failure);
    }
    // A link from a chat or a mail comes without the cookie, which is for pages of this site only. Asked once more by a
    // page of ours it comes along.
    if site(request.headers()) == Some("cross-site") && !request.headers().contains_key(COOKIE) {
        let page = maud::html! {
            (maud::DOCTYPE)
            html lang="en" {
                head { meta charset="utf-8"; meta http-equiv="refresh" content="0"; title { "amends" } }
                body { p { "One moment." } }
            }
        };
        return ([(CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response();
    }
    let target = format!("{}login?next={}", visit.root, crate::console::query::encode(&visit.here));
    (StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response()
}
