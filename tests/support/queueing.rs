//! A participant that counts what is asked of it at once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::broker::{Broker, Settlement, Topology};
use amends::message::{Command, Reply};

use super::scripted::success;

/// How long nothing more must come before one of those that wait is answered.
const QUIET: Duration = Duration::from_millis(60);

/// Answers the oldest command whenever nothing more comes. Stops when dropped.
pub struct Queueing {
    /// How many commands waited for an answer, whenever one was answered.
    waiting: Arc<Mutex<Vec<usize>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Queueing {
    /// Takes part as `name`.
    pub async fn start(broker: &Arc<dyn Broker>, name: &str) -> Self {
        broker.declare(&Topology::participant(name)).await.expect("the participant's queue is declared");
        let mut consumer = broker.consume(&format!("{name}.commands"), 256).await.expect("the queue is consumed");
        let waiting: Arc<Mutex<Vec<usize>>> = Arc::default();
        let (broker, counted) = (broker.clone(), waiting.clone());
        let task = tokio::spawn(async move {
            let settler = consumer.settler();
            let mut open = VecDeque::new();
            loop {
                let next = consumer.next(256);
                match tokio::time::timeout(QUIET, next).await {
                    Ok(Some(deliveries)) => open.extend(deliveries),
                    Ok(None) => return,
                    Err(_) => {
                        let Some(oldest) = open.front().cloned() else { continue };
                        counted.lock().expect("no panic while locked").push(open.len());
                        open.pop_front();
                        let command =
                            Command::decode(&oldest.envelope).expect("the coordinator's commands can be read");
                        let body = success(serde_json::json!({ "key": command.key }));
                        let reply = Reply { token: command.token, routing_key: command.reply_to, body };
                        broker.publish(vec![reply.encode()]).await;
                        settler.settle(vec![(oldest.tag, Settlement::Ack)]).await;
                    }
                }
            }
        });
        Self { waiting, task }
    }

    /// How many commands waited for an answer, whenever one was answered.
    pub fn waiting(&self) -> Vec<usize> {
        self.waiting.lock().expect("no panic while locked").clone()
    }
}

impl Drop for Queueing {
    fn drop(&mut self) {
        self.task.abort();
    }
}
