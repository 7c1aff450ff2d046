//! The participant behind the in-process broker: a queue, prefetch, redelivery.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use amends::broker::in_process::InProcessBroker;
use amends::broker::topology::{REPLIES_QUEUE, Topology, commands_queue};
use amends::broker::{Broker, Settlement};
use amends::message::{Command, Reply};
use amends::participant::{Participant, StepError, Work};
use serde_json::Value;
use sqlx::Pool;
use tokio_util::sync::CancellationToken;

use crate::databases::TestDatabase;
use crate::rig::{NAME, again, pick, word};

async fn take<DB: TestDatabase>(input: Value, mut work: Work<DB>) -> Result<(), StepError> {
    DB::effect(work.tx(), input["effect"].as_str().unwrap_or_default()).await?;
    Ok(())
}

/// Runs the service until `stop`, as one process after the other would.
fn serve<DB: TestDatabase>(
    pool: &Pool<DB>,
    broker: &Arc<dyn Broker>,
    stop: &CancellationToken,
) -> tokio::task::JoinHandle<()> {
    let participant = Participant::named(NAME).action("pick", take::<DB>).concurrency(4);
    let participant = participant.build(pool.clone(), Arc::clone(broker)).expect("a valid participant");
    let stop = stop.clone();
    tokio::spawn(async move { participant.run(stop).await.expect("a good end") })
}

pub async fn a_service_that_stops_and_starts_answers_every_command_once<DB: TestDatabase>() {
    const COMMANDS: usize = 120;
    let (pool, _folder) = DB::fresh().await;
    let broker: Arc<dyn Broker> = Arc::new(InProcessBroker::new());
    let mut topology = Topology::coordinator();
    topology.merge(Topology::participant(NAME));
    broker.declare(&topology).await.expect("declared");
    let commands: Vec<Command> = (0..COMMANDS)
        .map(|n| Command { body: serde_json::json!({ "effect": format!("effect {n}") }).into(), ..pick("succeed") })
        .collect();
    // Every third is delivered twice.
    let sent = commands.iter().cloned().chain(commands.iter().step_by(3).map(again));
    let mut awaited: BTreeSet<String> = sent.clone().map(|command| command.token).collect();
    broker.publish(sent.map(|command| command.encode()).collect()).await;

    let (first, second) = (CancellationToken::new(), CancellationToken::new());
    let running = serve::<DB>(&pool, &broker, &first);
    let mut replies = broker.consume(REPLIES_QUEUE, 1_000).await.expect("the reply queue");
    let settler = replies.settler();
    let mut seen = 0;
    let mut stopped = Some(running);
    while !awaited.is_empty() {
        let batch = tokio::time::timeout(Duration::from_secs(60), replies.next(1_000)).await.expect("in time");
        for delivery in batch.expect("an open broker") {
            let reply = Reply::decode(&delivery.envelope).expect("a reply");
            assert_eq!(word(&reply.body), "success");
            awaited.remove(&reply.token);
            settler.settle(vec![(delivery.tag, Settlement::Ack)]).await;
            seen += 1;
        }
        if seen >= 20
            && let Some(running) = stopped.take()
        {
            first.cancel();
            running.await.expect("no panic");
            serve::<DB>(&pool, &broker, &second);
        }
    }
    assert!(stopped.is_none(), "it was stopped on the way");
    let effects: Vec<String> = DB::effects(&pool).await;
    let distinct: BTreeSet<&String> = effects.iter().collect();
    assert_eq!((effects.len(), distinct.len()), (COMMANDS, COMMANDS));
    // The last acknowledgement follows the last reply.
    tokio::time::timeout(Duration::from_secs(30), async {
        while broker.queue(&commands_queue(NAME)).await.expect("answers").expect("a queue").messages > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await
    .expect("every command is acknowledged");
    second.cancel();
}
