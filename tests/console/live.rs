//! Pages in a browser that follow what changes elsewhere.

use serde_json::json;

use crate::browser::on_stage;

const PAUSED: &str = "return !!document.querySelector('.states .badge.paused')";

#[test]
fn what_changes_elsewhere_comes_by_itself_unless_updates_are_paused() {
    on_stage(async |stage, browser| {
        let id = stage.own(4, 1);
        let reason = json!({ "reason": "from elsewhere" });
        browser.open(&stage.url(&format!("sagas/{id}"))).await;
        assert_eq!(stage.house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
        browser.until("the page has heard of it", PAUSED).await;
        assert!(
            browser.run("return document.querySelector('#announce').textContent").await.to_string().contains("changed")
        );
        browser.keys("p").await;
        assert_eq!(browser.run("return document.querySelector('[data-pause]').textContent").await, "Resume updates");
        assert_eq!(stage.house.post(&format!("/v1/sagas/{id}/resume"), &reason).await.status, 200);
        assert_eq!(browser.run(PAUSED).await, true);
        browser.keys("p").await;
        browser.until("it goes on", "return !document.querySelector('.states .badge.paused')").await;
    });
}

#[test]
fn a_row_that_has_changed_is_replaced_and_the_others_are_left_alone() {
    on_stage(async |stage, browser| {
        // Other tests change others of the list meanwhile.
        let (id, other) = (stage.own(4, 2), stage.own(4, 4));
        browser.open(&stage.url("sagas?state=STUCK&error=timeout&at=1")).await;
        let are_there =
            format!("return ['{id}', '{other}'].every(id => document.querySelector(`[data-id=\"${{id}}\"]`))");
        browser.until("the rows are there", &are_there).await;
        browser.run("document.querySelectorAll('tr[data-row]').forEach(row => row.dataset.old = 1)").await;
        let checked = format!("document.querySelector('[data-id=\"{id}\"] input').click()");
        browser.run(&checked).await;
        let reason = json!({ "reason": "from elsewhere" });
        assert_eq!(stage.house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
        let changed = format!(
            "const row = document.querySelector('[data-id=\"{id}\"]'); return !row.dataset.old && !!row.querySelector('.paused')"
        );
        browser.until("the row has changed", &changed).await;
        let told = browser
            .run(&format!(
                "return [document.querySelector('[data-id=\"{other}\"]').dataset.old, document.querySelector('[data-id=\"{id}\"] input').checked]"
            ))
            .await;
        assert_eq!(told, json!(["1", true]), "the other row is the same, and the new one still selected");
    });
}

#[test]
fn where_streams_do_not_get_through_the_page_asks_instead() {
    on_stage(async |stage, browser| {
        browser.before_every_page("delete window.EventSource").await;
        let id = stage.own(4, 3);
        browser.open(&stage.url(&format!("sagas/{id}"))).await;
        assert_eq!(browser.run("return 'EventSource' in window").await, false);
        let reason = json!({ "reason": "from elsewhere" });
        assert_eq!(stage.house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
        browser.until("the page has heard of it", PAUSED).await;
    });
}

#[test]
fn how_often_a_page_is_brought_up_to_date_is_chosen_and_kept() {
    on_stage(async |stage, browser| {
        // Streams are counted, and half a minute is short.
        browser
            .before_every_page(
                "window.streams = 0;
                 window.EventSource = class extends EventSource { constructor(url) { super(url); window.streams += 1; } };
                 const beat = window.setInterval;
                 window.setInterval = (work, every) => beat(work, every === 30000 ? 50 : every);",
            )
            .await;
        let id = stage.own(4, 5);
        let page = stage.url(&format!("sagas/{id}"));
        browser.open(&page).await;
        browser.until("it listens to a stream", "return window.streams === 1").await;
        let told = "return document.querySelector('[data-rate]').textContent";
        assert_eq!(browser.run(told).await, "Updates: at once");
        browser.keys("u").await;
        assert_eq!(browser.run(told).await, "Updates: every 30 s");
        browser.open(&page).await;
        assert_eq!(browser.run(told).await, "Updates: every 30 s", "it is kept");
        let reason = json!({ "reason": "from elsewhere" });
        assert_eq!(stage.house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
        browser.until("the page has looked", PAUSED).await;
        assert_eq!(browser.run("return window.streams").await, 0);
        browser.keys("uu").await;
        assert_eq!(browser.run(told).await, "Updates: at once");
        browser.until("it listens again", "return window.streams === 1").await;
    });
}
