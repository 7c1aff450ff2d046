//! What definitions look like.

use amends::definition::{Definition, read};
use amends::picture::{Picture, SagaLook, State, StepLook};

const EVERYTHING: &str = r#"
saga: everything
version: 3
owner: travel
timeout: 3d
steps:
  - { name: ask-for-approval, wait: { signal: approved, timeout: 2d, onTimeout: fail } }
  - name: reserve-each-of-the-many-lines-of-this-order
    participant: warehouse
    action: reserve
    forEach: { items: "${ input.lines }", maxParallel: 4 }
    compensation: { action: release }
  - name: hold-car
    participant: cars
    action: hold
    after: [ask-for-approval]
    when: ${ has(input.car) && input.car.seats > 4 && input.car.doors < 5 }
    compensation: { action: release }
  - { name: cool-off, delay: 90m, after: [hold-car] }
  - { name: card, saga: issue-card, after: [ask-for-approval] }
  - name: pay
    participant: payments
    action: charge
    after: [reserve-each-of-the-many-lines-of-this-order, cool-off, card]
    pivot: true
    compensation: none
  - { name: send-mail, participant: mail, action: send, after: [pay], retry: { maxAttempts: 0 } }
  - { name: book, participant: cars, action: book, after: [pay] }
"#;

fn good(source: &str) -> std::sync::Arc<Definition> {
    let checked = read(source);
    checked.definition.unwrap_or_else(|| panic!("{:#?}", checked.diagnostics))
}

fn shipped() -> Vec<std::sync::Arc<Definition>> {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas");
    let files = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> = files.filter(|file| file.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    assert!(files.len() >= 3);
    files.iter().map(|file| good(&std::fs::read_to_string(file).expect("readable"))).collect()
}

fn look(step: &str, state: State, attempts: u32, note: Option<&str>) -> StepLook {
    StepLook { name: step.to_owned(), state, attempts, note: note.map(str::to_owned) }
}

/// An order whose records were not there.
fn undone_order() -> Picture {
    let definition = good(include_str!("../sagas/place-order.yaml"));
    Picture::of(&definition).with_states(SagaLook {
        label: "order-17".to_owned(),
        state: "COMPENSATING".to_owned(),
        note: Some("waits for attempt 2 of the compensation of `authorise-payment`".to_owned()),
        steps: vec![
            look("create-order", State::Verified, 1, None),
            look("authorise-payment", State::Compensating, 2, Some("technical")),
            look("pick", State::Failed, 1, Some("out-of-stock")),
            look("confirm-order", State::Waiting, 0, None),
            look("capture-payment", State::Waiting, 0, None),
            look("dispatch", State::Waiting, 0, None),
        ],
    })
}

fn everything_with_states() -> Picture {
    let lines = (0..5).map(|at| {
        let state = if at < 3 { State::Verified } else { State::Pending };
        look(&format!("reserve-each-of-the-many-lines-of-this-order[{at}]"), state, 1, None)
    });
    let mut steps: Vec<StepLook> = lines.collect();
    steps.extend([
        look("ask-for-approval", State::Verified, 1, None),
        look("hold-car", State::Skipped, 0, None),
        look("cool-off", State::Pending, 1, None),
        look("card", State::Unknown, 5, Some("no-reply")),
        look("pay", State::Waiting, 0, None),
        look("send-mail", State::Waiting, 0, None),
        look("book", State::Compensated, 1, None),
    ]);
    Picture::of(&good(EVERYTHING)).with_states(SagaLook {
        label: "t-1".to_owned(),
        state: "STUCK".to_owned(),
        note: Some("card is stuck: no-reply".to_owned()),
        steps,
    })
}

fn all() -> Vec<(String, Picture)> {
    let mut all: Vec<(String, Picture)> =
        shipped().iter().map(|definition| (definition.reference.name.clone(), Picture::of(definition))).collect();
    all.push(("everything".to_owned(), Picture::of(&good(EVERYTHING))));
    all.push(("undone-order".to_owned(), undone_order()));
    all.push(("everything-with-states".to_owned(), everything_with_states()));
    all
}

#[test]
fn pictures_look_as_they_did() {
    for (name, picture) in all() {
        insta::assert_snapshot!(format!("{name}.svg"), picture.svg());
        insta::assert_snapshot!(format!("{name}.mermaid"), picture.mermaid());
        insta::assert_snapshot!(format!("{name}.dot"), picture.dot());
    }
}

#[test]
fn a_picture_is_well_formed_told_in_words_and_asks_for_nothing() {
    for (name, picture) in all() {
        let svg = picture.svg();
        let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{name}: {error}"));
        let known = ["svg", "title", "desc", "style", "rect", "g", "path", "text"];
        for node in document.descendants().filter(roxmltree::Node::is_element) {
            assert!(known.contains(&node.tag_name().name()), "{name}: <{}>", node.tag_name().name());
            for attribute in node.attributes() {
                assert!(
                    !attribute.name().starts_with("on") && !attribute.name().ends_with("href"),
                    "{name}: {attribute:?}"
                );
            }
        }
        for word in ["url(", "@import", "http:", "https:"] {
            let found = svg.replace("http://www.w3.org/2000/svg", "").contains(word);
            assert!(!found, "{name} holds {word}");
        }
        let root = document.root_element();
        for child in ["title", "desc"] {
            let told = root.children().find(|node| node.has_tag_name(("http://www.w3.org/2000/svg", child)));
            assert!(told.and_then(|node| node.text()).is_some_and(|text| text.len() > 5), "{name}: no {child}");
        }
    }
}

#[test]
fn every_state_is_told_by_a_word_beside_its_icon() {
    let svg = everything_with_states().svg();
    for word in ["verified", "skipped", "pending", "unknown, 5 attempts: no-reply", "waiting", "compensated"] {
        assert!(svg.contains(&format!(">{word}")), "{word}");
    }
    assert!(svg.contains(">pending: 3 verified, 2 pending<"), "the elements of a loop are counted");
}

#[test]
fn nothing_comes_back_from_below_the_pivot() {
    let mermaid = Picture::of(&good(include_str!("../sagas/place-order.yaml"))).mermaid();
    let back: Vec<&str> = mermaid.lines().map(str::trim).filter(|line| line.contains("-.->")).collect();
    assert_eq!(back, ["s1 -.-> s0", "s2 -.-> s1", "s3 -.-> s2", "s0 -.-> compensated"]);
}

#[test]
fn edges_that_others_imply_are_not_drawn() {
    let source = "
saga: triangle
version: 1
steps:
  - { name: a, participant: p, action: x, compensation: none }
  - { name: b, participant: p, action: x, compensation: none, after: [a] }
  - { name: c, participant: p, action: x, compensation: none, after: [a, b] }
";
    let mermaid = Picture::of(&good(source)).mermaid();
    assert!(mermaid.contains("s1 --> s2") && !mermaid.contains("s0 --> s2"), "{mermaid}");
}

/// A definition that no check has seen: whatever its texts are, they stay texts.
#[test]
fn hostile_texts_stay_texts() {
    let hostile = [
        "</title><script>alert(1)</script>",
        "\"] --> evil[\"<img src=x onerror=alert(1)>",
        "a\"; evil [URL=\"javascript:alert(1)\"]; b [label=\"\\",
        "]]> <![CDATA[ & &amp; &#x3c; <!-- --",
        "line\nbreak\r\n%% comment\u{0}\u{1b}[31m\u{202e}\u{feff}\u{ffff}",
        "end\nsubgraph x\nclick s0 href \"javascript:alert(1)\"",
        "日本語の長い名前がここにありますので箱から出てはいけません",
    ];
    for text in hostile {
        let source =
            "saga: s\nversion: 1\nsteps: [{ name: a, participant: p, action: x, compensation: { action: u } }]";
        let mut definition = std::sync::Arc::into_inner(good(source)).expect("only one owner");
        definition.reference.name = text.to_owned();
        definition.owner = Some(text.to_owned());
        let step = &mut definition.steps[0];
        step.name = text.to_owned();
        step.participant = text.to_owned();
        step.action = text.to_owned();
        if let amends::definition::Compensation::Action(action) = &mut step.compensation {
            action.action = text.to_owned();
        }
        let picture = Picture::of(&definition).with_states(SagaLook {
            label: text.to_owned(),
            state: text.to_owned(),
            note: Some(text.to_owned()),
            steps: vec![look(text, State::Failed, 1, Some(text))],
        });
        let svg = picture.svg();
        let document = roxmltree::Document::parse(&svg).unwrap_or_else(|error| panic!("{text:?}: {error}"));
        let plain = Picture::of(&good(source)).svg();
        let plain = roxmltree::Document::parse(&plain).expect("well-formed");
        let names = |document: &roxmltree::Document<'_>| {
            let mut names: Vec<String> = document
                .descendants()
                .filter(|node| node.is_element())
                .map(|node| node.tag_name().name().to_owned())
                .collect();
            names.sort();
            names.dedup();
            names
        };
        assert_eq!(names(&document), names(&plain), "{text:?}");
        assert!(!svg.contains(['\u{0}', '\u{1b}', '\u{202e}']), "{text:?}");
        // Every line of a diagram is one of ours, whatever the texts hold.
        for line in picture.mermaid().lines().map(str::trim) {
            let is_ours = line.starts_with("flowchart TD")
                || ["start", "s0", "completed", "compensated", "class"].iter().any(|ours| line.starts_with(ours));
            assert!(is_ours && !line.contains("<img") && line.matches('"').count() % 2 == 0, "{text:?}: {line}");
        }
        for line in picture.dot().lines().map(str::trim) {
            let mut quotes = 0;
            let mut before = ' ';
            for c in line.chars() {
                if c == '"' && before != '\\' {
                    quotes += 1;
                }
                before = if before == '\\' && c == '\\' { ' ' } else { c };
            }
            assert_eq!(quotes % 2, 0, "{text:?}: {line}");
        }
    }
}
