//! The console in headless Chromium, on 10,000 sagas of which 300 are stuck in ten ways.

use std::path::PathBuf;
use std::time::Duration;

use amends::id::SagaId;

use crate::hostile::plant;
use crate::made::{self, ORDER};
use crate::support::http::{House, Served};
use crate::webdriver::{Browser, is_there};

const SAGAS: usize = 10_000;
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";
const ESCAPE: &str = "\u{E00C}";
/// How long the server may take for a page of the full house, on a busy machine.
const QUICK: Duration = Duration::from_secs(2);

struct Scene {
    house: House,
    served: Served,
    samples: Vec<(&'static str, SagaId)>,
    browser: Browser,
}

impl Scene {
    async fn new(count: usize) -> Self {
        let house = House::new().await;
        house.coordinator.register(ORDER, "test").await.expect("registered");
        let samples = made::fill(&*house.store, &made::definition(ORDER), count).await;
        let (_, served) = house.serve().await;
        let browser = Browser::start().await;
        browser.looks(1280, 900, "light").await;
        Self { house, served, samples, browser }
    }

    fn url(&self, page: &str) -> String {
        format!("{}/console/{page}", self.served.url)
    }

    async fn open(&self, page: &str) {
        self.browser.open(&self.url(page)).await;
    }

    /// The pages, with names for pictures.
    fn pages(&self) -> Vec<(&'static str, String)> {
        let stuck = self.samples[1].1;
        vec![
            ("home", String::new()),
            ("sagas", "sagas".to_owned()),
            ("sagas-stuck", "sagas?state=STUCK&error=timeout".to_owned()),
            ("sagas-none", "sagas?key=nobody".to_owned()),
            ("saga-stuck", format!("sagas/{stuck}")),
            ("saga-unknown", format!("sagas/{}?history=full", self.samples[6].1)),
            ("action-retry", format!("sagas/{stuck}/retry")),
            ("action-abandon", format!("sagas/{stuck}/abandon")),
            ("definitions", "definitions".to_owned()),
            ("definition", "definitions/order/1?advice=1".to_owned()),
            ("bulk", "bulk".to_owned()),
            ("dead", "dead".to_owned()),
            ("audit", "audit".to_owned()),
            ("missing", "sagas/nobody".to_owned()),
        ]
    }

    /// What the accessibility checker finds that is serious.
    async fn serious(&self) -> String {
        self.browser.run(include_str!("vendor/axe.min.js")).await;
        let found = self
            .browser
            .run_async(
                "const done = arguments[arguments.length - 1];
                 axe.run(document, { resultTypes: ['violations'] }).then(
                   found => done(found.violations.filter(one => ['serious', 'critical'].includes(one.impact))
                     .map(one => one.id + ': ' + one.nodes.slice(0, 3).map(node => node.target.join(' ') + ' ' + node.failureSummary).join(' | ')).join('\\n')),
                   error => done('' + error));",
            )
            .await;
        found.as_str().unwrap_or_default().to_owned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_page_and_action_works_in_a_browser_by_keyboard_alone() {
    if !is_there() {
        return;
    }
    let scene = Scene::new(SAGAS).await;
    let browser = &scene.browser;

    // Every page: quick, no wider than the window, and nothing serious for a screen reader, in light and dark.
    let mut findings = Vec::new();
    for (name, page) in scene.pages() {
        let watch = amends::clock::Stopwatch::start();
        let answer = scene.house.get(&format!("/console/{page}")).await;
        assert!(answer.status.as_u16() < 500 && watch.elapsed() < QUICK, "{name} took {:?}", watch.elapsed());
        for (width, scheme) in [(1280, "light"), (390, "dark")] {
            browser.looks(width, 900, scheme).await;
            scene.open(&page).await;
            let overflow = browser.run("return document.documentElement.scrollWidth - window.innerWidth").await;
            if overflow.as_i64().unwrap_or(1) > 0 {
                findings.push(format!("{name} at {width}: {overflow} px too wide"));
            }
            let serious = scene.serious().await;
            if !serious.is_empty() {
                findings.push(format!("{name} in {scheme}: {serious}"));
            }
        }
    }
    browser.looks(1280, 900, "light").await;

    // By keyboard: skip link, places, the sheet of shortcuts.
    scene.open("").await;
    browser.keys(TAB).await;
    assert_eq!(browser.run("return document.activeElement.className").await, "skip");
    browser.keys(ENTER).await;
    browser.until("the content has the focus", "return document.activeElement.id === 'main'").await;
    browser.keys("?").await;
    browser.until("the sheet is there", "return document.querySelector('#keys').open").await;
    browser.keys(ESCAPE).await;
    browser.until("the sheet is gone", "return !document.querySelector('#keys').open").await;
    browser.keys("gs").await;
    browser.until("the list is there", "return location.pathname.endsWith('/sagas')").await;

    // From the home page to the cure in three actions: the cause, the saga, retry.
    scene.open("").await;
    browser.keys("j").await;
    browser.keys(ENTER).await;
    browser.until("the list of one cause", "return location.search.includes('error=')").await;
    browser.keys("jx").await;
    browser
        .until("one is selected", "return document.querySelector('[data-selected]').textContent === '1 selected'")
        .await;
    browser.keys(ENTER).await;
    browser.until("the saga", "return !!document.querySelector('.reason.stuck')").await;

    // Each action that is possible is asked for, reasoned and done.
    for (at, (word, words)) in [
        ("retry", "not yet seen to work"),
        ("skip", "skip was asked for"),
        ("pause", "paused"),
        ("abandon", "ABANDONED"),
    ]
    .into_iter()
    .enumerate()
    {
        let id = scene.samples[at].1;
        scene.open(&format!("sagas/{id}/{word}")).await;
        browser.until("the reason has the focus", "return document.activeElement.id === 'reason'").await;
        browser.keys("because the test says so").await;
        browser.keys(TAB).await;
        browser.keys(ENTER).await;
        browser.until("it was asked for", "return location.search.includes('asked=')").await;
        let text = browser.text().await;
        let is_told = text.contains(words) || text.contains("not yet seen to work");
        assert!(is_told, "{word}: {text}");
    }
    scene.open(&format!("sagas/{}/resume", scene.samples[2].1)).await;
    browser.keys("on with it").await;
    browser.keys(TAB).await;
    browser.keys(ENTER).await;
    browser.until("it is resumed", "return location.search.includes('asked=resume')").await;
    let running = scene.house.get("/v1/sagas?state=RUNNING&limit=1").await.json();
    for word in ["compensate", "cancel"] {
        let id = running["items"][0]["id"].as_str().expect("an id");
        let answer = scene.house.get(&format!("/console/sagas/{id}/{word}")).await;
        assert_eq!(answer.status, 409, "past its pivot it only goes forward: {}", answer.text);
        assert!(answer.text.contains("only goes forward"));
    }

    // What changes elsewhere comes by itself, unless updates are paused.
    let id = scene.samples[4].1;
    scene.open(&format!("sagas/{id}")).await;
    let reason = serde_json::json!({ "reason": "from elsewhere" });
    assert_eq!(scene.house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
    browser.until("the page has heard of it", "return !!document.querySelector('.states .badge.paused')").await;
    browser.keys("p").await;
    assert_eq!(scene.house.post(&format!("/v1/sagas/{id}/resume"), &reason).await.status, 200);
    assert_eq!(browser.run("return document.querySelector('[data-pause]').textContent").await, "Resume updates");
    assert_eq!(browser.run("return !!document.querySelector('.states .badge.paused')").await, true);
    browser.keys("p").await;
    browser.until("it goes on", "return !document.querySelector('.states .badge.paused')").await;

    // The theme has a switch.
    browser.run("document.querySelector('.theme button').click()").await;
    browser.until("it is dark", "return document.documentElement.dataset.theme === 'dark'").await;
    assert!(browser.url().await.contains(&id.to_string()), "on the same page");

    // Hostile payloads run nothing.
    for id in plant(&scene.house).await {
        for page in [format!("sagas/{id}?history=full"), format!("sagas/{id}/retry")] {
            scene.open(&page).await;
            assert_eq!(browser.run("return window.pwned === undefined").await, true, "{page}");
        }
    }
    for page in ["", "sagas", "audit"] {
        scene.open(page).await;
        assert_eq!(browser.run("return window.pwned === undefined").await, true, "{page}");
    }
    // Last, so that one finding does not hide the others.
    assert!(findings.is_empty(), "{}", findings.join("\n"));
    scene.browser.close().await;
}

/// `AMENDS_SCREENSHOTS=folder ./test console_screenshots` pictures every page, in light and dark, wide and narrow.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn console_screenshots() {
    let Some(folder) = std::env::var_os("AMENDS_SCREENSHOTS").map(PathBuf::from).filter(|_| is_there()) else { return };
    std::fs::create_dir_all(&folder).expect("the folder is made");
    let scene = Scene::new(SAGAS).await;
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (390, "light")] {
        scene.browser.looks(width, 900, scheme).await;
        for (name, page) in scene.pages() {
            scene.open(&page).await;
            let picture = scene.browser.picture().await;
            std::fs::write(folder.join(format!("{name}-{width}-{scheme}.png")), picture).expect("it is written");
        }
    }
    scene.browser.close().await;
}
