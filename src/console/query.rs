//! Query parameters, read and written.

use axum::extract::FromRequestParts;
use axum::http::request::Parts;

use crate::console::failure::Failure;

/// The pairs of a query or of a form.
#[derive(Clone, Debug, Default)]
pub(super) struct Pairs(pub(super) Vec<(String, String)>);

impl Pairs {
    /// The first value of `name` that is not empty.
    pub(super) fn get<'s>(&'s self, name: &str) -> Option<&'s str> {
        self.0.iter().find(|(given, value)| given == name && !value.trim().is_empty()).map(|(_, value)| value.trim())
    }

    /// All values of `name` that are not empty.
    pub(super) fn all<'s>(&'s self, name: &'s str) -> impl Iterator<Item = &'s str> {
        let found = self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.trim());
        found.filter(|value| !value.is_empty())
    }

    /// The same without some names, as a query.
    pub(super) fn without(&self, names: &[&str]) -> String {
        let kept = self.0.iter().filter(|(name, value)| !names.contains(&name.as_str()) && !value.trim().is_empty());
        kept.map(|(name, value)| format!("{}={}", encode(name), encode(value))).collect::<Vec<_>>().join("&")
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Pairs {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        let pairs = axum::extract::Query::<Vec<(String, String)>>::try_from_uri(&parts.uri)
            .map_err(|error| Failure::wrong("The address cannot be read", error.to_string()))?;
        if pairs.0.iter().any(|(_, value)| value.contains('\0')) {
            return Err(Failure::wrong("The address cannot be read", "It contains a NUL character."));
        }
        Ok(Self(pairs.0))
    }
}

/// Text as it may stand in a query or a path.
pub(super) fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~') {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// A query of pairs; those without a value are left out.
pub(super) fn query(pairs: &[(&str, &str)]) -> String {
    let pairs = pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    Pairs(pairs).without(&[])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_encoded_is_plain_ascii() {
        assert_eq!(encode("a b/ü\"&"), "a%20b%2F%C3%BC%22%26");
        assert_eq!(query(&[("a", "1"), ("b", ""), ("c", "&")]), "a=1&c=%26");
    }
}
