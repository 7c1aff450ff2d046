//! What becomes of one command: the contract's rules, on every database.

use std::time::Duration;

use amends::message::ReplyBody;
use amends::message::command::idempotency_key;
use amends::payload::Payload;
use serde_json::json;

use crate::databases::TestDatabase;
use crate::rig::{Rig, again, pick, unpick, word};

fn done(outcome: &str) -> Option<(String, Option<String>)> {
    Some(("done".to_owned(), Some(outcome.to_owned())))
}

pub async fn an_action_takes_effect_and_its_output_is_the_reply<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("succeed");
    assert_eq!(rig.ask(&action).await, ReplyBody::Success(Payload::from(json!({ "effect": "picked", "call": 1 }))));
    assert_eq!(rig.effects().await, ["picked"]);
    assert_eq!(rig.inbox(&action).await, done("success"));
}

pub async fn a_compensation_whose_action_never_ran_leaves_a_tombstone<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("succeed");
    assert_eq!(word(&rig.ask(&unpick(&action, "panic")).await), "success");
    assert_eq!(rig.calls(), 0);
    assert_eq!(rig.inbox(&action).await, Some(("tombstone".to_owned(), None)));
    assert_eq!(rig.participant.stats().tombstones, 1);
}

pub async fn an_action_after_its_compensation_is_refused<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("succeed");
    rig.ask(&unpick(&action, "succeed")).await;
    assert_eq!(word(&rig.ask(&action).await), "failure tombstoned");
    assert_eq!(word(&rig.ask(&again(&action)).await), "failure tombstoned");
    assert_eq!((rig.calls(), rig.effects().await.len()), (0, 0));
}

pub async fn a_duplicate_gets_the_stored_reply_under_its_own_token<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("succeed");
    let first = rig.ask(&action).await;
    // `ask` waits for a reply with the second attempt's token.
    assert_eq!(rig.ask(&again(&action)).await, first);
    assert_eq!(rig.effects().await, ["picked"]);
    assert_eq!(rig.participant.stats().replayed, 1);
}

pub async fn a_duplicate_is_answered_to_the_queue_it_names<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("succeed");
    rig.ask(&action).await;
    let mut duplicate = again(&action);
    duplicate.reply_to = "another.queue".to_owned();
    rig.ask(&duplicate).await;
    let routing_key = rig
        .broker
        .until("the duplicate's reply", |events| {
            events.iter().find_map(|event| match event {
                crate::scripted::Event::Published(reply, _) if reply.token == duplicate.token => {
                    Some(reply.routing_key.clone())
                }
                _ => None,
            })
        })
        .await;
    assert_eq!(routing_key, "another.queue");
}

pub async fn a_duplicate_compensation_has_one_effect<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("succeed");
    rig.ask(&action).await;
    let compensation = unpick(&action, "succeed");
    let first = rig.ask(&compensation).await;
    assert_eq!(rig.ask(&again(&compensation)).await, first);
    assert_eq!(rig.effects().await, ["picked", "unpicked"]);
}

pub async fn a_compensation_waits_for_its_action_in_progress<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("wait");
    let compensation = unpick(&action, "succeed");
    rig.broker.deliver(action.encode());
    rig.controls.until_called(1).await;
    let second = rig.broker.deliver(compensation.encode());
    rig.broker.taken(second).await;
    rig.controls.gate.add_permits(1);
    assert_eq!(word(&rig.broker.reply(&action.token).await), "success");
    assert_eq!(word(&rig.broker.reply(&compensation.token).await), "success");
    // Had it not waited, it would have left a tombstone beside an effect.
    assert_eq!(rig.effects().await, ["picked", "unpicked"]);
    assert_eq!(rig.inbox(&action).await, done("success"));
}

pub async fn a_compensation_that_waited_for_a_crash_leaves_a_tombstone<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let (action, gate) = (pick("wait"), &rig.controls.gate);
    let compensation = unpick(&action, "succeed");
    rig.broker.deliver(action.encode());
    rig.controls.until_called(1).await;
    let second = rig.broker.deliver(compensation.encode());
    rig.broker.taken(second).await;
    // The gate fails the handler, whose transaction is rolled back.
    gate.close();
    assert_eq!(word(&rig.broker.reply(&action.token).await), "retry technical");
    assert_eq!(word(&rig.broker.reply(&compensation.token).await), "success");
    assert_eq!(rig.inbox(&action).await, Some(("tombstone".to_owned(), None)));
    assert_eq!(rig.effects().await.len(), 0);
}

pub async fn a_compensation_racing_its_action_never_leaves_half<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let actions: Vec<_> = (0..40).map(|_| pick("succeed")).collect();
    for (i, action) in actions.iter().enumerate() {
        let mut pair = [action.encode(), unpick(action, "succeed").encode()];
        pair.rotate_left(i % 2);
        for message in pair {
            rig.broker.deliver(message);
        }
    }
    let mut undone = 0;
    for action in &actions {
        let answer = word(&rig.broker.reply(&action.token).await);
        assert_eq!(word(&rig.broker.reply(&unpick(action, "").token).await), "success");
        assert!(answer == "success" || answer == "failure tombstoned", "{answer}");
        undone += usize::from(answer == "success");
    }
    let effects = rig.effects().await;
    let of = |name: &str| effects.iter().filter(|effect| *effect == name).count();
    assert_eq!((of("picked"), of("unpicked")), (undone, undone));
}

pub async fn a_hundred_deliveries_at_once_have_one_effect<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let mut attempts = vec![pick("succeed")];
    for i in 1..100 {
        attempts.push(again(&attempts[i - 1]));
    }
    for attempt in &attempts {
        rig.broker.deliver(attempt.encode());
    }
    for attempt in &attempts {
        assert_eq!(word(&rig.broker.reply(&attempt.token).await), "success");
    }
    assert_eq!((rig.effects().await.len(), rig.calls()), (1, 1));
    let stats = rig.participant.stats();
    assert_eq!((stats.done, stats.replayed), (1, 99));
}

pub async fn a_refusal_is_recorded_and_has_no_effect<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("refuse");
    let first = rig.ask(&action).await;
    assert_eq!(word(&first), "failure out-of-stock");
    assert_eq!(rig.ask(&again(&action)).await, first);
    assert_eq!((rig.calls(), rig.effects().await.len()), (1, 0));
    assert_eq!(rig.inbox(&action).await, done("failure"));
}

pub async fn a_refusal_out_of_a_broken_transaction_is_recorded<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("break-and-refuse");
    assert_eq!(word(&rig.ask(&action).await), "failure out-of-stock");
    assert_eq!((rig.inbox(&action).await, rig.effects().await.len()), (done("failure"), 0));
}

pub async fn the_compensation_of_a_refused_action_has_nothing_to_undo<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("refuse");
    rig.ask(&action).await;
    assert_eq!(word(&rig.ask(&unpick(&action, "succeed")).await), "success");
    assert_eq!((rig.calls(), rig.inbox(&action).await), (1, done("failure")));
}

pub async fn a_retry_is_not_recorded<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("later");
    match rig.ask(&action).await {
        ReplyBody::Retry(problem, after) => {
            assert_eq!((&*problem.kind, after), ("carrier-busy", Some(Duration::from_millis(1_500))));
        }
        other => panic!("{other:?}"),
    }
    assert_eq!((rig.inbox(&action).await, rig.effects().await.len()), (None, 0));
    rig.ask(&again(&action)).await;
    assert_eq!(rig.calls(), 2);
}

pub async fn a_database_error_is_a_technical_retry_never_a_refusal<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("break");
    assert_eq!(word(&rig.ask(&action).await), "retry technical");
    assert_eq!((rig.inbox(&action).await, rig.effects().await.len()), (None, 0));
}

pub async fn a_transaction_that_gives_way_is_done_again_at_once<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    assert_eq!(word(&rig.ask(&pick("conflict-once")).await), "success");
    assert_eq!(rig.effects().await, ["picked"]);
}

pub async fn a_crash_before_the_commit_leaves_nothing_and_the_next_attempt_works<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("panic-once");
    assert_eq!(word(&rig.ask(&action).await), "retry technical");
    assert_eq!((rig.inbox(&action).await, rig.effects().await.len()), (None, 0));
    assert_eq!(word(&rig.ask(&again(&action)).await), "success");
    assert_eq!(rig.effects().await, ["picked"]);
    assert_eq!(rig.participant.stats().panicked, 1);
}

pub async fn an_unknown_action_is_refused<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let mut action = pick("succeed");
    action.action = "juggle".to_owned();
    assert_eq!(word(&rig.ask(&action).await), "failure unknown-action");
    assert_eq!(rig.inbox(&action).await, done("failure"));
}

pub async fn an_input_that_cannot_be_read_is_refused<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let mut action = pick("succeed");
    action.body = Payload::from(json!({ "effect": 5 }));
    assert_eq!(word(&rig.ask(&action).await), "failure invalid-input");
    assert_eq!((rig.calls(), rig.inbox(&action).await), (0, done("failure")));
}

pub async fn an_output_that_no_reply_can_hold_is_rolled_back<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("flood");
    assert_eq!(word(&rig.ask(&action).await), "retry technical");
    assert_eq!((rig.inbox(&action).await, rig.effects().await.len()), (None, 0));
}

pub async fn another_generation_of_a_refused_action_runs<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let first = pick("refuse");
    rig.ask(&first).await;
    let mut second = again(&first);
    second.key = idempotency_key(first.saga_id, "pick", "action", 2);
    second.body = pick("succeed").body;
    assert_eq!(word(&rig.ask(&second).await), "success");
    rig.ask(&unpick(&second, "succeed")).await;
    assert_eq!(rig.effects().await, ["picked", "unpicked"]);
}

pub async fn old_rows_are_purged_and_young_ones_kept<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let (old, young) = (pick("succeed"), pick("succeed"));
    rig.ask(&old).await;
    DB::run(&rig.pool, "update amends_inbox set recorded_at = '2001-01-01T00:00:00.000Z'").await.expect("aged");
    rig.ask(&young).await;
    let purged = amends::participant::purge(&rig.pool, Duration::from_secs(3_600)).await.expect("purged");
    assert_eq!(purged, 1);
    assert_eq!((rig.inbox(&old).await, rig.inbox(&young).await), (None, done("success")));
}

pub async fn the_inbox_can_be_migrated_again_and_at_once<DB: TestDatabase>() {
    let (pool, _folder) = DB::fresh().await;
    let all = (0..6).map(|_| amends::participant::migrate(&pool));
    for migrated in futures_util::future::join_all(all).await {
        migrated.expect("migrated");
    }
}

pub async fn a_service_that_starts_does_not_wait_for_handlers_elsewhere<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let action = pick("wait");
    rig.broker.deliver(action.encode());
    rig.controls.until_called(1).await;
    let migrating = amends::participant::migrate(&rig.pool);
    tokio::time::timeout(Duration::from_secs(20), migrating).await.expect("in time").expect("migrated");
    rig.controls.gate.add_permits(1);
    assert_eq!(word(&rig.broker.reply(&action.token).await), "success");
}

pub async fn the_inbox_refuses_rows_that_make_no_sense<DB: TestDatabase>() {
    let (pool, _folder) = DB::fresh().await;
    for statement in [
        "insert into amends_inbox (key, saga_id, step, direction, action, status) values ('a', '0190a0a0-0000-7000-8000-000000000001', 's', 'action', 'x', 'done')",
        "insert into amends_inbox (key, saga_id, step, direction, action, status) values ('a', '0190a0a0-0000-7000-8000-000000000001', 's', 'sideways', 'x', 'open')",
        "insert into amends_inbox (key, saga_id, step, direction, action, status) values ('a', '0190a0a0-0000-7000-8000-000000000001', 's', 'compensation', null, 'tombstone')",
        "insert into amends_inbox (key, saga_id, step, direction, action, status, outcome, body) values ('a', '0190a0a0-0000-7000-8000-000000000001', 's', 'action', 'x', 'done', 'maybe', '{}')",
        "insert into amends_inbox (key, saga_id, step, direction, action, status, outcome) values ('a', '0190a0a0-0000-7000-8000-000000000001', 's', 'action', 'x', 'done', 'success')",
    ] {
        assert!(DB::run(&pool, statement).await.is_err(), "{statement}");
    }
}
