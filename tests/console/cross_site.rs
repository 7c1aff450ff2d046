//! Changes that the console's own pages did not ask for are refused, on every route that changes something.

use amends::api::AuthConfig;
use axum::body::Body;
use axum::http::Request;

use crate::walk::{ask, field, form, furnished, get};

#[tokio::test]
async fn no_change_is_taken_from_elsewhere_or_without_the_sessions_token() {
    let (house, samples) = furnished(AuthConfig::default()).await;
    let id = samples[0].1;
    let before = house.store.saga(id).await.expect("read").expect("there").saga;
    let page = ask(&house.router, get(&format!("/console/sagas/{id}/abandon"), None)).await.text;
    let (csrf, revision) = (field(&page, "csrf"), field(&page, "revision"));
    let rows = amends::console::route_table();
    let changes: Vec<_> = rows.iter().filter(|row| row.method == "POST").collect();
    assert!(changes.len() >= 5, "{changes:?}");
    for row in changes {
        let path = row
            .path
            .replace("{id}", &id.to_string())
            .replace("{action}", "abandon")
            .replace("{name}", "orders")
            .replace("{queue}", "a.dead");
        let good = [("csrf", csrf.as_str()), ("revision", &revision), ("reason", "x"), ("token", "x")];
        let none = ask(&house.router, form(&path, None, &good[1..])).await;
        assert_eq!(none.status, 403, "{path} without the token");
        let forged = [("csrf", "AAAA"), good[1], good[2]];
        assert_eq!(ask(&house.router, form(&path, None, &forged)).await.status, 403, "{path} with a made-up token");
        for (name, value) in [
            ("origin", "https://evil.example"),
            ("origin", "null"),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
        ] {
            let mut request: Request<Body> = form(&path, None, &good);
            if value == "null" {
                // A frame without an origin; the console's own forms have none either, and are told by the browser.
                request.headers_mut().remove("sec-fetch-site");
            }
            request.headers_mut().insert(name, value.parse().expect("a header"));
            assert_eq!(ask(&house.router, request).await.status, 403, "{path} with {name}: {value}");
        }
        let mut rebound = form(&path, None, &good);
        rebound.headers_mut().insert("host", "evil.example".parse().expect("a header"));
        rebound.headers_mut().insert("origin", "http://evil.example".parse().expect("a header"));
        assert_eq!(ask(&house.router, rebound).await.status, 403, "{path} under another name");
    }
    assert_eq!(house.store.saga(id).await.expect("read").expect("there").saga, before, "nothing has happened");
}
