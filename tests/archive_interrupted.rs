//! `amends archive` is killed at each of its named points: no saga is lost, and none is in two files.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use amends::archive::{Reader, list};
use amends::failpoint::Point;
use amends::store::{Changes, Page, SagaFilter, Store, Wants};
use rstest::rstest;

mod support;

#[path = "store_conformance/make.rs"]
#[allow(dead_code, reason = "shared")]
mod make;

const POINTS: [(Point, u32); 7] = [
    (Point::ArchiveWritten, 1),
    (Point::ArchiveKept, 1),
    (Point::ArchiveBeforeRemoval, 1),
    (Point::ArchiveBeforeRemoval, 2),
    (Point::ArchiveRemoved, 1),
    (Point::ArchiveRemoved, 3),
    (Point::ArchiveNotMarked, 1),
];
const SAGAS: usize = 10;

async fn fill(store: &dyn Store) {
    for at in 0..SAGAS {
        let one = make::saga(Some(&format!("k-{at}")));
        let changes = Changes {
            starts: vec![make::new(one.clone())],
            settled: vec![make::settled(&one, 1, amends::saga::Outcome::Success, None)],
            ..Changes::default()
        };
        store.commit(Wants::default(), Box::new(move |_| changes)).await.expect("a commit");
        let changes = make::updates(vec![make::completed(&one)]);
        store.commit(Wants::default(), Box::new(move |_| changes)).await.expect("a commit");
    }
}

fn run(url: &str, folder: &Path, kill: Option<(Point, u32, &Path)>) -> std::process::Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_amends"));
    command.args([
        "archive",
        "--older-than",
        "0s",
        "--batch",
        "3",
        "--pause",
        "1ms",
        "--output",
        "json",
        "--store",
        url,
    ]);
    command.arg("--to").arg(folder);
    if let Some((point, at, marker)) = kill {
        command.env("AMENDS_FAILPOINT", format!("{}:{at}", point.name())).env("AMENDS_FAILPOINT_MARKER", marker);
    }
    command.output().expect("amends runs")
}

/// How often each saga is in files that count.
fn archived(folder: &Path) -> BTreeMap<String, u32> {
    let mut seen = BTreeMap::new();
    for manifest in list(folder).expect("a list") {
        let mut reader = Reader::open(&folder.join(&manifest.file)).expect("a file");
        loop {
            let families = reader.next(100).expect("a family");
            if families.is_empty() {
                break;
            }
            for saga in families.iter().flat_map(|family| &family.sagas) {
                *seen.entry(saga.head().expect("a head").id.to_string()).or_default() += 1;
            }
        }
    }
    seen
}

async fn stored(store: &dyn Store) -> Vec<String> {
    let all = store.sagas(&SagaFilter::default(), &Page { after: None, limit: 100 }).await.expect("a list");
    all.iter().map(|summary| summary.saga.id.to_string()).collect()
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn an_archive_run_killed_anywhere_loses_nothing_and_keeps_nothing_twice(
    #[values(false, true)] on_postgres: bool,
) {
    for (point, at) in POINTS {
        let folder = tempfile::tempdir().expect("a folder");
        let url = if on_postgres {
            support::fresh_database().await
        } else {
            format!("sqlite://{}", folder.path().join("amends.db").display())
        };
        let store = amends::store::open(&url).await.expect("the store opens");
        store.migrate().await.expect("migrated");
        fill(&*store).await;
        let before = stored(&*store).await;
        assert_eq!(before.len(), SAGAS);

        let (files, marker) = (folder.path().join("files"), folder.path().join("marker"));
        run(&url, &files, Some((point, at, &marker)));
        assert!(marker.exists(), "{point:?}:{at} never fired");
        let left = stored(&*store).await;
        let kept = archived(&settled_copy(&files));
        for id in &before {
            assert!(left.contains(id) || kept.contains_key(id), "{point:?}:{at} lost {id}");
        }

        // The right to archive outlives the one that was killed by a minute; a test does not wait for that.
        free(&url).await;
        let done = run(&url, &files, None);
        assert!(done.status.success(), "{point:?}: {}", String::from_utf8_lossy(&done.stderr));
        assert!(stored(&*store).await.is_empty(), "{point:?}:{at}");
        let kept = archived(&files);
        assert_eq!(kept.len(), SAGAS, "{point:?}:{at}");
        assert!(kept.values().all(|times| *times == 1), "{point:?}:{at}: {kept:?}");
        assert!(list(&files).expect("a list").iter().all(|manifest| manifest.removed_at.is_some()));
        store.close().await;
    }
}

/// A copy of the folder in which files that count have their names, as the next run would give them.
fn settled_copy(folder: &Path) -> std::path::PathBuf {
    let copy = folder.with_extension("copy");
    std::fs::create_dir_all(&copy).expect("a folder");
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let name = name.strip_suffix(".partial").unwrap_or(&name).to_owned();
        std::fs::copy(&path, copy.join(name)).expect("copied");
    }
    copy
}

async fn free(url: &str) {
    if url.starts_with("postgres") {
        let pool = sqlx::PgPool::connect(url).await.expect("PostgreSQL answers");
        sqlx::query("delete from archive_lease").execute(&pool).await.expect("freed");
        pool.close().await;
    } else {
        let pool = sqlx::SqlitePool::connect(url).await.expect("the file opens");
        sqlx::query("delete from archive_lease").execute(&pool).await.expect("freed");
        pool.close().await;
    }
}
