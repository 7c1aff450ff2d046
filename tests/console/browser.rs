//! The console in headless Chromium, on 10,000 sagas of which 300 are stuck in ten ways.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;
use std::time::Duration;

use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::hostile::plant;
use crate::made::ways;
use crate::stage::{SAGAS, Stage, pages};
use crate::webdriver::{Browser, is_there};

/// How long the server may take for a page of the full house, on a busy machine.
const QUICK: Duration = Duration::from_secs(4);
/// Rows and bytes that a page may have, whatever is in the house.
const ROWS: u64 = 260;
const BYTES: usize = 400_000;

/// One house for all tests in a browser: it is made once, and lives in a runtime of its own.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads to run on"));
static STAGE: OnceCell<Stage> = OnceCell::const_new();

/// Runs a test in a browser of its own on the one house. What it changes there no other test may go by.
pub fn on_stage(test: impl AsyncFnOnce(&Stage, &Browser)) {
    if !is_there() {
        return;
    }
    RUNTIME.block_on(async {
        let stage = STAGE.get_or_init(async || Stage::new(SAGAS, folder()).await).await;
        Browser::with(async |browser| {
            browser.looks(1280, 900, "light").await;
            test(stage, browser).await;
        })
        .await;
    });
}

/// Below the target folder; those of earlier runs are taken away.
pub fn folder() -> std::path::PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).join("console");
    let hour = Duration::from_secs(3_600);
    for entry in std::fs::read_dir(&all).into_iter().flatten().flatten() {
        let modified = entry.metadata().and_then(|known| known.modified());
        if modified.is_ok_and(|at| at.elapsed().is_ok_and(|age| age > hour)) {
            // Another run may be faster.
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
    all.join(std::process::id().to_string())
}

/// What the accessibility checker finds that is serious.
async fn serious(browser: &Browser) -> String {
    browser.run(include_str!("vendor/axe.min.js")).await;
    let found = browser
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

#[test]
fn every_page_fits_wide_and_narrow_and_is_accessible_in_light_and_dark() {
    on_stage(async |stage, browser| {
        let mut findings = Vec::new();
        for (width, scheme) in [(1280, "light"), (390, "dark")] {
            browser.looks(width, 900, scheme).await;
            for (name, page) in pages(&stage.filled) {
                browser.open(&stage.url(&page)).await;
                let overflow = browser.run("return document.documentElement.scrollWidth - window.innerWidth").await;
                if overflow.as_i64().unwrap_or(1) > 0 {
                    findings.push(format!("{name} at {width}: {overflow} px too wide"));
                }
                let serious = serious(browser).await;
                if !serious.is_empty() {
                    findings.push(format!("{name} in {scheme}: {serious}"));
                }
            }
        }
        assert!(findings.is_empty(), "{}", findings.join("\n"));
    });
}

#[test]
fn every_page_is_bounded_in_rows_size_and_time() {
    on_stage(async |stage, _| {
        for (name, page) in pages(&stage.filled) {
            let watch = amends::clock::Stopwatch::start();
            let answer = stage.house.get(&format!("/console/{page}")).await;
            assert!(answer.status.as_u16() < 500 && watch.elapsed() < QUICK, "{name} took {:?}", watch.elapsed());
            let rows = answer.text.matches("<tr").count() as u64;
            assert!(rows <= ROWS && answer.text.len() <= BYTES, "{name}: {rows} rows, {} bytes", answer.text.len());
        }
    });
}

/// The sagas that a page lists.
async fn listed(browser: &Browser) -> Vec<String> {
    let ids = browser.run("return [...document.querySelectorAll('tr[data-row]')].map(row => row.dataset.id)").await;
    ids.as_array().expect("a list").iter().map(|id| id.as_str().expect("an id").to_owned()).collect()
}

#[test]
fn a_cause_on_the_home_page_leads_to_exactly_its_sagas() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url("")).await;
        let links = "return [...document.querySelectorAll('.count-link')].map(one => [one.textContent, one.href])";
        let causes = browser.run(links).await;
        let causes = causes.as_array().expect("a list").clone();
        assert_eq!(causes.len(), ways().len(), "{causes:?}");
        let mut seen = BTreeSet::new();
        for cause in causes {
            browser.open(cause[1].as_str().expect("an address")).await;
            let ids = listed(browser).await;
            assert!(!ids.is_empty() && ids.len() <= 40, "{cause}");
            let states = "return [...document.querySelectorAll('tr[data-row] .badge')].every(one => ['STUCK', 'paused'].includes(one.textContent))";
            assert_eq!(browser.run(states).await, true, "{cause}");
            for id in ids {
                assert!(seen.insert(id.clone()), "{id} has two causes");
            }
        }
        assert!(seen.len() > 250, "{}", seen.len());
    });
}

#[test]
fn pages_of_a_list_are_turned_to_the_end_and_have_every_saga_once() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url("sagas?state=STUCK&saga=order")).await;
        let (mut seen, mut turned) = (BTreeSet::new(), 0);
        loop {
            let ids = listed(browser).await;
            assert!(ids.len() <= 50, "{}", ids.len());
            seen.extend(ids);
            let older = "const older = document.querySelector('a[rel=next]'); return older ? older.href : null";
            let Some(older) = browser.run(older).await.as_str().map(str::to_owned) else { break };
            browser.run("document.querySelector('a[rel=next]').click()").await;
            browser
                .until(
                    "the next page",
                    &format!("return location.href === '{older}' && document.readyState === 'complete'"),
                )
                .await;
            turned += 1;
        }
        // Some are being cured by other tests.
        assert!(turned >= 5 && (270..=300).contains(&seen.len()), "{turned} pages, {} sagas", seen.len());
    });
}

#[test]
fn filters_are_put_together_stand_in_the_address_and_are_completed() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url("sagas")).await;
        browser
            .run(
                "document.querySelector('input[name=state][value=STUCK]').click();
                 document.querySelector('select[name=saga]').value = 'order';
                 document.querySelector('.more').open = true;
                 document.querySelector('input[name=error]').value = 'mailbox-full';
                 document.querySelector('input[name=field]').value = 'note.gift=true';
                 document.querySelector('.filters button.primary').click();",
            )
            .await;
        browser
            .until(
                "it is filtered",
                "return location.search.includes('mailbox-full') && document.readyState === 'complete'",
            )
            .await;
        let ids = listed(browser).await;
        assert!(!ids.is_empty() && ids.len() < 30, "{ids:?}");
        let text = browser.text().await;
        assert!(text.contains("mailbox-full") && !text.contains("address-unknown"), "{text}");
        let kept = "return [document.querySelector('input[name=state][value=STUCK]').checked,
            document.querySelector('input[name=error]').value, document.querySelector('.more').open]";
        assert_eq!(
            browser.run(kept).await,
            serde_json::json!([true, "mailbox-full", true]),
            "the form shows the filter"
        );
        let url = browser.url().await;
        browser.open(&url).await;
        assert_eq!(listed(browser).await, ids, "the address alone gives the same");
        let offered =
            "return [...document.querySelectorAll('#known-error option, #known-field option')].map(one => one.value)";
        let offered = browser.run(offered).await.to_string();
        assert!(offered.contains("mailbox-full") && offered.contains("order="), "{offered}");
        assert!(!offered.contains("card"), "what is sensitive is not offered: {offered}");
    });
}

#[test]
fn a_view_is_saved_by_name_found_again_and_forgotten() {
    on_stage(async |stage, browser| {
        browser.open(&stage.url("sagas?state=STUCK&error=timeout")).await;
        browser.run("document.querySelector('[data-save-view]').click()").await;
        browser
            .until(
                "it asks for a name",
                "return document.querySelector('#save-view').open && document.activeElement.name === 'view'",
            )
            .await;
        browser.keys("Silent ones\u{E007}").await;
        browser
            .until("it is kept", "return document.querySelector('[data-views] a')?.textContent === 'Silent ones'")
            .await;
        browser.open(&stage.url("sagas")).await;
        browser.run("document.querySelector('[data-views] a').click()").await;
        browser.until("the view is there", "return location.search === '?state=STUCK&error=timeout'").await;
        browser
            .until(
                "it is marked",
                "return document.querySelector('[data-views] a')?.getAttribute('aria-current') === 'true'",
            )
            .await;
        browser.run("document.querySelector('[data-save-view]').click()").await;
        browser.until("it is forgotten", "return !document.querySelector('[data-views] a')").await;
    });
}

#[test]
fn theme_and_times_are_switched_and_stay_so() {
    on_stage(async |stage, browser| {
        let page = format!("sagas/{}", stage.own(5, 2));
        browser.open(&stage.url(&page)).await;
        for theme in ["dark", "light", "auto"] {
            browser.run("document.querySelector('.theme button').click()").await;
            browser.until(theme, &format!("return document.documentElement.dataset.theme === '{theme}'")).await;
            assert!(browser.url().await.ends_with(&page), "on the same page");
        }
        let first = "return document.querySelector('.facts time').textContent";
        assert!(browser.run(first).await.as_str().expect("text").ends_with(" ago"));
        browser.keys("t").await;
        browser.keys("t").await;
        let exact = "const time = document.querySelector('.facts time'); return time.dateTime.startsWith(time.textContent.replace(' ', 'T'))";
        browser.until("times are told in UTC", exact).await;
        browser.open(&stage.url(&page)).await;
        browser.until("and are still", exact).await;
        browser.keys("t").await;
        browser.until("ages again", &format!("{first}.endsWith(' ago')")).await;
    });
}

#[test]
fn it_works_below_the_path_that_a_proxy_gives() {
    on_stage(async |stage, browser| {
        let router = axum::Router::new().nest("/ops/amends", stage.house.router.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/ops/amends/console/", listener.local_addr().expect("an address"));
        let stop = tokio_util::sync::CancellationToken::new();
        let task = tokio::spawn(amends::api::serve(listener, router, stop.clone()));
        browser.open(&url).await;
        browser.keys("gs").await;
        browser.until("the list", &format!("return location.href === '{url}sagas'")).await;
        let id = stage.own(6, 2);
        browser.open(&format!("{url}sagas/{id}")).await;
        assert_eq!(
            browser.run("return getComputedStyle(document.querySelector('.top')).display").await,
            "flex",
            "styled"
        );
        let reason = serde_json::json!({ "reason": "from elsewhere" });
        assert_eq!(stage.house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
        browser.until("the page has heard of it", "return !!document.querySelector('.states .badge.paused')").await;
        browser.open(&format!("{url}sagas/{id}/resume")).await;
        browser.keys("on with it\u{E004}\u{E007}").await;
        browser
            .until("it is resumed", &format!("return location.href.startsWith('{url}sagas/{id}?asked=resume')"))
            .await;
        stop.cancel();
        task.await.expect("no panic").expect("it ends");
    });
}

#[test]
fn hostile_payloads_run_nothing_on_any_page() {
    on_stage(async |_, browser| {
        // A house of its own: what is planted would be causes on the home page of the others.
        let stage = Stage::new(400, folder().join("hostile")).await;
        let hostile = plant(&stage.house).await;
        let mut all: Vec<String> = pages(&stage.filled).into_iter().map(|(_, page)| page).collect();
        for id in hostile {
            all.extend([format!("sagas/{id}?history=full&sequence=1"), format!("sagas/{id}/retry")]);
        }
        for page in all {
            browser.open(&stage.url(&page)).await;
            assert_eq!(browser.run("return window.pwned === undefined").await, true, "{page}");
        }
    });
}
