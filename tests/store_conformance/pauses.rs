//! Pauses of participants: kept with their audit rows, once each.

use amends::store::Page;
use amends::store::pauses::PauseChange;
use rstest::rstest;

use crate::rig::Kind::{self, Memory, Postgres, Sqlite};
use crate::rig::on;

fn change(is_paused: bool, action: Option<&str>) -> PauseChange {
    PauseChange {
        participant: "warehouse".to_owned(),
        action: action.map(str::to_owned),
        is_paused,
        seen: None,
        actor: "ann".to_owned(),
        reason: "stock'taking; drop table audit".to_owned(),
    }
}

#[rstest]
#[tokio::test(flavor = "multi_thread")]
async fn a_pause_is_kept_until_it_is_ended_and_each_change_is_audited_once(
    #[values(Memory, Sqlite, Postgres)] kind: Kind,
) {
    on(kind, async |rig| {
        let store = rig.store.pauses().expect("it keeps pauses");
        let (whole, pick) = (change(true, None), change(true, Some("pick")));
        assert_eq!(store.change_pause(&change(false, None)).await.expect("an answer"), None, "it is not paused");
        let since = store.change_pause(&whole).await.expect("an answer").expect("it is paused");
        assert_eq!(store.change_pause(&whole).await.expect("an answer"), None, "it is paused already");
        store.change_pause(&pick).await.expect("an answer").expect("an action is another thing");
        let found = store.pauses().await.expect("a read");
        let told: Vec<_> = found.iter().map(|pause| (pause.participant.as_str(), pause.action.as_deref())).collect();
        assert_eq!(told, [("warehouse", None), ("warehouse", Some("pick"))]);
        assert_eq!((found[0].since, found[0].by.as_str(), &found[0].reason), (since, "ann", &whole.reason));

        let other = PauseChange { seen: Some(since - chrono::TimeDelta::seconds(1)), ..change(false, None) };
        assert_eq!(store.change_pause(&other).await.expect("an answer"), None, "that is not the pause looked at");
        let seen = PauseChange { seen: Some(since), ..change(false, None) };
        store.change_pause(&seen).await.expect("an answer").expect("it is resumed");
        assert_eq!(store.pauses().await.expect("a read").len(), 1);
        store.change_pause(&whole).await.expect("an answer").expect("and paused anew");
        assert_eq!(store.pauses().await.expect("a read").len(), 2);

        let rows = rig.store.audit(None, &Page { after: None, limit: 10 }).await.expect("the audit log");
        let told: Vec<&str> = rows.iter().rev().map(|row| row.action.as_str()).collect();
        assert_eq!(told, ["participant-pause", "participant-pause", "participant-resume", "participant-pause"]);
        assert_eq!(rows[0].detail.value()["participant"], "warehouse");
        assert_eq!((rows[0].actor.as_str(), &rows[0].reason), ("ann", &whole.reason));
    })
    .await;
}
