//! Who looks at a page, from where, and how they like it.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::header::COOKIE;
use axum::http::request::Parts;

use crate::api::{Right, Role};
use crate::console::failure::Failure;
use crate::id::Namespace;

/// The cookie that holds the session.
pub(super) const SESSION: &str = "amends_console";
/// The cookie that holds the theme.
pub(super) const THEME: &str = "amends_theme";

/// The cookie that names the namespace where no token does.
pub(super) const NAMESPACE: &str = "amends_namespace";

/// What every page is rendered with.
#[derive(Clone, Debug)]
pub(super) struct Visit {
    /// The way from this page to the console's root, for example `../../`: what every link begins with.
    pub(super) root: String,
    /// The page itself, from the console's root.
    pub(super) here: String,
    /// Who; `anonymous` where no token is asked for.
    pub(super) name: String,
    /// Whose console it is.
    pub(super) namespace: Namespace,
    /// The namespaces that they may change to.
    pub(super) namespaces: Vec<Namespace>,
    /// What they may do; `None` where no token is asked for.
    pub(super) role: Option<Role>,
    /// Whether they have shown a token, or none is asked for.
    pub(super) is_in: bool,
    /// What each form of this session carries.
    pub(super) csrf: String,
    /// `light`, `dark` or `auto`.
    pub(super) theme: &'static str,
}

impl Visit {
    /// Whether the visitor has `right`.
    pub(super) fn may(&self, right: Right) -> bool {
        self.is_in && self.role.is_none_or(|role| role.may(right))
    }

    /// A link to a page, by its way from the console's root.
    pub(super) fn to(&self, page: &str) -> String {
        format!("{}{page}", self.root)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visit {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Failure> {
        parts.extensions.get::<Self>().cloned().ok_or_else(|| Failure::internal("a request came past the guard"))
    }
}

/// The way from the page at `path` to the console's root, and the page from there.
pub(super) fn place(path: &str) -> (String, String) {
    let here = path.strip_prefix("/console/").unwrap_or_default();
    let depth = here.matches('/').count();
    let root = if depth == 0 { "./".to_owned() } else { "../".repeat(depth) };
    (root, here.to_owned())
}

/// A cookie's value.
pub(super) fn cookie<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    let all = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    all.flat_map(|value| value.split(';')).find_map(|pair| pair.trim().strip_prefix(name)?.strip_prefix('='))
}

/// The name of the namespace whose console a visitor says to be in; the session itself is looked at there.
pub(crate) fn chosen(headers: &HeaderMap, is_open: bool) -> Option<&str> {
    if is_open {
        return cookie(headers, NAMESPACE);
    }
    cookie(headers, SESSION)?.split_once('.').map(|(name, _)| name)
}

/// The theme that the visitor has chosen.
pub(super) fn theme(headers: &HeaderMap) -> &'static str {
    match cookie(headers, THEME) {
        Some("light") => "light",
        Some("dark") => "dark",
        _ => "auto",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_way_to_the_root_fits_the_depth_of_the_page() {
        assert_eq!(place("/console/"), ("./".to_owned(), String::new()));
        assert_eq!(place("/console/sagas").0, "./");
        assert_eq!(place("/console/sagas/x").0, "../");
        assert_eq!(place("/console/sagas/x/retry").0, "../../");
    }

    #[test]
    fn a_cookie_is_found_among_others_and_by_its_whole_name() {
        let mut headers = HeaderMap::new();
        headers.insert(COOKIE, "a=1; amends_themes=x; amends_theme=dark".parse().expect("a header"));
        assert_eq!(cookie(&headers, "a"), Some("1"));
        assert_eq!(theme(&headers), "dark");
        assert_eq!(cookie(&headers, "b"), None);
    }
}
