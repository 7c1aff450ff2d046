//! The console by keyboard alone: every stop is seen, everything can be done.

use amends::id::SagaId;
use amends::message::{Envelope, Properties};

use crate::browser::{folder, on_stage};
use crate::stage::Stage;
use crate::webdriver::Browser;

pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";
const ESCAPE: &str = "\u{E00C}";
const SPACE: &str = "\u{E00D}";
const CONTROL: &str = "\u{E009}";

/// Everything that the Tab key should stop at, as far as it is shown.
const STOPS: &str = "[...document.querySelectorAll('a[href],button:not(:disabled),input:not([type=hidden]),select,textarea,summary,[tabindex=\"0\"]')]
    .filter(one => one.checkVisibility({ visibilityProperty: true }) && !one.closest('dialog:not([open])'))";

#[test]
fn tab_stops_at_everything_in_order_and_each_stop_is_seen() {
    on_stage(async |stage, browser| {
        let stuck = stage.own(2, 3);
        for page in [String::new(), "sagas?state=STUCK&error=mailbox-full".to_owned(), format!("sagas/{stuck}/retry")] {
            browser.open(&stage.url(&page)).await;
            browser.run(&format!("{STOPS}.forEach((one, at) => one.dataset.stop = at)")).await;
            let count = browser.run(&format!("return {STOPS}.length")).await.as_u64().expect("a number");
            assert!(count > 8, "{page}: {count} stops");
            browser.run("document.body.tabIndex = -1; document.body.focus()").await;
            for at in 0..count.min(60) {
                browser.keys(TAB).await;
                let told = browser
                    .run(
                        "const at = document.activeElement, look = getComputedStyle(at), box = at.getBoundingClientRect();
                         const chip = at.closest('.chip');
                         const seen = (chip ? getComputedStyle(chip) : look).outlineStyle !== 'none';
                         const inside = box.bottom > 0 && box.top < innerHeight;
                         return [at.dataset.stop, seen, inside, at.outerHTML.slice(0, 120)];",
                    )
                    .await;
                assert_eq!(told[0], at.to_string(), "{page}: stop {at} is {told}");
                assert!(told[1] == true && told[2] == true, "{page}: stop {at} is not seen: {told}");
            }
        }
    });
}

#[test]
fn skip_link_places_and_shortcuts_work() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url("")).await;
        browser.keys(TAB).await;
        assert_eq!(browser.run("return document.activeElement.className").await, "skip");
        browser.keys(ENTER).await;
        browser.until("the content has the focus", "return document.activeElement.id === 'main'").await;
        // The sheet of shortcuts takes the focus and gives it back.
        browser.run("document.querySelector('[data-keys]').focus()").await;
        browser.keys(ENTER).await;
        browser.until("the sheet is there", "return document.querySelector('#keys').open").await;
        browser.keys(&TAB.repeat(3)).await;
        let inside = "return document.querySelector('#keys').contains(document.activeElement) || document.activeElement === document.body";
        assert_eq!(browser.run(inside).await, true, "the focus stays in the sheet");
        browser.keys(ESCAPE).await;
        browser.until("the sheet is gone", "return !document.querySelector('#keys').open").await;
        assert_eq!(browser.run("return document.activeElement.matches('[data-keys]')").await, true);
        browser.keys("?").await;
        browser.until("the sheet is there", "return document.querySelector('#keys').open").await;
        browser.keys(ENTER).await;
        browser.until("the sheet is closed by its button", "return !document.querySelector('#keys').open").await;
        let places = browser
            .run("return [...document.querySelectorAll('[data-key]')].map(one => [one.dataset.key, one.href])")
            .await;
        let places = places.as_array().expect("a list").clone();
        assert!(places.len() >= 5, "{places:?}");
        for place in places {
            browser.run("document.body.dataset.left = 1").await;
            browser.keys(&format!("g{}", place[0].as_str().expect("a letter"))).await;
            let there = format!(
                "return location.href === {} && !document.body.dataset.left && document.readyState === 'complete'",
                place[1]
            );
            browser.until(&format!("{place} is there"), &there).await;
            let current = "return document.querySelector('nav [aria-current=page]')?.href === location.href";
            assert_eq!(browser.run(current).await, true, "{place} is marked as current");
        }
    });
}

#[test]
fn rows_are_walked_opened_and_selected_and_the_filter_is_left_by_keys() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url("sagas?state=STUCK")).await;
        browser.keys("/").await;
        browser.until("the filter has the focus", "return document.activeElement.name === 'key'").await;
        browser.keys("jk").await;
        assert_eq!(browser.run("return document.activeElement.value").await, "jk", "in a field letters are letters");
        browser.keys(ESCAPE).await;
        browser.keys("jjk").await;
        browser
            .until("the first row", "return document.querySelector('tr.at') === document.querySelector('tr[data-row]')")
            .await;
        browser.keys("xjx").await;
        let told = "return document.querySelector('[data-selected]').textContent";
        assert_eq!(browser.run(told).await, "2 selected");
        // All that are selected are looked at, and the way back is there.
        browser.run("document.querySelector('.selection button').focus()").await;
        browser.keys(SPACE).await;
        browser.until("the selection", "return location.pathname.endsWith('/selection')").await;
        assert!(browser.text().await.contains("2 sagas are selected"), "{}", browser.text().await);
        browser.open(&stage.url("sagas?state=STUCK")).await;
        browser.keys(&format!("j{ENTER}")).await;
        browser.until("the saga", "return !!document.querySelector('.reason.stuck')").await;
    });
}

/// Gives the reason on a page that asks for one, and confirms, by keys.
async fn confirm(browser: &Browser, page: &str, reason: &str) {
    browser.until(&format!("{page} asks for a reason"), "return document.activeElement.id === 'reason'").await;
    browser.keys(&format!("{reason}{TAB}{ENTER}")).await;
}

/// Asks for an action on its own page, with a reason, and confirms it, by keys.
async fn act(stage: &Stage, browser: &Browser, id: SagaId, word: &str) {
    browser.open(&stage.url(&format!("sagas/{id}/{word}"))).await;
    confirm(browser, word, "because the test says so").await;
    browser.until(&format!("{word} was asked for"), &format!("return location.search.includes('asked={word}')")).await;
}

#[test]
fn each_action_shows_what_it_will_do_takes_a_reason_and_is_told_on_the_sagas_page() {
    on_stage(async |stage, browser| {
        let (one, other) = (stage.filled.before_pivot[1], stage.filled.before_pivot[2]);
        let table = [
            (stage.own(0, 1), "retry", "not yet seen to work"),
            (stage.own(1, 1), "skip", "skip was asked for"),
            (stage.own(2, 1), "pause", "paused"),
            (stage.own(2, 1), "resume", "resume was asked for"),
            (one, "compensate", "COMPENSATING"),
            (other, "cancel", "COMPENSATING"),
            (stage.own(3, 1), "abandon", "ABANDONED"),
        ];
        for (id, word, told) in table {
            let page = stage.house.get(&format!("/console/sagas/{id}/{word}")).await.text;
            for part in ["Sent at once", "The same from the command line", &format!("amends sagas {word} {id}")] {
                assert!(page.contains(part), "{word} does not show {part}");
            }
            act(stage, browser, id, word).await;
            let text = browser.text().await;
            let is_told = text.contains(told) || text.contains("not yet seen to work");
            assert!(is_told && text.contains("because the test says so"), "{word}: {text}");
        }
        // What is not possible says why, on the button and on its page.
        let late = stage.filled.after_pivot[1];
        browser.open(&stage.url(&format!("sagas/{late}"))).await;
        browser.run("document.querySelector('.cannot summary').focus()").await;
        browser.keys(ENTER).await;
        let told = browser.run("return document.querySelector('.cannot').innerText").await;
        let told = told.as_str().expect("text");
        for word in ["Compensate", "Cancel", "only goes forward"] {
            assert!(told.contains(word), "{told}");
        }
        for word in ["compensate", "cancel"] {
            let answer = stage.house.get(&format!("/console/sagas/{late}/{word}")).await;
            assert_eq!(answer.status, 409, "{}", answer.text);
            assert!(answer.text.contains("only goes forward"), "{}", answer.text);
        }
        // And a saga can be moved to another version.
        act(stage, browser, stage.filled.before_pivot[3], "migrate").await;
        assert!(browser.text().await.contains("order v2"));
    });
}

#[test]
fn a_participant_is_paused_and_resumed_by_keys() {
    on_stage(async |_, browser| {
        // A house of its own: others send to this participant.
        let stage = Stage::editable(200, folder().join("paused")).await;
        for (word, told) in [("pause", true), ("resume", false)] {
            browser.open(&stage.url("participants/carrier")).await;
            let button = format!("document.querySelector('a.button[href$=\"participants/carrier/{word}\"]').focus()");
            browser.run(&button).await;
            browser.keys(ENTER).await;
            confirm(browser, word, "the lorry is mended").await;
            let there = format!(
                "return location.pathname.endsWith('participants/carrier') && document.readyState === 'complete'
                     && document.body.innerText.includes('the lorry is mended') === {told}"
            );
            browser.until(&format!("{word} is done"), &there).await;
        }
    });
}

#[test]
fn what_was_refused_is_edited_and_sent_again_by_keys() {
    on_stage(async |_, browser| {
        let stage = Stage::editable(1_000, folder().join("edited")).await;
        let id = stage.own(7, 0);
        browser.open(&stage.url(&format!("sagas/{id}"))).await;
        browser.run("document.querySelector('a.button[href$=\"/edit\"]').focus()").await;
        browser.keys(ENTER).await;
        browser.until("the input has the focus", "return document.activeElement.id === 'input'").await;
        let text = browser.run("return document.activeElement.value").await;
        let mut input: serde_json::Value = serde_json::from_str(text.as_str().expect("text")).expect("JSON");
        assert!(input["total"].is_number() && input["card"] == "hidden: marked sensitive", "{input}");
        input["total"] = 77.into();
        browser.chord(CONTROL, "a").await;
        browser.keys(&format!("{input}{TAB}{ENTER}")).await;
        browser.until("it is compared", "return !!document.querySelector('input[name=confirmed]')").await;
        let text = browser.text().await;
        assert!(text.contains("/total") && text.contains("77") && !text.contains("/card"), "{text}");
        confirm(browser, "the edit", "the new flat").await;
        browser.until("it is asked for", "return location.search.includes('asked=retry')").await;
        let text = browser.text().await;
        assert!(text.contains("the new flat"), "{text}");
        let record = stage.house.store.saga(id).await.expect("a read").expect("there");
        let sent = record.commands.iter().max_by_key(|entry| entry.id.seq.0).expect("a command");
        assert!(sent.body.value()["total"] == 77 && sent.body.text().contains("4242"), "{sent:?}");
    });
}

#[test]
fn dead_letters_are_selected_dropped_and_replayed_by_keys() {
    on_stage(async |_, browser| {
        let stage = Stage::editable(50, folder().join("dead")).await;
        let letters = (0..3).map(|at| Envelope {
            exchange: "amends.replies".to_owned(),
            routing_key: "amends.replies".to_owned(),
            mandatory: true,
            properties: Properties { message_id: Some(format!("m{at}")), ..Properties::default() },
            body: b"nonsense".to_vec(),
        });
        stage.house.broker.publish(letters.collect()).await;
        let ids = "[...document.querySelectorAll('.letters input[name=id]')].map(one => one.value).sort().join()";
        crate::support::eventually("all are buried", async || {
            browser.open(&stage.url("dead/amends.replies.dead")).await;
            (browser.run(&format!("return {ids}")).await == "m0,m1,m2").then_some(())
        })
        .await;
        browser.run("document.querySelector('.letters input[value=m1]').focus()").await;
        browser.keys(SPACE).await;
        browser.run("document.querySelector('.letters button.danger').focus()").await;
        browser.keys(ENTER).await;
        confirm(browser, "dropping", "garbage").await;
        browser.until("one is gone", &format!("return {ids} === 'm0,m2'")).await;
        // What is replayed and refused again comes back.
        browser.run("document.querySelector('.letters a.button:not(.danger)').focus()").await;
        browser.keys(ENTER).await;
        confirm(browser, "replaying", "once more").await;
        browser.until("it is told", "return location.pathname.endsWith('dead/amends.replies.dead')").await;
        let audit = stage.house.get("/v1/audit?action=dead-letter-replay").await.text;
        assert_eq!(audit.matches("once more").count(), 2, "{audit}");
    });
}

#[test]
fn messages_to_webhooks_are_tried_again_and_dropped_by_keys() {
    on_stage(async |_, browser| {
        let stage = Stage::editable(50, folder().join("webhooks")).await;
        let webhooks = stage.house.store.webhooks().expect("it keeps them");
        let [parked, other] = [0, 1].map(|at| stage.filled.untold[at]);
        browser.open(&stage.url("webhooks")).await;
        browser.run("document.querySelector('nav[aria-label=\"Which messages\"] a:last-child').focus()").await;
        browser.keys(ENTER).await;
        browser.until("only the parked", "return document.querySelectorAll('tbody tr').length === 1").await;
        let text = browser.text().await;
        assert!(text.contains("parked") && text.contains("<img src=x onerror=window.pwned=1>"), "{text}");
        assert_eq!(browser.run("return !!window.pwned").await, false);
        browser.run("document.querySelector('tbody a[href$=retry]').focus()").await;
        browser.keys(ENTER).await;
        confirm(browser, "another attempt", "it is up again").await;
        browser.until("it is on its way", "return location.pathname.endsWith('/webhooks')").await;
        let again = webhooks.delivery(parked).await.expect("a read").expect("there");
        assert!(again.due.is_some() && again.attempts == 0, "{again:?}");
        browser.run(&format!("document.querySelector('a[href*=\"{other}/drop\"]').focus()")).await;
        browser.keys(ENTER).await;
        confirm(browser, "dropping", "nobody reads it").await;
        browser.until("it is gone", "return document.querySelectorAll('tbody tr').length === 2").await;
        assert_eq!(webhooks.delivery(other).await.expect("a read"), None);
        let audit = stage.house.get("/v1/audit").await.text;
        assert!(audit.contains("it is up again") && audit.contains("nobody reads it"), "{audit}");
    });
}

#[test]
fn the_graph_is_walked_by_keys_and_each_card_leads_to_its_step() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url(&format!("sagas/{}", stage.own(2, 3)))).await;
        browser.run("document.querySelector('.graph').focus()").await;
        let steps = browser.run("return [...document.querySelectorAll('.steps tbody tr')].map(row => row.id)").await;
        let steps = steps.as_array().expect("a list").clone();
        assert!(steps.len() > 3, "{steps:?}");
        for step in &steps {
            browser.keys(TAB).await;
            let at = "return decodeURIComponent(document.activeElement.getAttribute('href').slice(1))";
            assert_eq!(browser.run(at).await, *step, "the next card");
            let words = browser.run("return document.activeElement.textContent.trim()").await;
            let name = step.as_str().and_then(|id| id.strip_prefix("step-")).expect("a name");
            assert!(words.as_str().is_some_and(|words| words.starts_with(&format!("{name}: "))), "{words}");
        }
        browser.keys(ENTER).await;
        let last = steps.last().and_then(|id| id.as_str()).expect("an id");
        let there = format!("return document.querySelector('tr:target')?.id === '{last}'");
        browser.until("its row is pointed at", &there).await;
    });
}
