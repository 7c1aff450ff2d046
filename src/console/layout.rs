//! What all pages have in common.

use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use crate::console::assets::{ICON, SCRIPT, STYLE};
use crate::console::failure::Failure;
use crate::console::visit::Visit;

/// A page, ready to be sent.
pub(super) struct Page(Markup);

impl IntoResponse for Page {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "text/html; charset=utf-8")], self.0.into_string()).into_response()
    }
}

/// The pages that the navigation leads to: address, name, shortcut.
const PLACES: [(&str, &str, &str); 7] = [
    ("", "Home", "h"),
    ("sagas", "Sagas", "s"),
    ("bulk", "Bulk", "b"),
    ("definitions", "Definitions", "d"),
    ("dead", "Dead letters", "l"),
    ("webhooks", "Webhooks", "w"),
    ("audit", "Audit", "a"),
];

/// The shortcuts besides those of the navigation.
const KEYS: [(&str, &str); 9] = [
    ("?", "this sheet"),
    ("/", "the first field of the filter"),
    ("j / k", "the next or the previous row"),
    ("Enter", "open the row"),
    ("x", "select the row"),
    ("t", "times as ages, local or UTC"),
    ("p", "pause or go on with live updates"),
    ("u", "updates at once, every 30 s, or every 5 min"),
    ("Esc", "close this sheet, leave a field"),
];

/// The whole page around `body`.
pub(super) fn page(visit: &Visit, title: &str, body: Markup) -> Page {
    let section = visit.here.split(['/', '?']).next().unwrap_or_default();
    Page(html! {
        (DOCTYPE)
        html lang="en" data-theme=(visit.theme) {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content=(if visit.theme == "auto" { "light dark" } else { visit.theme });
                title { (title) " · amends" }
                link rel="icon" type="image/svg+xml" href=(visit.to(&format!("assets/{}", ICON.name)));
                link rel="stylesheet" href=(visit.to(&format!("assets/{}", STYLE.name)));
                script src=(visit.to(&format!("assets/{}", SCRIPT.name))) defer {}
            }
            body data-root=(visit.root) {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    a.brand href=(visit.to("")) { (mark()) span { "amends" } }
                    @if visit.is_in { (navigation(visit, section)) }
                    div.tools {
                        @if visit.is_in {
                            button.quiet type="button" data-times hidden title="Ages, local time or UTC (t)" { "Times: ages" }
                            button.quiet type="button" data-rate hidden title="How often this page is brought up to date (u)" { "Updates: at once" }
                            button.quiet type="button" data-pause hidden { "Pause updates" }
                            button.quiet.icon type="button" data-keys hidden aria-label="Keyboard shortcuts" title="Keyboard shortcuts (?)" { "?" }
                        }
                        @if visit.namespaces.len() > 1 { (namespace_switch(visit)) }
                        @else if visit.is_in && !visit.namespace.is_default() { span.soft { "Namespace " (visit.namespace) } }
                        (theme_switch(visit))
                        @if visit.role.is_some() { (leave(visit)) }
                    }
                }
                main #main tabindex="-1" { (body) }
                @if visit.is_in {
                    div.announce #announce role="status" aria-live="polite" {}
                    (sheet())
                }
            }
        }
    })
}

fn mark() -> Markup {
    html! {
        svg viewBox="0 0 32 32" width="24" height="24" aria-hidden="true" focusable="false" {
            rect.mark width="32" height="32" rx="8" {}
            path.mark-line d="M12 8l-5 5 5 5M7 13h11a5.5 5.5 0 0 1 0 11h-6" {}
        }
    }
}

fn navigation(visit: &Visit, section: &str) -> Markup {
    html! {
        nav aria-label="Console" {
            ul {
                @for (address, name, key) in PLACES {
                    li {
                        a href=(visit.to(address)) data-key=(key) aria-current=[(section == address).then_some("page")] { (name) }
                    }
                }
            }
        }
    }
}

/// Works without scripts: a choice and a button.
fn namespace_switch(visit: &Visit) -> Markup {
    html! {
        form.namespace method="post" action=(visit.to("namespace")) {
            input type="hidden" name="csrf" value=(visit.csrf);
            label.unseen for="namespace" { "Namespace" }
            select #namespace name="namespace" {
                @for namespace in &visit.namespaces {
                    option value=(namespace) selected[*namespace == visit.namespace] { (namespace) }
                }
            }
            button.quiet { "Change" }
        }
    }
}

fn theme_switch(visit: &Visit) -> Markup {
    let (next, words) = match visit.theme {
        "auto" => ("dark", "Theme: as the system"),
        "dark" => ("light", "Theme: dark"),
        _ => ("auto", "Theme: light"),
    };
    let icon = match visit.theme {
        "auto" => "M8 2a6 6 0 1 0 0 12A6 6 0 1 0 8 2ZM8 2v12",
        "dark" => "M13 9.5A5.5 5.5 0 1 1 6.5 3 4.500 4.500 0 0 0 13 9.500Z",
        _ => {
            "M8 5a3 3 0 1 0 0 6 3 3 0 1 0 0-6ZM8 1v1.500M8 13.500V15M1 8h1.500M13.500 8H15M3 3l1 1M12 12l1 1M13 3l-1 1M4 12l-1 1"
        }
    };
    html! {
        form.theme method="post" action=(visit.to("theme")) {
            input type="hidden" name="csrf" value=(visit.csrf);
            input type="hidden" name="back" value=(visit.here);
            button.quiet.icon name="theme" value=(next) aria-label={ (words) "; change to " (next) } title=(words) {
                svg.line viewBox="0 0 16 16" width="16" height="16" aria-hidden="true" focusable="false" { path d=(icon) {} }
            }
        }
    }
}

fn leave(visit: &Visit) -> Markup {
    html! {
        form.leave method="post" action=(visit.to("logout")) {
            input type="hidden" name="csrf" value=(visit.csrf);
            span.who title=(visit.role.map_or("", crate::api::Role::as_str)) { (visit.name) }
            button.quiet { "Log out" }
        }
    }
}

fn sheet() -> Markup {
    html! {
        dialog #keys aria-labelledby="keys-title" {
            h2 #keys-title { "Keyboard shortcuts" }
            dl {
                @for (_, name, key) in PLACES {
                    div { dt { kbd { "g" } " " kbd { (key) } } dd { (name) } }
                }
                @for (key, what) in KEYS {
                    div { dt { kbd { (key) } } dd { (what) } }
                }
            }
            form method="dialog" { button { "Close" } }
        }
    }
}

/// A failure as a page.
pub(super) fn failed(visit: &Visit, failure: Failure) -> Response {
    let body = html! {
        div.message role="alert" {
            p.code { (failure.status.as_u16()) }
            h1 { (failure.title) }
            p { (failure.detail) }
            p.buttons {
                @if let Some((page, words)) = &failure.back { a.button.primary href=(visit.to(page)) { (words) } }
                @else if visit.is_in { a.button href=(visit.to("")) { "Home" } }
                @else { a.button.primary href=(visit.to("login")) { "Log in" } }
            }
        }
    };
    (failure.status, page(visit, &failure.title, body)).into_response()
}

/// Nothing to show, and why.
pub(super) fn empty(title: &str, why: &str) -> Markup {
    html! { div.empty { p.empty-title { (title) } p { (why) } } }
}
