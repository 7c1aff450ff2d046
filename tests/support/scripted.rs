//! Participants for tests: they say what the test tells them to, and remember what they were sent.

use std::sync::{Arc, Mutex};

use amends::broker::{Broker, Settlement, Topology};
use amends::message::reply::ReplyProblem;
use amends::message::{Command, Reply, ReplyBody};
use amends::payload::Payload;

/// What a scripted participant answers to a command: any number of replies, in order.
pub type Script = Arc<dyn Fn(&Command) -> Vec<ReplyBody> + Send + Sync>;

/// A participant without a database. Stops when dropped.
pub struct Scripted {
    seen: Arc<Mutex<Vec<Command>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Scripted {
    /// Takes part as `name`.
    pub async fn start(
        broker: &Arc<dyn Broker>,
        name: &str,
        script: impl Fn(&Command) -> Vec<ReplyBody> + Send + Sync + 'static,
    ) -> Self {
        broker.declare(&Topology::participant(name)).await.expect("the participant's queue is declared");
        let mut consumer = broker.consume(&format!("{name}.commands"), 256).await.expect("the queue is consumed");
        let seen: Arc<Mutex<Vec<Command>>> = Arc::default();
        let (broker, remembered, script) = (broker.clone(), seen.clone(), Arc::new(script) as Script);
        let task = tokio::spawn(async move {
            let settler = consumer.settler();
            while let Some(deliveries) = consumer.next(256).await {
                let mut replies = Vec::new();
                let mut acks = Vec::new();
                for delivery in deliveries {
                    let command = Command::decode(&delivery.envelope).expect("the coordinator's commands can be read");
                    let (token, routing_key) = (command.token.clone(), command.reply_to.clone());
                    replies.extend(
                        script(&command).into_iter().map(|body| {
                            Reply { token: token.clone(), routing_key: routing_key.clone(), body }.encode()
                        }),
                    );
                    remembered.lock().expect("no panic while locked").push(command);
                    acks.push((delivery.tag, Settlement::Ack));
                }
                broker.publish(replies).await;
                settler.settle(acks).await;
            }
        });
        Self { seen, task }
    }

    /// Every command that arrived, in order.
    pub fn seen(&self) -> Vec<Command> {
        self.seen.lock().expect("no panic while locked").clone()
    }

    /// `<step>/<direction>#<attempt>` of every command that arrived, in order.
    pub fn log(&self) -> Vec<String> {
        let line = |command: &Command| {
            let direction = if command.is_compensation { "compensation" } else { "action" };
            format!("{}/{direction}#{}", command.step, command.attempt)
        };
        self.seen().iter().map(line).collect()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// `success` with an output.
pub fn success(output: serde_json::Value) -> ReplyBody {
    ReplyBody::Success(Payload::from(output))
}

/// `success` with nothing to say.
pub fn done() -> ReplyBody {
    success(serde_json::json!({}))
}

/// `failure`.
pub fn refusal(kind: &str) -> ReplyBody {
    ReplyBody::Failure(problem(kind))
}

/// `retry` by the policy's own wait.
pub fn retry(kind: &str) -> ReplyBody {
    ReplyBody::Retry(problem(kind), None)
}

fn problem(kind: &str) -> ReplyProblem {
    ReplyProblem { kind: kind.to_owned(), title: format!("{kind}, says the test"), detail: None }
}
