//! Pictures of every page of the console, in light and dark, wide and narrow, to be looked at:
//!
//! ```sh
//! cargo run --example console_shots -- [FOLDER] [PAGE...]
//! ```
//!
//! The folder is `target/console-shots` unless another is named; with names of pages (`home`, `saga-stuck`, ...) only those
//! are made. The house is the one of the console's tests: 10,000 sagas, 300 of them stuck in ten ways. Chromium and
//! chromedriver must be installed.
#![allow(dead_code, reason = "the tests of the console need more of it")]

use std::path::PathBuf;

#[path = "../tests/support/http.rs"]
mod http;
#[path = "../tests/console/made.rs"]
mod made;
#[path = "../tests/console/stage.rs"]
mod stage;
#[path = "../tests/console/webdriver.rs"]
mod webdriver;

mod support {
    pub(crate) use super::http;

    /// Polls until `condition` gives something.
    pub async fn eventually<T>(what: &str, mut condition: impl AsyncFnMut() -> Option<T>) -> T {
        for _ in 0..500 {
            if let Some(found) = condition().await {
                return found;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("in vain: {what}");
    }
}

/// Widths with colour schemes.
const LOOKS: [(u32, &str); 4] = [(1280, "light"), (1280, "dark"), (390, "light"), (390, "dark")];

#[tokio::main]
async fn main() -> std::io::Result<()> {
    let mut words = std::env::args().skip(1);
    let folder = words.next().map_or_else(|| PathBuf::from("target/console-shots"), PathBuf::from);
    let wanted: Vec<String> = words.collect();
    std::fs::create_dir_all(&folder)?;
    let store = std::env::temp_dir().join(format!("amends-console-shots-{}", std::process::id()));
    let stage = stage::Stage::new(stage::SAGAS, store.clone()).await;
    webdriver::Browser::with(async |browser| {
        for (width, scheme) in LOOKS {
            browser.looks(width, 900, scheme).await;
            for (name, page) in stage::pages(&stage.filled) {
                if !wanted.is_empty() && !wanted.iter().any(|wanted| wanted == name) {
                    continue;
                }
                browser.open(&stage.url(&page)).await;
                let file = folder.join(format!("{name}-{width}-{scheme}.png"));
                std::fs::write(&file, browser.picture().await)?;
            }
        }
        std::io::Result::Ok(())
    })
    .await?;
    std::fs::remove_dir_all(store)?;
    println!("the pictures are in {}", folder.display());
    Ok(())
}
