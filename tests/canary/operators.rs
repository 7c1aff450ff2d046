//! A saga that is stuck, what operators look at and do about it, and all that is told and kept of that.

use std::io::Read;

use amends::message::{Envelope, HeaderValue, Properties};
use serde_json::{Value, json};

use crate::support::eventually;
use crate::{ALL, CAGE, CARD, EDITED, HOOK, SENT, Site, TOKEN, found, nothing_in};

impl Site {
    async fn until(&self, what: &str, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        eventually(what, async || {
            let value: Value = serde_json::from_str(&self.get(path).await).ok()?;
            holds(&value).then_some(value)
        })
        .await
    }

    /// Each of these answers, and nothing sensitive is in it.
    async fn nothing_at(&self, paths: &[&str]) {
        for path in paths {
            nothing_in(path, &self.get(path).await);
        }
    }

    /// What was refused, sent with another input, and refused again.
    async fn edit(&self, id: &str) {
        let input = json!({ "given": TOKEN, "card": EDITED, "note": format!("not {CARD} but {EDITED}") });
        let path = format!("/v1/sagas/{id}/edit");
        let (status, preview) = self.post(&format!("{path}?dryRun=true"), &json!({ "input": input })).await;
        assert_eq!(status, 200, "{preview}");
        assert!(preview.contains("/card") && preview.contains("[hidden]"), "{preview}");
        nothing_in("the preview of an edit", &preview);
        let (status, edited) = self.post(&path, &json!({ "reason": "a test", "input": input })).await;
        assert_eq!(status, 200, "{edited}");
        nothing_in("the answer to an edit", &edited);
        let revision = serde_json::from_str::<Value>(&edited).expect("JSON")["revision"].as_u64().expect("a number");
        let is_stuck = |saga: &Value| saga["state"] == "STUCK" && saga["revision"].as_u64() > Some(revision);
        self.until("the edited one is refused too", &format!("/v1/sagas/{id}"), is_stuck).await;
        let sent: String = self.cage.seen().iter().map(|command| command.body.text().to_owned()).collect();
        assert_eq!(found(&sent), ALL, "{sent}");
        let history = self.get(&format!("/v1/sagas/{id}/history")).await;
        assert!(history.contains("\"edited\"") && history.contains("/card"), "{history}");
        let audit = self.get(&format!("/v1/audit?saga={id}&action=edit")).await;
        assert!(audit.contains("a test") && !audit.contains("sha256"), "guesses can be tried against a hash: {audit}");
        nothing_in("the audit log", &audit);
    }

    /// One job over all that are stuck, to its end.
    async fn bulk(&self, id: &str) {
        let filter = json!({ "saga": "canary", "state": "STUCK" });
        let ask = json!({ "action": "retry", "filter": filter, "dryRun": true });
        let (status, looked) = self.post("/v1/bulk", &ask).await;
        assert!(status == 200 && looked.contains(id), "{looked}");
        nothing_in("the preview of a job", &looked);
        let (status, made) =
            self.post("/v1/bulk", &json!({ "action": "retry", "filter": filter, "reason": "a test" })).await;
        assert_eq!(status, 201, "{made}");
        nothing_in("a job", &made);
        let job = serde_json::from_str::<Value>(&made).expect("JSON")["id"].as_str().expect("an id").to_owned();
        self.until("the job is done", &format!("/v1/bulk/{job}"), |job| job["state"] == "DONE").await;
        let stuck = |saga: &Value| saga["state"] == "STUCK";
        self.until("it is refused once more", &format!("/v1/sagas/{id}"), stuck).await;
        self.nothing_at(&[
            "/v1/bulk",
            &format!("/v1/bulk/{job}?check=true"),
            &format!("/v1/bulk/{job}/items"),
            "/console/bulk",
            &format!("/console/bulk/{job}?check=1"),
        ])
        .await;
    }

    /// Messages that nobody could take, of each kind.
    async fn bury(&self, id: &str) {
        let command = self.cage.seen().first().expect("a command").clone();
        let note = json!({ "token": TOKEN, "note": format!("for {CARD}") }).to_string();
        let start = json!({ "saga": "canary", "input": { "order": "o-3", "card": CARD }, "zzz": format!("<{CARD}>") });
        let signal = json!({ "sagaId": id, "signal": "heard", "payload": { "word": CARD }, "zzz": CARD });
        let message = |exchange: &str, key: &str, id: &str, body: String| Envelope {
            exchange: exchange.to_owned(),
            routing_key: key.to_owned(),
            mandatory: true,
            properties: Properties { message_id: Some(id.to_owned()), ..Properties::default() },
            body: body.into_bytes(),
        };
        let mut known = message("amends.replies", "amends.replies", "known", note.clone());
        known.properties.correlation_id = Some(command.token.clone());
        let mut rejected = message("amends.dead", &format!("{CAGE}.commands"), "rejected", note);
        let named = [("amends-saga-id", id.to_owned()), ("note", format!("of {CARD}"))];
        rejected.properties.headers =
            named.map(|(name, value)| (name.into(), HeaderValue::from(value))).into_iter().collect();
        let letters = vec![
            message("amends.replies", "amends.replies", "garbage", format!("\u{1}{CARD}")),
            message("amends.replies", "amends.replies", "nobody's", json!({ "note": CARD }).to_string()),
            known,
            message("amends.requests", "start", "start", start.to_string()),
            message("amends.requests", "signal", "signal", signal.to_string()),
            rejected,
        ];
        self.rig.broker.publish(letters).await;
        let count = |list: &Value| {
            let items = list["items"].as_array().cloned().unwrap_or_default();
            items.iter().filter_map(|item| item["messages"].as_u64()).sum::<u64>()
        };
        self.until("all are buried", "/v1/dead-letters", |list| count(list) == 6).await;
    }

    /// Looks at them in every way, then drops them.
    async fn dead_letters(&self) {
        let dead =
            ["amends.replies.dead".to_owned(), "amends.requests.dead".to_owned(), format!("{CAGE}.commands.dead")];
        for (queue, messages) in dead.iter().zip([3_usize, 2, 1]) {
            let path = format!("/v1/dead-letters/{queue}");
            let shown = self.get(&path).await;
            assert_eq!(shown.matches("\"bodyBytes\"").count(), messages, "{shown}");
            assert!(shown.contains("hidden"), "{shown}");
            let (page, drop) = (format!("/console/dead/{queue}"), format!("/console/dead/{queue}/drop?count=9"));
            self.nothing_at(&[&path, &page, &drop]).await;
            nothing_in("the command line", &self.cli(&["dead-letters", "show", queue, "--output", "json"]));
            let revealed = self.get(&format!("{path}?reveal=true&reason=a%20test")).await;
            assert!(found(&revealed).contains(&CARD), "{revealed}");
            let (status, gone) = self.post(&format!("{path}/drop"), &json!({ "count": 9, "reason": "a test" })).await;
            assert_eq!(status, 200, "{gone}");
            nothing_in("what became of dead letters", &gone);
        }
        let audit = self.get("/v1/audit?action=dead-letter-drop").await;
        assert_eq!(audit.matches("\"sha256\":null").count(), 6, "{audit}");
        nothing_in("the audit log", &audit);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_sensitive_value_leaves_the_coordinator_but_for_the_participant() {
    let mut site = Site::new(true).await;
    let (id, answers) = site.go().await;
    for answer in &answers {
        nothing_in("an answer", answer);
    }
    // Where they must be, they are.
    let commands: String = site.cage.seen().iter().map(|command| command.body.text().to_owned()).collect();
    assert_eq!(found(&commands), SENT, "{commands}");
    let form = format!("/console/sagas/{id}/edit");
    site.nothing_at(&[&form]).await;
    site.edit(&id).await;
    site.bulk(&id).await;
    site.bury(&id).await;

    let saga = |rest: &str| format!("/v1/sagas/{id}{rest}");
    let page = |rest: &str| format!("/console/sagas/{id}{rest}");
    site.nothing_at(&[
        "/v1/sagas?state=STUCK",
        &saga(""),
        &saga("/history"),
        &saga("/graph.svg"),
        "/v1/outbox",
        "/v1/overview",
        "/v1/participants",
        "/v1/audit",
        "/v1/dead-letters",
        "/metrics",
        "/console/",
        "/console/sagas",
        "/console/participants/canary-cage",
        "/console/dead",
        "/console/audit",
        &page("?history=full"),
        &page("?history=json"),
        &page("?sequence=1"),
        &page("/history.json"),
        &page("/retry"),
        &page("/abandon"),
        &form,
    ])
    .await;
    let history = site.get(&saga("/history")).await;
    assert!(history.contains("croaked") && history.contains("[hidden]"), "the rest is told: {history}");
    for arguments in [
        &["sagas", "list"][..],
        &["sagas", "show", &id],
        &["sagas", "history", &id],
        &["sagas", "retry", &id, "--dry-run"],
        &["outbox"],
        &["audit"],
    ] {
        nothing_in(&format!("{arguments:?}"), &site.cli(arguments));
    }
    site.dead_letters().await;

    // Inputs that are refused, searches that would try values, and what an action would do and did.
    let refused = |order: Value, card: Value| json!({ "saga": "canary", "input": { "order": order, "card": card } });
    for (body, expected) in [
        (refused(json!("o-2"), json!([CARD])), 422),
        (refused(json!("o-2"), json!(format!("{CARD}{}", "x".repeat(60)))), 422),
        (refused(json!({ "card": CARD }), json!(CARD)), 422),
        (refused(json!(format!("{CARD} {}", "x".repeat(40))), json!(CARD)), 422),
        (refused(json!("o-1"), json!(format!("{CARD}2"))), 409),
    ] {
        let (status, text) = site.post("/v1/sagas", &body).await;
        assert_eq!(status, expected, "{text}");
        nothing_in("a refusal", &text);
    }
    for path in ["/v1/sagas", "/console/sagas"] {
        let url = reqwest::Url::parse_with_params(&format!("{}{path}", site.url), [("field", format!("card={CARD}"))]);
        let answer = site.http.get(url.expect("a URL")).send().await.expect("an answer");
        assert_eq!(answer.status().as_u16(), 422, "{path}");
        // A page repeats its own address, which is the asker's; it must not say whether there is such a saga.
        assert!(!answer.text().await.expect("text").contains(&id), "{path}");
    }
    let filter = json!({ "field": format!("card={CARD}") });
    let (status, text) = site.post("/v1/bulk", &json!({ "action": "retry", "filter": filter, "dryRun": true })).await;
    assert!(status == 422 && text.contains("FIELD_SENSITIVE"), "{text}");
    let (status, preview) = site.post(&saga("/retry?dryRun=true"), &json!({})).await;
    assert_eq!(status, 200, "{preview}");
    nothing_in("a preview", &preview);
    let (status, paused) = site.post(&saga("/pause"), &json!({ "reason": "a test" })).await;
    assert_eq!(status, 200, "{paused}");
    nothing_in("an operator's answer", &paused);

    // Stuck at first, after the edit, and after the job.
    nothing_in("the events", &site.events(3).await);
    let log = site.log();
    assert!(log.contains("TRACE") || log.contains("DEBUG"), "{log}");
    assert!(log.contains("saga is stuck"), "{log}");
    nothing_in("the log", &log);
    site.outside().await;
    let dump = site.dump();
    assert!(dump.contains("$sealed"), "{dump}");
    let waiting: Vec<&str> = dump.lines().filter(|line| line.contains("INTO public.webhook_delivery")).collect();
    assert!(!waiting.is_empty() && waiting.iter().all(|row| row.contains("$sealed")), "{waiting:?}");
    nothing_in("the dump", &dump);

    // Who may see them does, and that is written down.
    let revealed = site.get(&saga("?reveal=true&reason=a%20test")).await;
    assert_eq!(found(&revealed), SENT, "{revealed}");
    let revealed = site.get(&saga("/history?reveal=true")).await;
    assert_eq!(found(&revealed), ALL, "{revealed}");
    let audit = site.get("/console/audit").await;
    assert_eq!(audit.matches("<code>reveal</code>").count(), 5, "{audit}");

    site.exchange_the_key().await;
    site.archive(&id).await;
}

impl Site {
    /// What has left the house: traces, and what a webhook is told.
    async fn outside(&self) {
        let of = |path: &str| {
            let all = self.outside.received().into_iter().filter(|received| received.path == path);
            all.map(|received| unpacked(&received.body)).collect::<String>()
        };
        let traces = eventually("a trace of what was refused", async || {
            let traces = of("/v1/traces");
            traces.contains("croaked").then_some(traces)
        })
        .await;
        nothing_in("the traces", &traces);
        let told = eventually("the webhook is told", async || {
            let told = of(HOOK);
            told.contains("croaked").then_some(told)
        })
        .await;
        assert!(told.contains("[hidden]"), "{told}");
        nothing_in("what a webhook is told", &told);
    }

    /// Beside the running coordinator; the old one is not needed any more then.
    async fn exchange_the_key(&self) {
        let (status, told) = self.encryption(&["rewrap", "--from", "one", "--dry-run"], Some("two"), &["one", "two"]);
        assert_eq!((status, &told["rewrapped"], &told["left"]), (0, &json!(0), &json!(2)));
        let (status, told) = self.encryption(&["rewrap", "--from", "one"], Some("two"), &["one", "two"]);
        assert_eq!((status, &told["rewrapped"], &told["left"]), (0, &json!(2), &json!(0)));
        let (status, told) = self.encryption(&["status"], Some("two"), &["two"]);
        assert_eq!((status, &told["items"][0]["dataKeys"]), (0, &json!(2)), "{told}");
        let (status, told) = self.encryption(&["status"], Some("one"), &["one"]);
        assert_eq!((status, &told["items"][1]["name"]), (3, &json!("two")), "the other one is missing: {told}");
    }

    /// Moves the saga into files, once it has ended.
    async fn archive(&self, id: &str) {
        let (status, text) = self.post(&format!("/v1/sagas/{id}/abandon"), &json!({ "reason": "a test" })).await;
        assert_eq!(status, 200, "{text}");
        self.until("it is given up", &format!("/v1/sagas/{id}"), |saga| saga["state"] == "ABANDONED").await;
        let to = self.folder.path().join("archive");
        let folder = to.to_str().expect("a path");
        let store = ["--store", &self.rig.store_url];
        let told = self.cli(&[&["archive", "--older-than", "0s", "--to", folder][..], &store].concat());
        nothing_in("what archiving tells", &told);
        let mut kept = 0;
        for entry in std::fs::read_dir(&to).expect("a folder") {
            let bytes = std::fs::read(entry.expect("an entry").path()).expect("a file");
            let text = unpacked(&bytes);
            kept += usize::from(text.contains("$sealed"));
            nothing_in("a file of the archive", &text);
        }
        assert!(kept > 0, "the saga is in none of the files");
        let shown = self.cli(&["archive", "show", id, "--from", folder]);
        assert!(shown.contains("$sealed"), "{shown}");
        nothing_in("what an archive shows", &shown);
    }
}

/// The text of a file, unpacked if it is packed.
fn unpacked(bytes: &[u8]) -> String {
    let mut text = String::new();
    match flate2::read::MultiGzDecoder::new(bytes).read_to_string(&mut text) {
        Ok(_) => text,
        Err(_) => String::from_utf8_lossy(bytes).into_owned(),
    }
}
