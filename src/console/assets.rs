//! What pages load besides themselves. Each file is named by its content, so that browsers may keep it for good.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use sha2::{Digest, Sha256};

use crate::console::failure::Failure;
use crate::picture::Picture;

/// A file.
pub(super) struct Asset {
    /// Its name with its content's hash in it.
    pub(super) name: String,
    kind: &'static str,
    text: String,
}

/// The style sheet, that of drawings included.
pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let [shared, light, dark] = Picture::page_style();
    let text = format!(
        "{}\n.graph{{{shared}{light}}}\n:root[data-theme=dark] .graph{{{dark}}}\n\
         @media(prefers-color-scheme:dark){{:root[data-theme=auto] .graph{{{dark}}}}}\n",
        include_str!("assets/console.css")
    );
    Asset::new("console", "css", "text/css; charset=utf-8", text)
});

/// The script.
pub(super) static SCRIPT: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new("console", "js", "text/javascript; charset=utf-8", include_str!("assets/console.js").to_owned())
});

/// The icon.
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("icon", "svg", "image/svg+xml", include_str!("assets/icon.svg").to_owned()));

impl Asset {
    fn new(stem: &str, end: &str, kind: &'static str, text: String) -> Self {
        let hash = hex::encode(Sha256::digest(&text));
        let name = format!("{stem}-{}.{end}", hash.get(..12).unwrap_or_default());
        Self { name, kind, text }
    }
}

pub(super) async fn serve(Path(file): Path<String>) -> Result<Response, Failure> {
    let all: [&Asset; 3] = [&STYLE, &SCRIPT, &ICON];
    let Some(asset) = all.into_iter().find(|asset| asset.name == file) else {
        return Err(Failure::missing(
            "There is no such file",
            "The program may have been replaced: load the page again.",
        ));
    };
    let headers = [(CONTENT_TYPE, asset.kind), (CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, asset.text.clone()).into_response())
}
