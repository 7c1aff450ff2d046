//! Payloads that would like to be markup, in every field that comes from outside.

use amends::clock::Clock;
use amends::saga::Direction;
use serde_json::json;

use crate::made::{self, Does, ORDER};
use crate::support::http::House;

/// Each would set a flag if a browser took it for more than text.
pub const CORPUS: [&str; 14] = [
    "<script>window.pwned=1</script>",
    "\"><img src=x onerror=window.pwned=1>",
    "'><svg onload=window.pwned=1>",
    "</title><script>window.pwned=1</script>",
    "</textarea><script>window.pwned=1</script>",
    "--></style><script>window.pwned=1</script>",
    "javascript:window.pwned=1",
    "<iframe srcdoc=\"<script>parent.pwned=1</script>\">",
    "<a href=\"javascript:window.pwned=1\">x</a>",
    "{{constructor.constructor('window.pwned=1')()}}",
    "`<img src=x onerror=window.pwned=1>`",
    "\u{202e}<script>window.pwned=1</script>",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=window.pwned=1>",
    "]]><script>window.pwned=1</script>",
];

/// A saga per payload of the corpus, with it in key, input, names of members, reply and reason. Gives their ids.
pub async fn plant(house: &House) -> Vec<String> {
    let definition = made::definition(ORDER);
    let mut ids = Vec::new();
    for (at, hostile) in CORPUS.into_iter().enumerate() {
        // A key has no characters that change how others are shown.
        let order = format!("{}{at}", hostile.replace('\u{202e}', ""));
        let input = json!({ "order": order, "total": { hostile: [hostile, { "a": hostile }] }, "note": hostile });
        let faults =
            [("confirm", Direction::Action, Does::No(hostile)), ("create", Direction::Compensation, Does::No(hostile))];
        let made = made::play(&definition, input, Clock::System.now(), &faults);
        ids.push(made.saga.id.to_string());
        made::write(&*house.store, vec![made]).await;
    }
    for id in &ids {
        let reason = json!({ "reason": CORPUS[1] });
        assert_eq!(house.post(&format!("/v1/sagas/{id}/pause"), &reason).await.status, 200);
        assert_eq!(house.post(&format!("/v1/sagas/{id}/resume"), &reason).await.status, 200);
    }
    ids
}

#[tokio::test]
async fn hostile_payloads_are_text_on_every_page() {
    let house = House::new().await;
    house.coordinator.register(ORDER, "<b>mallory</b>").await.expect("registered");
    let ids = plant(&house).await;
    let mut pages = vec![
        "/console/".to_owned(),
        "/console/sagas".to_owned(),
        "/console/audit".to_owned(),
        "/console/definitions".to_owned(),
    ];
    for id in &ids {
        pages.extend([
            format!("/console/sagas/{id}?history=full"),
            format!("/console/sagas/{id}?history=json"),
            format!("/console/sagas/{id}/retry"),
        ]);
    }
    for hostile in CORPUS {
        let hostile = crate::walk::encode(hostile);
        pages.extend([
            format!("/console/sagas?key={hostile}"),
            format!("/console/sagas/{hostile}"),
            format!("/console/{hostile}"),
        ]);
        pages.extend([
            format!("/console/sagas?state={hostile}"),
            format!("/console/login?next={hostile}"),
            format!("/console/definitions/{hostile}/1"),
        ]);
    }
    for page in pages {
        let answer = house.get(&page).await;
        assert!(answer.status.as_u16() < 500, "{page}: {}", answer.text);
        for markup in ["<script>", "<img", "<iframe", "<math", "<svg onload", "<b>mallory", "href=\"javascript:"] {
            assert!(!answer.text.contains(markup), "{page} has {markup}");
        }
    }
}
