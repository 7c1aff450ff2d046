//! Finished sagas go out of a store and come back as they were.

use std::path::Path;
use std::time::Duration;

use amends::archive::{self, ArchiveError, Manifest, Options, Reader, Source, Summary};
use amends::id::{Namespace, SagaId};
use amends::payload::Payload;
use amends::saga::{Outcome, Parent, ReplyAddress, Saga};
use amends::store::{Changes, NewCommand, NewSaga, Page, SagaFilter, Started};
use rstest::rstest;

use crate::make::{DEFINITION, audited, bare, command, completed, new, saga, settled, starts, told, updates};
use crate::rig::Kind::{self, Postgres, Sqlite};
use crate::rig::{Rig, on};

/// Everything that has ended, without rests.
fn options(folder: &Path) -> Options {
    Options { pause: Duration::ZERO, batch: 3, ..Options::new(Duration::ZERO, folder) }
}

async fn run(rig: &Rig, options: &Options) -> Summary {
    archive::run(&rig.store, options, &|_| {}).await.expect("a run")
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a temporary folder")
}

/// A saga that has ended, with a command, an event and an audit row; its input has white space and a big number.
async fn ended(rig: &Rig, key: Option<&str>) -> SagaId {
    let input = Payload::trusted("{ \"orderId\":\n \"a b\\n\", \"n\": 12345678901234567890123.450 }");
    let one = Saga { input, ..saga(key) };
    let changes = Changes {
        starts: vec![new(one.clone())],
        settled: vec![settled(&one, 1, Outcome::Success, Some("{\"x\": 1}"))],
        history: vec![told(&one, 7)],
        audits: vec![audited(Some(one.id), "since")],
        ..Changes::default()
    };
    rig.write(changes).await.expect("a commit");
    rig.write(updates(vec![completed(&one)])).await.expect("a commit");
    one.id
}

/// The saga with all that belongs to it; `None` when there is nothing of it.
async fn all_of(rig: &Rig, id: SagaId) -> Option<String> {
    let record = rig.store.saga(id).await.expect("a read");
    let history = rig.store.history(id).await.expect("a read");
    let mut audit = rig.store.audit(Some(id), &Page { after: None, limit: 100 }).await.expect("a read");
    for row in &mut audit {
        // Restored rows are numbered anew.
        row.id = 0;
    }
    if record.is_none() {
        assert!(history.is_empty() && audit.is_empty(), "{history:?} {audit:?}");
    }
    // White space between the tokens of payloads is not kept: a line of the file is a family.
    let told = |text: String| text.chars().filter(|c| !c.is_whitespace()).collect();
    record.map(|record| told(format!("{:?} {:?} {history:?} {audit:?}", record.saga, record.commands)))
}

fn file_of(folder: &Path, manifest: &Manifest) -> std::path::PathBuf {
    folder.join(&manifest.file)
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_has_ended_goes_and_comes_back_as_it_was(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let folder = folder();
        let mut before = Vec::new();
        for at in 0..8 {
            let key = format!("k-{at}");
            let id = ended(&rig, (at % 2 == 0).then_some(key.as_str())).await;
            before.push((id, all_of(&rig, id).await.expect("it is there")));
        }
        let running = saga(Some("runs"));
        rig.write(starts(vec![new(running.clone())])).await.expect("a commit");

        let found = archive::count(&rig.store, &options(folder.path())).await.expect("a count");
        assert_eq!(found, 8);
        let summary = run(&rig, &options(folder.path())).await;
        assert_eq!((summary.archived, summary.removed, summary.kept), (8, 8, 0));
        for (id, _) in &before {
            assert_eq!(all_of(&rig, *id).await, None);
        }
        let left = rig.store.sagas(&SagaFilter::default(), &Page { after: None, limit: 50 }).await.expect("a list");
        assert_eq!(left.iter().map(|left| left.saga.id).collect::<Vec<_>>(), [running.id]);

        let manifests = archive::list(folder.path()).expect("a list");
        assert_eq!(manifests.len(), 1);
        assert_eq!(manifests[0].contents.sagas, 8);
        assert!(manifests[0].removed_at.is_some());
        assert!(manifests[0].may_hold(before[3].0));
        let again = run(&rig, &options(folder.path())).await;
        assert_eq!(again, Summary::default(), "there is nothing left to do");

        let file = file_of(folder.path(), &manifests[0]);
        let would = archive::would_restore(&rig.store, &Source::all(&file), &|_| {}).await.expect("a look");
        assert_eq!((would.restored, would.present, would.key_taken), (8, 0, 0));
        assert_eq!(all_of(&rig, before[0].0).await, None, "nothing was done");
        let one = archive::restore(&rig.store, &Source { only: Some(before[2].0), ..Source::all(&file) }, &|_| {})
            .await
            .expect("restored");
        assert_eq!((one.restored, one.present, one.key_taken), (1, 0, 0));
        let rest = archive::restore(&rig.store, &Source::all(&file), &|_| {}).await.expect("restored");
        assert_eq!((rest.restored, rest.present, rest.key_taken), (7, 1, 0));
        for (id, whole) in &before {
            assert_eq!(all_of(&rig, *id).await.as_ref(), Some(whole));
        }
        let again = archive::restore(&rig.store, &Source::all(&file), &|_| {}).await.expect("restored");
        assert_eq!((again.restored, again.present, again.key_taken), (0, 8, 0));
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_store_restores_what_another_has_archived(
    #[values((Sqlite, Postgres), (Postgres, Sqlite))] kinds: (Kind, Kind),
) {
    let folder = folder();
    let path = folder.path();
    on(kinds.0, async |from| {
        let id = ended(&from, Some("k")).await;
        let whole = all_of(&from, id).await;
        run(&from, &options(path)).await;
        on(kinds.1, async |to| {
            let manifests = archive::list(path).expect("a list");
            archive::restore(&to.store, &Source::all(file_of(path, &manifests[0])), &|_| {}).await.expect("restored");
            assert_eq!(all_of(&to, id).await, whole);
        })
        .await;
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_an_archived_saga_stays_taken_until_it_is_forgotten(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let folder = folder();
        let id = ended(&rig, Some("k")).await;
        run(&rig, &options(folder.path())).await;

        let another = || bare(saga(Some("k")));
        let free = bare(saga(Some("free")));
        let committed = rig.write(starts(vec![another(), free])).await.expect("a commit");
        assert!(matches!(committed.starts[..], [Started::Taken { by, .. }, Started::New] if by == id));
        let known = rig.store.archive().expect("an archive").archived(id).await.expect("a read").expect("remembered");
        assert_eq!(
            (known.definition.as_str(), known.key.as_str(), known.state.as_str()),
            (DEFINITION, "k", "COMPLETED")
        );

        assert_eq!(archive::forget(&rig.store, Duration::from_secs(3_600), 10).await.expect("forgotten"), 0);
        assert_eq!(archive::forget(&rig.store, Duration::ZERO, 10).await.expect("forgotten"), 1);
        let committed = rig.write(starts(vec![another()])).await.expect("a commit");
        assert_eq!(committed.starts, [Started::New]);

        // Two sagas of one key there cannot be, so the archived one stays where it is.
        let manifests = archive::list(folder.path()).expect("a list");
        let file = file_of(folder.path(), &manifests[0]);
        let would = archive::would_restore(&rig.store, &Source::all(&file), &|_| {}).await.expect("a look");
        let restored = archive::restore(&rig.store, &Source::all(&file), &|_| {}).await.expect("restored");
        assert_eq!((restored.restored, restored.key_taken), (0, 1));
        assert_eq!(would, restored, "as was told before");
    })
    .await;
}

/// The command that starts a sub-saga, and the sub-saga, not ended.
fn child(parent: &Saga) -> (NewCommand, NewSaga) {
    let starts = NewCommand {
        participant: "amends".to_owned(),
        action: "start".to_owned(),
        body: Payload::trusted("{\"saga\": \"ship-order\", \"input\": {}}"),
        ..command(parent, 1)
    };
    let key = format!("{}/step-1/action/1", parent.id);
    let mut child = saga(Some(&key));
    child.definition.name = "ship-order".to_owned();
    let start = ReplyAddress { token: "t".to_owned(), reply_to: "r".to_owned() };
    child.parent = Some(Parent { saga: parent.id, step: "step-1".to_owned(), depth: 1, start, undo: None, held: None });
    (starts, bare(child))
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_saga_and_those_that_it_started_go_together_or_not_at_all(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let folder = folder();
        let parent = saga(Some("parent"));
        let (command, young) = child(&parent);
        let young_saga = young.saga.clone();
        let changes = Changes {
            starts: vec![bare(parent.clone()), young],
            commands: vec![command],
            settled: vec![settled(&parent, 1, Outcome::Success, None)],
            ..Changes::default()
        };
        rig.write(changes).await.expect("a commit");
        rig.write(updates(vec![completed(&parent)])).await.expect("a commit");
        assert_eq!(run(&rig, &options(folder.path())).await.archived, 0, "one of them runs");

        rig.write(updates(vec![completed(&young_saga)])).await.expect("a commit");
        let summary = run(&rig, &options(folder.path())).await;
        assert_eq!((summary.archived, summary.removed), (2, 2));
        let manifests = archive::list(folder.path()).expect("a list");
        assert_eq!((manifests[0].contents.sagas, manifests[0].contents.families), (2, 1));
        let file = file_of(folder.path(), &manifests[0]);
        let back = archive::restore(&rig.store, &Source { only: Some(young_saga.id), ..Source::all(&file) }, &|_| {})
            .await
            .expect("restored");
        assert_eq!(back.restored, 2);
        assert!(all_of(&rig, parent.id).await.is_some() && all_of(&rig, young_saga.id).await.is_some());
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_file_is_refused_and_nothing_is_removed_on_its_account(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let folder = folder();
        let id = ended(&rig, None).await;
        run(&rig, &options(folder.path())).await;
        let manifests = archive::list(folder.path()).expect("a list");
        let file = file_of(folder.path(), &manifests[0]);
        archive::restore(&rig.store, &Source::all(&file), &|_| {}).await.expect("restored");

        // The run was killed before it removed anything, and the disk has lost a byte.
        not_removed(folder.path(), &manifests[0]);
        let mut bytes = std::fs::read(&file).expect("a file");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        std::fs::write(&file, bytes).expect("written");

        let error = archive::run(&rig.store, &options(folder.path()), &|_| {}).await.expect_err("it is damaged");
        assert_eq!(error.code(), "ARCHIVE_DAMAGED");
        assert!(Reader::open(&file).is_err());
        assert!(all_of(&rig, id).await.is_some());
    })
    .await;
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn what_another_namespace_has_archived_is_neither_restored_nor_called_removed(
    #[values(Sqlite, Postgres)] kind: Kind,
) {
    on(kind, async |rig| {
        let id = ended(&rig, Some("k")).await;
        let folder = folder();
        let theirs: Namespace = "acme".parse().expect("a name");
        run(&rig, &Options { namespace: theirs.clone(), ..options(folder.path()) }).await;
        let manifests = archive::list(folder.path()).expect("a list");
        let file = file_of(folder.path(), &manifests[0]);

        let ours = Source::all(&file);
        for refused in [
            archive::would_restore(&rig.store, &ours, &|_| {}).await.expect_err("it is theirs"),
            archive::restore(&rig.store, &ours, &|_| {}).await.expect_err("it is theirs"),
        ] {
            assert_eq!(refused.code(), "ARCHIVE_OTHER_NAMESPACE", "{refused}");
        }
        assert_eq!(all_of(&rig, id).await, None, "nothing was done");

        not_removed(folder.path(), &manifests[0]);
        run(&rig, &options(folder.path())).await;
        assert_eq!(archive::list(folder.path()).expect("a list")[0].removed_at, None);
        let restored = archive::restore(&rig.store, &Source { namespace: theirs, ..ours }, &|_| {}).await;
        assert_eq!(restored.expect("it is theirs").restored, 1);
    })
    .await;
}

/// As if the run had been killed before it removed anything.
fn not_removed(folder: &Path, manifest: &Manifest) {
    let manifest = folder.join(manifest.file.replace(".jsonl.gz", ".manifest.json"));
    let text = std::fs::read_to_string(&manifest).expect("a manifest");
    let at = text.find("\"removedAt\"").expect("the field");
    std::fs::write(&manifest, format!("{}\"removedAt\": null\n}}\n", &text[..at])).expect("written");
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn one_run_at_a_time(#[values(Sqlite, Postgres)] kind: Kind) {
    on(kind, async |rig| {
        let folder = folder();
        let store = rig.store.archive().expect("an archive");
        let other = amends::id::fresh_request_id();
        assert!(store.lease(other, 60).await.expect("a lease"));
        assert!(store.lease(other, 60).await.expect("renewed"));
        let refused = archive::run(&rig.store, &options(folder.path()), &|_| {}).await.expect_err("taken");
        assert!(matches!(refused, ArchiveError::Busy), "{refused}");
        assert!(store.lease(other, 0).await.expect("given back"));
        run(&rig, &options(folder.path())).await;
    })
    .await;
}

/// Starts with a key that is archived at the same moment, over and over: at no time do two sagas have it.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_during_the_removal_of_its_key_never_makes_a_second_saga() {
    on(Postgres, async |rig| {
        let store = rig.store.archive().expect("an archive");
        for round in 0..20 {
            let key = format!("k-{round}");
            let id = ended(&rig, Some(&key)).await;
            let families = store.families(&[id], crate::make::later(rig.now().await)).await.expect("families");
            let starters = (0..4).map(|_| {
                let (rig, key) = (rig.clone(), key.clone());
                async move {
                    for _ in 0..10 {
                        match rig.write(starts(vec![bare(saga(Some(&key)))])).await {
                            Ok(committed) => {
                                assert!(matches!(committed.starts[..], [Started::Taken { by, .. }] if by == id))
                            }
                            Err(error) => assert!(error.is_transient(), "{error}"),
                        }
                    }
                }
            });
            let starters = crate::rig::side_by_side(starters);
            let (removed, _) = tokio::join!(store.remove(&families), starters);
            assert_eq!(removed.expect("removed").sagas, 1);
        }
    })
    .await;
}
