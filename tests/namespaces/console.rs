//! In the console.

use std::time::Duration;

use amends::id::Namespace;
use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, StatusCode};
use tower::ServiceExt;

use crate::server::{ABSENT, Furnished, HIDDEN, OWN, Server, as_of, ask, meaning, tells_nothing, told, vault};
use crate::support;
use crate::support::http::{Answer, get};

pub async fn no_page_of_the_console_lets_one_see_the_other(server: Server) {
    let Furnished { hidden, job, cursor } = server.furnish().await;
    let absent = amends::id::SagaId::fresh().to_string();
    let (_, own) = server.one.start(&server.router, OWN, "own").await;
    let session = login(&server.router, &server.one.token).await;
    assert!(session.starts_with(&format!("amends_console={}.", server.one.namespace)), "{session}");
    let page = ask(&server.router, page(&format!("/console/sagas/{own}"), &session)).await;
    assert_eq!(page.status, 200);
    let csrf = field(&page.text, "csrf");
    for route in amends::console::route_table() {
        let place = format!("{} {}", route.method, route.path);
        let answer = async |id: &str, name: &str| {
            let path = route.path.replace("participants/{name}", &format!("participants/{}", vault(name)));
            let path = path.replace("{id}", id).replace("{name}", name).replace("{version}", "1");
            let path = path.replace("{queue}", &format!("{}.commands.dead", vault(name)));
            let action = match path.split('/').nth(2) {
                Some("dead") => "replay",
                Some("participants") => "pause",
                _ => "retry",
            };
            let path = path
                .replace("{word}", "stop")
                .replace("{action}", action)
                .replace("{file}", "x")
                .replace("{*rest}", id);
            let request = match route.method == Method::POST {
                true => {
                    form(&path, &session, &format!("csrf={csrf}&revision=1&reason=r&ids={id}&id={id}&namespace={name}"))
                }
                false => {
                    let mut request = self::page(&path, &session);
                    *request.method_mut() = route.method.clone();
                    request
                }
            };
            if route.path == "/console/events" {
                let request = self::page(&format!("{path}?ids={id}:0"), &session);
                return (StatusCode::OK, first_of_stream(&server.router, request).await);
            }
            let answer = ask(&server.router, request).await;
            (answer.status, told(&answer, &[id, name, &vault(name)]))
        };
        let foreign = match route.path {
            "/console/namespace" => answer(&hidden, server.two.namespace.as_str()).await,
            path if path.starts_with("/console/bulk/") => answer(&job, HIDDEN).await,
            _ => answer(&hidden, HIDDEN).await,
        };
        let nothing = answer(&absent, ABSENT).await;
        assert_eq!(foreign.0, nothing.0, "{place}");
        if route.path.contains('{') || route.path == "/console/namespace" {
            assert_eq!(foreign.1, nothing.1, "{place}");
        }
        tells_nothing(&foreign.1, &place);
    }
    for path in [
        format!("/console/revisions?ids={hidden}:0"),
        format!("/console/sagas?after={cursor}"),
        format!("/console/sagas?saga={HIDDEN}"),
        "/console/sagas?key=hidden-key".to_owned(),
    ] {
        let answer = ask(&server.router, self::page(&path, &session)).await;
        tells_nothing(&told(&answer, &[HIDDEN, "hidden-key"]).replace(&cursor, ""), &path);
        assert!(!path.contains("revisions") || !answer.text.contains(&hidden), "{}", answer.text);
    }
    let stream = self::page(&format!("/console/events?ids={own}:99"), &session);
    assert!(first_of_stream(&server.router, stream).await.contains(&own), "the stream is not blind");
    // A session is its namespace's alone, whatever is written before it.
    let (_, secret) = session.split_once('.').expect("the namespace stands first");
    let taken = format!("amends_console={}.{secret}", server.two.namespace);
    assert_eq!(ask(&server.router, self::page("/console/sagas", &taken)).await.status, 303, "to the login");
    server.end().await;
}

pub async fn an_operator_of_all_changes_between_them(server: Server) {
    let Furnished { hidden, .. } = server.furnish().await;
    let of =
        |namespace: &Namespace| meaning(as_of(get(&format!("/v1/sagas/{hidden}")), "token-of-all"), namespace.as_str());
    assert_eq!(ask(&server.router, of(&server.two.namespace)).await.status, 200);
    assert_eq!(ask(&server.router, of(&server.one.namespace)).await.code(), "SAGA_UNKNOWN");
    let nowhere = meaning(as_of(get("/v1/sagas"), "token-of-all"), "nowhere");
    assert_ne!(ask(&server.router, nowhere).await.status, 200);
    let session = login(&server.router, "token-of-all").await;
    let home = ask(&server.router, page("/console/sagas", &session)).await;
    assert!(home.text.contains("<option value=\"default\""), "{}", home.text);
    let csrf = field(&home.text, "csrf");
    let body = format!("csrf={csrf}&namespace={}", server.two.namespace);
    let changed = ask(&server.router, form("/console/namespace", &session, &body)).await;
    assert_eq!(changed.status, 303, "{}", changed.text);
    let session = cookie(&changed);
    let page = ask(&server.router, page("/console/sagas", &session)).await;
    assert!(page.text.contains(HIDDEN), "{}", page.text);
    server.end().await;
}

pub fn page(path: &str, session: &str) -> Request<Body> {
    let mut request = get(path);
    request.headers_mut().insert("cookie", session.parse().expect("a header"));
    request
}

fn form(path: &str, session: &str, body: &str) -> Request<Body> {
    let mut request = support::http::with_kind(path, "application/x-www-form-urlencoded", body.to_owned());
    request.headers_mut().insert("cookie", session.parse().expect("a header"));
    request
}

fn field(page: &str, name: &str) -> String {
    let (_, rest) =
        page.split_once(&format!("name=\"{name}\" value=\"")).unwrap_or_else(|| panic!("no {name}: {page}"));
    rest.split('"').next().expect("an end").to_owned()
}

fn cookie(answer: &Answer) -> String {
    let set = answer.header("set-cookie").unwrap_or_else(|| panic!("no cookie: {} {}", answer.status, answer.text));
    set.split(';').next().expect("a first part").to_owned()
}

/// Logs in as a browser does; the cookie.
pub async fn login(router: &Router, token: &str) -> String {
    let login = ask(router, get("/console/login")).await;
    let body = format!("csrf={}&token={token}&next=", field(&login.text, "csrf"));
    cookie(&ask(router, form("/console/login", "", &body)).await)
}

/// What a stream says within the time in which it looks twice.
pub async fn first_of_stream(router: &Router, request: Request<Body>) -> String {
    use futures_util::StreamExt;
    let response = router.clone().oneshot(request).await.expect("the router answers");
    let mut stream = response.into_body().into_data_stream();
    match tokio::time::timeout(Duration::from_millis(1_500), stream.next()).await {
        Ok(Some(Ok(bytes))) => String::from_utf8_lossy(&bytes).into_owned(),
        _ => String::new(),
    }
}
