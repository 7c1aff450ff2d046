//! Logging in and out, and the theme: what is kept in cookies. They have no path of their own, so that the browser gives
//! them the console's, whatever that is behind a proxy.

use axum::extract::State;
use axum::http::header::{LOCATION, SET_COOKIE};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use maud::html;

use crate::api::auth::Refused;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::Signed;
use crate::console::layout::{Page, page};
use crate::console::query::Pairs;
use crate::console::visit::{NAMESPACE, SESSION, THEME, Visit, cookie};

pub(super) async fn show(visit: Visit, pairs: Pairs) -> Page {
    form(&visit, pairs.get("next").unwrap_or_default(), None)
}

fn form(visit: &Visit, next: &str, wrong: Option<&str>) -> Page {
    let body = html! {
        div.login {
            h1 { "Log in" }
            @if visit.is_in {
                p { "You are in already." }
                p { a.button.primary href=(visit.to("")) { "Home" } }
            } @else {
                p.soft { "With a token of this server. It is not kept in the browser: a session of twelve hours at most is." }
                @if let Some(wrong) = wrong { p.error role="alert" { (wrong) } }
                form method="post" action=(visit.to("login")) {
                    input type="hidden" name="csrf" value=(visit.csrf);
                    input type="hidden" name="next" value=(next);
                    label for="token" { "Token" }
                    input #token type="password" name="token" autocomplete="current-password" required autofocus;
                    button.primary { "Log in" }
                }
            }
        }
    };
    page(visit, "Log in", body)
}

pub(super) async fn enter(
    State(house): State<House>,
    visit: Visit,
    headers: HeaderMap,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let next = pairs.get("next").unwrap_or_default();
    let again = |wrong: &str, status: StatusCode| (status, form(&visit, next, Some(wrong))).into_response();
    let token = pairs.get("token").unwrap_or_default().trim();
    // The token says into which namespace, and that one whether it is let in.
    let house = house.0.doors.of_token(token).unwrap_or(house);
    let identity = match house.0.auth.identify(token).await {
        Ok(identity) => identity,
        Err(Refused::Store(error)) => return Err(error.into()),
        Err(Refused::Unknown(_)) => return Ok(again("This token is not accepted here.", StatusCode::UNAUTHORIZED)),
        Err(Refused::NoRole(why)) => return Ok(again(&why, StatusCode::FORBIDDEN)),
        Err(Refused::Issuer(why)) => return Ok(again(&why, StatusCode::SERVICE_UNAVAILABLE)),
    };
    let session = house.session(&identity).await?;
    Ok((StatusCode::SEE_OTHER, [(SET_COOKIE, kept(SESSION, &session, &headers)), (LOCATION, local(next))])
        .into_response())
}

/// A cookie for a working day and a bit.
fn kept(name: &str, value: &str, headers: &HeaderMap) -> String {
    let is_secure = headers.get("x-forwarded-proto").is_some_and(|proto| proto == "https");
    let secure = if is_secure { "; Secure" } else { "" };
    format!("{name}={value}; HttpOnly; SameSite=Strict; Max-Age=43200{secure}")
}

/// Into another namespace, for who may use several.
pub(super) async fn change(
    State(house): State<House>,
    visit: Visit,
    headers: HeaderMap,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let wanted = pairs.get("namespace").unwrap_or_default();
    let found = visit.namespaces.iter().find(|namespace| namespace.as_str() == wanted);
    let Some(other) = found.and_then(|namespace| house.0.doors.of(namespace)) else {
        let detail = "Or it is not ready, or your token does not lead into it. You are where you were.";
        return Err(Failure::missing("There is no such namespace", detail));
    };
    let cookie = match cookie(&headers, SESSION) {
        _ if house.0.auth.is_open().await? => kept(NAMESPACE, wanted, &headers),
        Some(session) => match house.known(session, house.now()).await? {
            Some(identity) => kept(SESSION, &other.session(&identity).await?, &headers),
            None => return Err(Failure::internal("a session came past the guard")),
        },
        None => return Err(Failure::internal("a visitor without session came past the guard")),
    };
    Ok((StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "./".to_owned())]).into_response())
}

pub(super) async fn leave(Signed(_): Signed) -> Response {
    let cookie = format!("{SESSION}=; HttpOnly; SameSite=Strict; Max-Age=0");
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, "login".to_owned())]).into_response()
}

pub(super) async fn theme(Signed(pairs): Signed) -> Response {
    let theme = match pairs.get("theme") {
        Some("dark") => "dark",
        Some("light") => "light",
        _ => "auto",
    };
    let cookie = format!("{THEME}={theme}; HttpOnly; SameSite=Strict; Max-Age=31536000");
    let back = local(pairs.get("back").unwrap_or_default());
    (StatusCode::SEE_OTHER, [(SET_COOKIE, cookie), (LOCATION, back)]).into_response()
}

/// A page of the console as a place to go on to, seen from its root; its start, if it is anything else.
fn local(page: &str) -> String {
    let (path, rest) = page.split_once('?').map_or((page, ""), |(path, rest)| (path, rest));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/' | '%' | '~');
    let is_local = path.chars().all(is_plain) && !path.starts_with('/') && !path.contains("//") && !path.contains("..");
    let is_sane = rest.chars().all(|c| is_plain(c) || matches!(c, '&' | '=' | '+' | '*' | '!' | '(' | ')' | ',' | ':'));
    match (is_local && is_sane, rest) {
        (true, "") => format!("./{path}"),
        (true, rest) => format!("./{path}?{rest}"),
        _ => "./".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn after_a_login_only_pages_of_the_console_are_gone_to() {
        assert_eq!(local("sagas?state=STUCK&key=a%20b"), "./sagas?state=STUCK&key=a%20b");
        for elsewhere in ["//evil.example", "/x", "https://evil.example", "a//b", "../x", "\\\\evil", "sagas?x=\r\ny"] {
            assert_eq!(local(elsewhere), "./", "{elsewhere}");
        }
    }
}
