//! From a stuck saga's alert to its cure in at most three actions, in a browser, for each of the ten ways.

use std::cell::Cell;

use serde_json::json;

use crate::support::ways::{Cure, Stuck, Way, ways};
use crate::webdriver::{Browser, is_there};

/// Actions that one may take: choices of a link, and forms that are sent.
const MOST: usize = 3;

struct Hands<'b> {
    browser: &'b Browser,
    actions: Cell<usize>,
}

impl Hands<'_> {
    /// Clicks what is there and can be seen, and waits for the page that it leads to.
    async fn choose(&self, selector: &str) {
        let found = format!(
            "const one = document.querySelector({}); return !!one && one.checkVisibility() && !one.disabled",
            json!(selector)
        );
        self.browser.until(&format!("`{selector}` is there"), &found).await;
        self.browser
            .run(&format!("document.body.dataset.left = 1; document.querySelector({}).click()", json!(selector)))
            .await;
        self.browser
            .until("the next page", "return !document.body.dataset.left && document.readyState === 'complete'")
            .await;
        self.actions.set(self.actions.get() + 1);
    }
}

/// From `page` of the console to the cure. Gives the number of actions.
async fn cure(stuck: &Stuck, way: &Way, browser: &Browser, page: &str) -> usize {
    let hands = Hands { browser, actions: Cell::new(0) };
    browser.open(page).await;
    if !page.contains("state=STUCK") {
        hands.choose(&format!("a.count-link[href*='saga={}&']", way.saga)).await;
    }
    // The service is mended, or its definition is, by those who look after it.
    let word = match &way.cure {
        Cure::Retry => {
            stuck.mend(way.saga);
            "retry"
        }
        Cure::Skip => "skip",
        Cure::Migrate(mended) => {
            stuck.mend(way.saga);
            stuck.house.coordinator.register(mended, "its owner").await.expect("registered");
            browser.open(&browser.url().await).await;
            "migrate"
        }
    };
    let id = &stuck.ids[way.saga];
    hands.choose(&format!("tr[data-id='{id}'] a[href$='/{id}/{word}']")).await;
    browser.until("the reason has the focus", "return document.activeElement.id === 'reason'").await;
    browser.keys("ticket 123").await;
    hands.choose("form.ask button").await;
    browser.until(&format!("{}: it is done", way.name), "return !!document.querySelector('.note.good')").await;
    let ended = format!("return document.querySelector('.states .badge').textContent === '{}'", way.ends);
    browser.until(&format!("{}: it is {}", way.name, way.ends), &ended).await;
    hands.actions.get()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_way_of_being_stuck_is_cured_from_the_home_page_with_three_actions() {
    if !is_there() {
        return;
    }
    let ways = ways();
    let stuck = Stuck::in_ways(&ways).await;
    let (_, served) = stuck.house.serve().await;
    Browser::with(async |browser| {
        for way in &ways {
            let actions = cure(&stuck, way, browser, &format!("{}/console/", served.url)).await;
            assert!(actions <= MOST, "{}: {actions} actions", way.name);
        }
        browser.open(&format!("{}/console/", served.url)).await;
        assert!(browser.text().await.contains("Nothing is stuck"), "{}", browser.text().await);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_the_link_of_an_alert_it_is_one_action_less() {
    if !is_there() {
        return;
    }
    let ways: Vec<Way> = ways().into_iter().filter(|way| way.saga == "one").collect();
    let stuck = Stuck::in_ways(&ways).await;
    let (_, served) = stuck.house.serve().await;
    let alert = format!("{}/console/sagas?state=STUCK&saga=one", served.url);
    let actions = Browser::with(async |browser| cure(&stuck, &ways[0], browser, &alert).await).await;
    assert_eq!(actions, MOST - 1);
}
