//! The operators' console: its pages as text, and in a real browser.

#[path = "../support/mod.rs"]
mod support;

mod browser;
mod cross_site;
mod cure;
mod hostile;
mod made;
mod operate;
mod pages;
mod walk;
mod webdriver;
