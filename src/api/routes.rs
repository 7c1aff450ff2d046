//! The one table of routes, and the router that is built from it.

use std::sync::Arc;

use axum::Router;
use axum::extract::{MatchedPath, Request};
use axum::http::header::ALLOW;
use axum::http::{HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use axum::routing::{MethodRouter, get, post};
use tower_http::catch_panic::CatchPanicLayer;

use crate::api::auth::{AuthConfig, Right};
use crate::api::problem::{METHOD_NOT_ALLOWED, Problem, ROUTE_UNKNOWN};
use crate::api::{
    App, advice, audit, bulk, dead, definitions, guard, health, openapi, operate, outbox, overview, participants,
    sagas, signal, start, versions, webhooks,
};
use crate::clock::Clock;
use crate::coordinator::Coordinator;

/// One route: everything there is to know about it.
pub(super) struct Route {
    pub(super) method: Method,
    pub(super) path: &'static str,
    /// What it asks of its caller.
    pub(super) right: Right,
    /// Its query parameters.
    pub(super) query: &'static [&'static str],
    /// What it does, for documentation.
    pub(super) summary: &'static str,
    /// What it takes, for documentation.
    pub(super) takes: Takes,
    /// Its answers when it worked, for documentation.
    pub(super) gives: &'static [(u16, Gives)],
    /// Its problems besides those that every route has, for documentation.
    pub(super) problems: &'static [u16],
    pub(super) handler: fn() -> MethodRouter<App>,
}

/// A request's body.
#[derive(Clone, Copy)]
pub(super) enum Takes {
    Nothing,
    /// A definition, YAML or JSON.
    Definition,
    /// JSON of the schema of this name.
    Json(&'static str),
}

/// An answer's body.
#[derive(Clone, Copy)]
pub(super) enum Gives {
    /// JSON of the schema of this name.
    Json(&'static str),
    /// JSON of the schema of the first name, or with `dryRun=true` of the second.
    Either(&'static str, &'static str),
    /// Something else, of this content type.
    Other(&'static str),
}

impl Route {
    const fn asking(mut self, query: &'static [&'static str]) -> Self {
        self.query = query;
        self
    }

    const fn served_by(mut self, takes: Takes, handler: fn() -> MethodRouter<App>) -> Self {
        self.takes = takes;
        self.handler = handler;
        self
    }

    const fn giving(mut self, gives: &'static [(u16, Gives)]) -> Self {
        self.gives = gives;
        self
    }

    const fn needing(mut self, right: Right) -> Self {
        self.right = right;
        self
    }

    /// Whether it shows what is sensitive to who asks for it and may see it.
    pub(super) fn can_reveal(&self) -> bool {
        self.query.contains(&"reveal")
    }
}

const SAGA: &[(u16, Gives)] = &[(200, Gives::Json("SagaView"))];

const fn read(
    path: &'static str,
    summary: &'static str,
    gives: &'static [(u16, Gives)],
    problems: &'static [u16],
    handler: fn() -> MethodRouter<App>,
) -> Route {
    let takes = Takes::Nothing;
    Route { method: Method::GET, path, right: Right::Read, query: &[], summary, takes, gives, problems, handler }
}

const fn signalling(
    path: &'static str,
    summary: &'static str,
    takes: &'static str,
    handler: fn() -> MethodRouter<App>,
) -> Route {
    Route {
        method: Method::POST,
        path,
        right: Right::Start,
        query: &[],
        summary,
        takes: Takes::Json(takes),
        gives: &[(200, Gives::Json("SignalResult"))],
        problems: &[404, 409, 413, 415, 422, 429],
        handler,
    }
}

const fn operation(path: &'static str, summary: &'static str) -> Route {
    Route {
        method: Method::POST,
        path,
        right: Right::Operate,
        query: &["dryRun"],
        summary,
        takes: Takes::Json("OperateRequest"),
        gives: &[(200, Gives::Either("SagaView", "PreviewView"))],
        problems: &[404, 409, 412, 413, 415, 422, 429],
        handler: || post(operate::operate),
    }
}

const fn pausing(path: &'static str, summary: &'static str) -> Route {
    Route {
        method: Method::POST,
        path,
        right: Right::Operate,
        query: &["dryRun"],
        summary,
        takes: Takes::Json("PauseRequest"),
        gives: &[(200, Gives::Json("PauseResult"))],
        problems: &[404, 409, 413, 415, 422],
        handler: || post(participants::change),
    }
}

const fn burying(path: &'static str, summary: &'static str) -> Route {
    pausing(path, summary)
        .served_by(Takes::Json("DeadLetterRequest"), || post(dead::change))
        .giving(&[(200, Gives::Json("DeadLetterResult"))])
}

const fn deprecation(path: &'static str, summary: &'static str, handler: fn() -> MethodRouter<App>) -> Route {
    Route {
        method: Method::POST,
        path,
        right: Right::Register,
        query: &[],
        summary,
        takes: Takes::Json("ReasonRequest"),
        gives: &[(200, Gives::Json("DefinitionView"))],
        problems: &[404, 413, 415, 422],
        handler,
    }
}

const fn steering(path: &'static str, summary: &'static str) -> Route {
    Route {
        method: Method::POST,
        path,
        right: Right::Operate,
        query: &[],
        summary,
        takes: Takes::Json("BulkSteerBody"),
        gives: &[(200, Gives::Json("BulkView"))],
        problems: &[404, 409, 413, 415, 422, 501],
        handler: || post(bulk::steer),
    }
}

const fn delivery(path: &'static str, summary: &'static str) -> Route {
    deprecation(path, summary, || post(webhooks::see_to))
        .needing(Right::Operate)
        .giving(&[(200, Gives::Json("DeliveryItem"))])
}

/// Every route that there is.
pub(super) const ROUTES: &[Route] = &[
    Route {
        method: Method::POST,
        path: "/v1/definitions",
        right: Right::Register,
        query: &["denyWarnings"],
        summary: "Registers a definition: 201 new, 200 registered before with the same content; with denyWarnings=true, warnings refuse it too",
        takes: Takes::Definition,
        gives: &[(201, Gives::Json("DefinitionView")), (200, Gives::Json("DefinitionView"))],
        problems: &[409, 413, 415, 422],
        handler: || post(definitions::register),
    },
    read(
        "/v1/definitions",
        "Lists every version of every definition",
        &[(200, Gives::Json("DefinitionList"))],
        &[],
        || get(definitions::list),
    ),
    read(
        "/v1/definitions/{name}",
        "Lists the versions of one definition",
        &[(200, Gives::Json("DefinitionVersions"))],
        &[404],
        || get(definitions::versions),
    ),
    read(
        "/v1/definitions/{name}/advice",
        "Tells what the recorded outcomes say: order, time-outs and retries that would serve better",
        &[(200, Gives::Json("AdviceView"))],
        &[404, 422],
        || get(advice::show),
    )
    .asking(&["version", "since"]),
    read(
        "/v1/definitions/{name}/{version}",
        "Shows one definition version with its source",
        &[(200, Gives::Json("DefinitionView"))],
        &[404],
        || get(definitions::version),
    ),
    read(
        "/v1/definitions/{name}/{version}/graph.svg",
        "Draws the steps of one definition version",
        &[(200, Gives::Other("image/svg+xml"))],
        &[404],
        || get(definitions::graph),
    ),
    deprecation(
        "/v1/definitions/{name}/{version}/deprecate",
        "Stops new starts of a version; running sagas go on",
        || post(versions::deprecate),
    ),
    deprecation("/v1/definitions/{name}/{version}/undeprecate", "Undoes a deprecation", || post(versions::undeprecate)),
    read(
        "/v1/definitions/{name}/{version}/migration",
        "Tells which sagas in flight of a version could be moved to version `to`, and why the others could not",
        &[(200, Gives::Json("MigrationPage"))],
        &[404, 409],
        || get(versions::plan_all),
    )
    .asking(&["to", "limit", "cursor"]),
    Route {
        method: Method::POST,
        path: "/v1/sagas",
        right: Right::Start,
        query: &[],
        summary: "Starts a saga: 201 started, 200 the saga that this key has already",
        takes: Takes::Json("StartBody"),
        gives: &[(201, Gives::Json("SagaView")), (200, Gives::Json("SagaView"))],
        problems: &[404, 409, 413, 415, 422, 429],
        handler: || post(start::one),
    },
    Route {
        method: Method::POST,
        path: "/v1/sagas/batch",
        right: Right::Start,
        query: &[],
        summary: "Starts up to 1,000 sagas in one transaction, with a result for each",
        takes: Takes::Json("BatchRequest"),
        gives: &[(200, Gives::Json("BatchResult"))],
        problems: &[413, 415, 422],
        handler: || post(start::batch),
    },
    read("/v1/sagas", "Lists sagas, newest first", &[(200, Gives::Json("SagaPage"))], &[422], || get(sagas::list))
        .asking(&[
            "saga", "state", "key", "since", "until", "paused", "version", "status", "error", "at", "field", "limit",
            "cursor",
        ]),
    read(
        "/v1/sagas/{id}",
        "Shows a saga; its ETag is its revision. With reveal=true, for admins and audited: with what is sensitive",
        SAGA,
        &[404],
        || get(sagas::show),
    )
    .asking(&["reveal", "reason"]),
    read(
        "/v1/sagas/{id}/history",
        "Tells what happened to a saga, in order",
        &[(200, Gives::Json("HistoryView"))],
        &[404],
        || get(sagas::history),
    )
    .asking(&["reveal", "reason"]),
    read(
        "/v1/sagas/{id}/graph.svg",
        "Draws the steps of a saga with their states",
        &[(200, Gives::Other("image/svg+xml"))],
        &[404],
        || get(sagas::graph),
    ),
    read(
        "/v1/sagas/{id}/migration",
        "Tells whether a saga could be moved to version `to` of its definition, and why not",
        &[(200, Gives::Json("MigrationItem"))],
        &[404, 409],
        || get(versions::plan_one),
    )
    .asking(&["to"]),
    operation(
        "/v1/sagas/{id}/migrate",
        "Moves a saga to another version of its definition, if what was sent allows it",
    )
    .asking(&[])
    .giving(SAGA)
    .served_by(Takes::Json("MigrateRequest"), || post(versions::migrate)),
    operation("/v1/sagas/{id}/retry", "Sends again what is stuck or backing off, with a fresh count of attempts"),
    operation("/v1/sagas/{id}/skip", "Passes over a step, or over its compensation"),
    operation(
        "/v1/sagas/{id}/edit",
        "Sends what was refused once more, with another input; off unless the server allows it",
    )
    .served_by(Takes::Json("EditRequest"), || post(operate::operate)),
    operation("/v1/sagas/{id}/compensate", "Sends a saga back: what was done is undone"),
    operation("/v1/sagas/{id}/pause", "Sends nothing new until resumed; replies are still applied"),
    operation("/v1/sagas/{id}/resume", "Undoes a pause"),
    operation("/v1/sagas/{id}/cancel", "Sends a saga back because its caller no longer wants it"),
    operation("/v1/sagas/{id}/abandon", "Gives a saga up: nothing is undone, nothing more is sent"),
    signalling("/v1/sagas/{id}/signal", "Tells a saga of a signal that a step waits for", "SignalRequest", || {
        post(signal::to_one)
    }),
    signalling("/v1/signals", "Tells a saga, named by its id or by its key, of a signal", "SignalBody", || {
        post(signal::to_any)
    }),
    Route {
        method: Method::POST,
        path: "/v1/bulk",
        right: Right::Operate,
        query: &[],
        summary: "Does one action to many sagas, as a job: by a filter or by their ids; with dryRun in the body it only tells what it would do",
        takes: Takes::Json("BulkRequestBody"),
        gives: &[(201, Gives::Json("BulkView")), (200, Gives::Json("BulkPreviewView"))],
        problems: &[409, 413, 415, 422, 501],
        handler: || post(bulk::start),
    },
    read("/v1/bulk", "Lists bulk jobs, newest first", &[(200, Gives::Json("BulkPage"))], &[], || get(bulk::list))
        .asking(&["limit", "cursor"]),
    read(
        "/v1/bulk/{id}",
        "Shows a bulk job; with check=true it looks now how its sagas stand",
        &[(200, Gives::Json("BulkView"))],
        &[404, 501],
        || get(bulk::show),
    )
    .asking(&["check"]),
    read(
        "/v1/bulk/{id}/items",
        "Lists the sagas of a bulk job with what became of each: open, applied, refused, failed",
        &[(200, Gives::Json("BulkItemPage"))],
        &[404, 501],
        || get(bulk::items),
    )
    .asking(&["outcome", "limit", "cursor"]),
    steering("/v1/bulk/{id}/pause", "Holds a bulk job until it is resumed"),
    steering("/v1/bulk/{id}/resume", "Goes on with a bulk job that is paused"),
    steering("/v1/bulk/{id}/stop", "Ends a bulk job for good; what is not done yet is left as it is"),
    read(
        "/v1/webhooks/deliveries",
        "Lists what webhooks are still to be told, and what they did not take",
        &[(200, Gives::Json("DeliveryPage"))],
        &[],
        || get(webhooks::list),
    )
    .asking(&["state", "limit", "cursor"]),
    delivery("/v1/webhooks/deliveries/{id}/retry", "Tries a message again, from its first attempt"),
    delivery("/v1/webhooks/deliveries/{id}/drop", "Drops a message for good: the webhook is not told"),
    read("/v1/outbox", "Lists commands, oldest saga first", &[(200, Gives::Json("OutboxPage"))], &[], || {
        get(outbox::list)
    })
    .asking(&["state", "limit", "cursor", "reveal", "reason"]),
    read(
        "/v1/audit",
        "Tells who did what and why, newest first; `saga` is a saga's id",
        &[(200, Gives::Json("AuditPage"))],
        &[422],
        || get(audit::list),
    )
    .asking(&["saga", "actor", "action", "since", "limit", "cursor"]),
    read(
        "/v1/participants",
        "Lists the participants of all definitions: queue, backlog, oldest unanswered command, circuit, pauses",
        &[(200, Gives::Json("ParticipantList"))],
        &[],
        || get(participants::list),
    ),
    pausing(
        "/v1/participants/{name}/pause",
        "Holds back the commands for a participant, or for one of its actions, until resumed",
    ),
    pausing("/v1/participants/{name}/resume", "Undoes a pause: what was held back goes out bit by bit"),
    read(
        "/v1/dead-letters",
        "Lists the queues of dead letters with how many messages each has",
        &[(200, Gives::Json("DeadQueueList"))],
        &[],
        || get(dead::queues),
    ),
    read(
        "/v1/dead-letters/{queue}",
        "Shows the oldest messages of a queue of dead letters, which stay where they are",
        &[(200, Gives::Json("DeadLetterPage"))],
        &[404],
        || get(dead::list),
    )
    .asking(&["limit", "reveal", "reason"])
    .needing(Right::Operate),
    burying("/v1/dead-letters/{queue}/replay", "Publishes dead letters to where they came from, then removes them"),
    burying("/v1/dead-letters/{queue}/drop", "Removes dead letters for good"),
    read(
        "/v1/overview",
        "Tells how much there is, what is stuck and why, and how it went in the last hour",
        &[(200, Gives::Json("OverviewView"))],
        &[],
        || get(overview::show),
    ),
    read("/healthz", "Tells that the process answers", &[(200, Gives::Json("HealthView"))], &[], || get(health::alive))
        .needing(Right::Open),
    read(
        "/readyz",
        "Tells whether store and broker answer and the loops run",
        &[(200, Gives::Json("HealthView"))],
        &[],
        || get(health::ready),
    )
    .needing(Right::Open),
    read(
        "/metrics",
        "Counts, as OpenMetrics text",
        &[(200, Gives::Other("application/openmetrics-text"))],
        &[],
        || get(health::metrics),
    ),
    read("/openapi.json", "Describes this interface", &[(200, Gives::Other("application/json"))], &[], || {
        get(openapi::document)
    }),
];

/// A route as tests and documentation see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteInfo {
    /// The method.
    pub method: Method,
    /// The path, with `{names}` for its variable parts.
    pub path: &'static str,
    /// What it asks of its caller.
    pub right: Right,
}

/// Every route that the router serves.
pub fn route_table() -> Vec<RouteInfo> {
    ROUTES
        .iter()
        .map(|route| RouteInfo { method: route.method.clone(), path: route.path, right: route.right })
        .collect()
}

/// The row of the table that serves `method` on the route `path`. HEAD is GET without a body.
pub(super) fn find(method: &Method, path: &str) -> Option<&'static Route> {
    let method = if *method == Method::HEAD { &Method::GET } else { method };
    ROUTES.iter().find(|route| route.path == path && route.method == *method)
}

/// The whole interface, ready to serve.
pub fn router(coordinator: Coordinator, auth: AuthConfig) -> Router {
    let app = App { coordinator, clock: Clock::System };
    let routes = ROUTES.iter().fold(Router::new(), |router, route| router.route(route.path, (route.handler)()));
    guarded(routes, auth).with_state(app)
}

/// What stands before the interfaces of several namespaces: whether the process lives, and whether it is `ready`.
pub(crate) fn front(auth: AuthConfig, ready: MethodRouter) -> Router {
    guarded(Router::new().route("/healthz", get(health::alive)).route("/readyz", ready), auth)
}

/// The interface of a namespace that is not there yet.
pub(crate) fn away(auth: AuthConfig) -> Router {
    let answer = async || Problem::not_ready("this namespace is not ready yet; the server goes on trying".to_owned());
    around(Router::new().fallback(answer), auth)
}

/// Puts around `routes` what every request goes through.
fn guarded<S: Clone + Send + Sync + 'static>(routes: Router<S>, auth: AuthConfig) -> Router<S> {
    around(routes.fallback(unknown_route).method_not_allowed_fallback(wrong_method), auth)
}

fn around<S: Clone + Send + Sync + 'static>(routes: Router<S>, auth: AuthConfig) -> Router<S> {
    routes
        .layer(axum::middleware::from_fn_with_state(Arc::new(auth), guard::admit))
        .layer(CatchPanicLayer::custom(panicked))
        .layer(axum::middleware::from_fn(guard::finish))
}

async fn unknown_route(request: Request) -> Problem {
    let path: String = request.uri().path().chars().take(200).collect();
    let detail = format!("`{path}` is no route; GET /openapi.json lists those there are");
    Problem::new(ROUTE_UNKNOWN, detail).suggest(&path, ROUTES.iter().map(|route| route.path))
}

async fn wrong_method(path: Option<MatchedPath>, method: Method) -> Response {
    let path = path.as_ref().map_or("", MatchedPath::as_str);
    let known: Vec<&str> =
        ROUTES.iter().filter(|route| route.path == path).map(|route| route.method.as_str()).collect();
    let allow = known.join(", ").replace("GET", "GET, HEAD");
    let detail = format!("`{path}` does not know {method}; it knows {allow}");
    let mut response = Problem::new(METHOD_NOT_ALLOWED, detail).into_response();
    if let Ok(allow) = HeaderValue::from_str(&allow) {
        response.headers_mut().insert(ALLOW, allow);
    }
    response
}

/// What panicked is in the log already, by way of the panic hook; the caller learns nothing of it but the request's id.
fn panicked(_: Box<dyn std::any::Any + Send>) -> Response {
    Problem::internal("a handler panicked").into_response()
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use serde_json::Value;
    use tower::ServiceExt;

    use super::*;
    use crate::api::auth::{Role, TokenEntry};

    async fn ask(routes: Router, path: &str) -> (u16, Value, Option<String>) {
        let request = Request::get(path).header("host", "localhost").header("x-request-id", "r-1");
        let request = request.body(Body::empty()).expect("a request");
        let response = guarded(routes, AuthConfig::default()).oneshot(request).await.expect("an answer");
        let status = response.status().as_u16();
        let retry = response.headers().get("retry-after").map(|value| value.to_str().expect("text").to_owned());
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"), retry)
    }

    #[tokio::test]
    async fn a_panic_is_answered_without_what_it_says() {
        async fn panic() -> &'static str {
            panic!("the secret is 42")
        }
        let (status, problem, _) = ask(Router::new().route("/boom", get(panic)), "/boom").await;
        assert_eq!((status, problem["code"].as_str()), (500, Some("INTERNAL")));
        assert_eq!(problem["requestId"], "r-1");
        assert!(!problem.to_string().contains("42"), "{problem}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_handler_that_never_ends_is_given_up() {
        let routes = Router::new().route("/slow", get(std::future::pending::<&'static str>));
        let (status, problem, retry) = ask(routes, "/slow").await;
        assert_eq!((status, problem["code"].as_str()), (503, Some("REQUEST_TIMEOUT")));
        assert_eq!(retry.as_deref(), Some("1"));
    }

    #[tokio::test]
    async fn a_route_outside_the_table_asks_for_a_token_too() {
        let auth = AuthConfig::new(vec![TokenEntry::plain("eye", Role::Viewer, "look")]);
        let routes = Router::new().route("/forgotten", get(async || "secret"));
        let request = Request::get("/forgotten").body(Body::empty()).expect("a request");
        let response = guarded(routes, auth).oneshot(request).await.expect("an answer");
        assert_eq!(response.status(), 401);
    }

    #[test]
    fn no_route_is_in_the_table_twice() {
        let mut rows: Vec<_> = ROUTES.iter().map(|route| (route.path, route.method.as_str())).collect();
        rows.sort_unstable();
        rows.dedup();
        assert_eq!(rows.len(), ROUTES.len());
    }

    #[test]
    fn what_shows_what_is_sensitive_takes_a_reason() {
        for route in ROUTES.iter().filter(|route| route.can_reveal()) {
            assert!(route.method == Method::GET && route.query.contains(&"reason"), "{}", route.path);
        }
    }

    #[test]
    fn what_changes_something_asks_for_more_than_reading() {
        for route in ROUTES {
            // What a dead letter says may be what only few may see.
            let is_for_few = route.path == "/v1/dead-letters/{queue}";
            let is_change = route.method != Method::GET;
            let asks_more = matches!(route.right, Right::Start | Right::Register | Right::Operate);
            assert_eq!(is_change || is_for_few, asks_more, "{} {}", route.method, route.path);
        }
    }
}
