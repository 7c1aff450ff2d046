//! Taking, replying and settling, whatever breaks.

use std::time::Duration;

use amends::broker::{Published, Settlement};
use amends::message::ReplyBody;

use crate::databases::TestDatabase;
use crate::rig::{Rig, pick, unknown, unpick, word};
use crate::scripted::Event;

pub async fn a_command_is_acknowledged_only_after_its_reply_is_confirmed<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    rig.broker.hold_confirms();
    let action = pick("wait");
    let tag = rig.broker.deliver(action.encode());
    rig.controls.until_called(1).await;
    rig.controls.gate.add_permits(1);
    let settled = |events: &[Event]| events.iter().any(|event| matches!(event, Event::Settled(..)));
    rig.until_recorded(&action).await;
    assert!(!settled(&rig.broker.events()));
    rig.broker.give_confirms(1);
    assert_eq!(rig.broker.settlement(tag).await, Settlement::Ack);
    let events = rig.broker.events();
    let confirmed = events.iter().position(|event| matches!(event, Event::Published(_, Published::Confirmed)));
    let acknowledged = events.iter().position(|event| matches!(event, Event::Settled(..)));
    assert!(confirmed < acknowledged, "{events:?}");
}

pub async fn a_reply_of_unknown_fate_is_published_again<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    rig.broker.next_outcomes([unknown(), Published::Refused, unknown()]);
    assert_eq!(word(&rig.ask(&pick("succeed")).await), "success");
    assert_eq!((rig.calls(), rig.participant.stats().republished), (1, 3));
}

pub async fn a_reply_that_no_queue_takes_sends_its_command_back<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    rig.broker.next_outcomes(std::iter::repeat_n(Published::Returned("NO_ROUTE".to_owned()), 5));
    let tag = rig.broker.deliver(pick("succeed").encode());
    assert_eq!(rig.broker.settlement(tag).await, Settlement::Requeue);
}

pub async fn a_crash_after_the_commit_and_before_the_reply_loses_nothing<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    rig.broker.hold_confirms();
    let action = pick("succeed");
    rig.broker.deliver(action.encode());
    rig.until_recorded(&action).await;
    // The old process is as good as dead: its reply is never confirmed. The broker delivers again, to the next one.
    let next = rig.restarted();
    assert_eq!(word(&next.ask(&action).await), "success");
    assert_eq!((next.effects().await.len(), next.calls()), (1, 0));
    assert_eq!(next.participant.stats().replayed, 1);
}

pub async fn a_stop_with_the_broker_away_gives_the_command_back<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    rig.broker.next_outcomes(std::iter::repeat_n(unknown(), 1_000));
    let tag = rig.broker.deliver(pick("succeed").encode());
    rig.broker
        .until("a first try", |events| events.iter().any(|event| matches!(event, Event::Published(..))).then_some(()))
        .await;
    rig.stop.cancel();
    assert_eq!(rig.broker.settlement(tag).await, Settlement::Requeue);
    rig.running.await.expect("no panic").expect("a good end");
}

pub async fn a_stop_takes_nothing_new_and_finishes_what_runs<DB: TestDatabase>() {
    let mut rig = Rig::<DB>::start_with(|participant| participant.concurrency(1)).await;
    let (running, waiting) = (pick("wait"), pick("succeed"));
    let first = rig.broker.deliver(running.encode());
    let second = rig.broker.deliver(waiting.encode());
    rig.controls.until_called(1).await;
    rig.stop.cancel();
    tokio::time::timeout(Duration::from_millis(100), &mut rig.running).await.expect_err("it waits for the handler");
    rig.controls.gate.add_permits(1);
    (&mut rig.running).await.expect("no panic").expect("a good end");
    let events = rig.broker.events();
    assert!(
        events.iter().any(|event| matches!(event, Event::Settled(tag, Settlement::Ack) if *tag == first)),
        "{events:?}"
    );
    assert!(!events.iter().any(|event| matches!(event, Event::Taken(tag) if *tag == second)), "{events:?}");
    assert_eq!(DB::effects(&rig.pool).await, ["picked"]);
}

pub async fn no_more_handlers_run_at_once_than_allowed<DB: TestDatabase>() {
    let rig = Rig::<DB>::start_with(|participant| participant.concurrency(2)).await;
    let actions: Vec<_> = (0..6).map(|_| pick("wait")).collect();
    for action in &actions {
        rig.broker.deliver(action.encode());
    }
    rig.controls.until_called(1).await;
    rig.controls.gate.add_permits(6);
    for action in &actions {
        assert_eq!(word(&rig.broker.reply(&action.token).await), "success");
    }
    assert!(*rig.controls.most_inside.borrow() <= 2);
}

pub async fn heartbeats_go_out_while_a_handler_runs<DB: TestDatabase>() {
    let rig = Rig::<DB>::start_with(|participant| participant.heartbeat(Duration::from_millis(20))).await;
    let action = pick("wait");
    rig.broker.deliver(action.encode());
    rig.broker
        .until("three heartbeats", |events| {
            let beats = events.iter().filter(
                |event| matches!(event, Event::Published(reply, _) if reply.body == ReplyBody::InProgress && reply.token == action.token),
            );
            (beats.count() >= 3).then_some(())
        })
        .await;
    rig.controls.gate.add_permits(1);
    assert_eq!(word(&rig.broker.reply(&action.token).await), "success");
}

pub async fn a_handler_can_send_a_heartbeat<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    assert_eq!(word(&rig.ask(&pick("beat")).await), "success");
    let events = rig.broker.events();
    assert!(matches!(&events[1], Event::Published(reply, _) if reply.body == ReplyBody::InProgress), "{events:?}");
}

pub async fn a_message_that_is_no_command_goes_to_the_dead_letters<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let good = pick("succeed").encode();
    let mut broken = vec![good.clone(), good.clone(), good.clone(), unpick(&pick("succeed"), "succeed").encode()];
    broken[0].body = b"{".to_vec();
    broken[1].properties.headers.insert("amends-key".into(), "k".repeat(600).into());
    broken[2].properties.headers.insert("amends-key".into(), "a\0b".into());
    broken[3].properties.headers.remove("amends-compensates");
    let mut stray = pick("succeed");
    stray.participant = "payments".to_owned();
    broken.push(stray.encode());
    for (i, message) in broken.into_iter().enumerate() {
        let tag = rig.broker.deliver(message);
        assert_eq!(rig.broker.settlement(tag).await, Settlement::Reject, "message {i}");
    }
    assert_eq!(rig.participant.stats().rejected, 5);
    // And the queue goes on behind them.
    assert_eq!(word(&rig.ask(&pick("succeed")).await), "success");
}

pub async fn a_database_that_is_away_is_a_technical_retry<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    rig.pool.close().await;
    assert_eq!(word(&rig.ask(&pick("succeed")).await), "retry technical");
}

pub async fn work_kept_beyond_its_handler_is_rolled_back<DB: TestDatabase>() {
    let rig = Rig::<DB>::start().await;
    let mut action = pick("keep");
    action.body = serde_json::json!({ "effect": "keep", "then": "keep" }).into();
    assert_eq!(word(&rig.ask(&action).await), "retry technical");
    assert_eq!(rig.effects().await.len(), 0);
}
