//! The test kit, on the shipped sagas and on itself: every placement is sound, and planted bugs are found.

#[path = "support/bugs.rs"]
mod bugs;

use std::path::Path;
use std::sync::{Arc, Mutex};

use amends::definition::{Definition, read};
use amends::testkit::{Answer, Extent, FaultKind, Kit, Plan, Report, Subject, explore};
use bugs::{Bug, machine};
use serde_json::json;

const PLACE_ORDER: &str = include_str!("../sagas/place-order.yaml");
const BOOK_TRIP: &str = include_str!("../sagas/book-trip.yaml");

async fn explored(source: &str, extent: Extent, bug: Bug) -> Report {
    let copy = || Arc::into_inner(read(source).definition.expect("sound")).expect("nobody else has it");
    explore(source)
        .made_up(extent)
        .run(async |kit| {
            let kit = kit.careless(bug != Bug::NoInbox, bug != Bug::NoTombstone);
            if bug == Bug::None { kit } else { kit.machine(machine(bug, copy() as Definition)) }
        })
        .await
}

#[tokio::test]
async fn every_shipped_saga_is_sound_under_every_single_fault() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("sagas");
    for entry in std::fs::read_dir(folder).expect("the folder") {
        let source = std::fs::read_to_string(entry.expect("an entry").path()).expect("readable");
        for extent in [Extent::Required, Extent::Everything] {
            let report = explored(&source, extent, Bug::None).await;
            println!("{report}; {} with a fault that never struck", report.unreached());
            report.assert_sound();
            assert!(report.tried() > 300, "{report}");
            assert!(report.ended("COMPLETED") > 0 && report.ended("COMPENSATED") > 0, "{report}");
        }
    }
}

#[tokio::test]
async fn pairs_of_faults_and_other_orders_are_sound_too() {
    let report = explore(BOOK_TRIP).made_up(Extent::Everything).pairs(300).run(async |kit| kit).await;
    report.assert_sound();
    let report = explore(PLACE_ORDER).pairs(300).run(async |kit| kit).await;
    report.assert_sound();
    for seed in 1..200 {
        let run = Kit::new(BOOK_TRIP).made_up(Extent::Everything).fault("hold-room#1=delay").seed(seed).run().await;
        run.assert_sound();
    }
}
