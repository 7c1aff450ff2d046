//! Forms off the wire: read only when they carry what shows that they are the console's own.

use axum::body::Bytes;
use axum::extract::{FromRequest, Request};
use axum::http::header::CONTENT_TYPE;
use maud::{Markup, html};
use subtle::ConstantTimeEq;

use crate::api::operate::MAX_REASON;
use crate::console::failure::Failure;
use crate::console::query::Pairs;
use crate::console::visit::Visit;

/// Bytes of a form, at most: a thousand ids and a reason.
const MAX_FORM: usize = 256 * 1024;

/// A form that came from a page of this session.
pub(super) struct Signed(pub(super) Pairs);

impl<S: Send + Sync> FromRequest<S> for Signed {
    type Rejection = Failure;

    async fn from_request(request: Request, _: &S) -> Result<Self, Failure> {
        let unreadable = |detail: &str| Failure::wrong("The form cannot be read", detail.to_owned());
        let expected = request.extensions().get::<Visit>().map(|visit| visit.csrf.clone()).unwrap_or_default();
        let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return Err(unreadable("It must be sent as application/x-www-form-urlencoded."));
        }
        let body: Bytes = axum::body::to_bytes(request.into_body(), MAX_FORM)
            .await
            .map_err(|_| unreadable("It broke off, or is too large."))?;
        let text = std::str::from_utf8(&body).map_err(|_| unreadable("It is not UTF-8."))?;
        let uri = format!("/?{text}").parse().map_err(|_| unreadable("It is no form."))?;
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&uri)
            .map_err(|error| unreadable(&error.to_string()))?;
        let pairs = Pairs(pairs.0);
        let given = pairs.get("csrf").unwrap_or_default();
        if expected.is_empty() || !bool::from(given.as_bytes().ct_eq(expected.as_bytes())) {
            return Err(Failure::forbidden(
                "This form is not of your session",
                "You may have logged in again since the page was loaded. Load it again and repeat; nothing was done.",
            ));
        }
        if pairs.0.iter().any(|(_, value)| value.contains('\0')) {
            return Err(unreadable("It contains a NUL character."));
        }
        Ok(Self(pairs))
    }
}

/// The reason that a form gives; else what to say about it.
pub(super) fn reason(pairs: &Pairs) -> Result<String, String> {
    let reason = pairs.get("reason").unwrap_or_default();
    match (1..=MAX_REASON).contains(&reason.chars().count()) {
        true => Ok(reason.to_owned()),
        false => Err(format!("A reason of 1 to {MAX_REASON} characters is needed. Nothing was done.")),
    }
}

/// The field for it: what becomes of it, what was wrong the last time, and whether it can be filled in.
pub(super) fn reason_field(hint: &str, wrong: Option<&str>, is_on: bool) -> Markup {
    html! {
        label for="reason" { "Reason" }
        p.soft #reason-hint { (hint) }
        @if let Some(wrong) = wrong { p.error role="alert" { (wrong) } }
        textarea #reason name="reason" rows="3" maxlength=(MAX_REASON) required aria-describedby="reason-hint" disabled[!is_on] autofocus {}
    }
}
