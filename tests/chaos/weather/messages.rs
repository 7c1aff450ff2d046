//! Messages that come again, come from strangers, or cannot be read.

use amends::id::{CommandId, SagaId, Seq};
use amends::message::{Command, Envelope, Reply, ReplyBody, TokenKey, TokenKeys};
use amends::payload::Payload;
use serde_json::json;

use super::{Dice, Land, SEEN};
use crate::judge::Tapped;
use crate::support::eventually_within;

const DEAD_REPLIES: &str = "amends.replies.dead";
const DEAD_COMMANDS: &str = "warehouse.commands.dead";

impl Land {
    /// Publishes old messages again, shuffled; those of sagas under way as well as of those that have ended.
    pub(super) async fn repeat(&self, dice: &mut Dice, which: impl Fn(&Tapped) -> Option<Envelope>) {
        let mut old: Vec<Envelope> = self.city.tap.heard().await.iter().rev().filter_map(which).take(60).collect();
        assert!(!old.is_empty(), "there is something to repeat");
        dice.shuffle(&mut old);
        old.truncate(30);
        self.publish(old).await;
    }

    /// The newest commands, newest first.
    async fn commands(&self, participant: &str, count: usize) -> Vec<Command> {
        let heard = self.city.tap.heard().await;
        let commands = heard.iter().rev().filter_map(|tapped| match tapped {
            Tapped::Command(command) if participant.is_empty() || command.participant == participant => {
                Some((**command).clone())
            }
            _ => None,
        });
        commands.take(count).collect()
    }

    /// Success for commands under way, with tokens of another key, of another command, and with none.
    pub(super) async fn forge(&self, dice: &mut Dice) {
        let strangers = TokenKeys::new(vec![TokenKey { id: 1, secret: [7; 32] }]).expect("a key");
        let mut forged = Vec::new();
        for command in self.commands("", 20).await {
            let about = CommandId { saga: command.saga_id, seq: Seq(1 + u32::try_from(dice.below(6)).expect("small")) };
            let token = match dice.below(3) {
                0 => strangers.sign(about, 1),
                1 => strangers.sign(CommandId { saga: SagaId::fresh(), seq: Seq(1) }, 1),
                _ => format!("{}x", command.token),
            };
            let body = ReplyBody::Success(Payload::from(json!({ "forged": true })));
            forged.push(Reply { token, routing_key: command.reply_to.clone(), body }.encode());
        }
        assert!(!forged.is_empty(), "there is something to forge");
        self.are_buried(DEAD_REPLIES, forged).await;
    }

    /// Messages that nobody can read, among them replies with the right token.
    pub(super) async fn poison(&self) {
        let commands = self.commands("warehouse", 1).await;
        let command = commands.first().expect("there is a command");
        let mut nameless = command.encode();
        nameless.properties.headers.clear();
        self.are_buried(DEAD_COMMANDS, vec![nameless]).await;
        let reply = |body: Vec<u8>| {
            let success = ReplyBody::Success(Payload::from(json!({})));
            let reply = Reply { token: command.token.clone(), routing_key: command.reply_to.clone(), body: success };
            Envelope { body, ..reply.encode() }
        };
        let mut nowhere = reply(Vec::new());
        nowhere.properties.headers.clear();
        let bodies = [vec![0xff; 1024], vec![b'['; 100_000], b"{\"a\":".to_vec()];
        let odd = bodies.into_iter().map(reply).chain([nowhere]).collect();
        self.are_buried(DEAD_REPLIES, odd).await;
    }

    /// A command and a reply that are far too big, and a start.
    pub(super) async fn huge(&self) {
        let commands = self.commands("warehouse", 1).await;
        let command = commands.first().expect("there is a command");
        let mut huge = command.encode();
        huge.body = vec![b'['; 2 * 1024 * 1024];
        self.are_buried(DEAD_COMMANDS, vec![huge]).await;
        let body = ReplyBody::Success(Payload::from(json!({})));
        let mut reply = Reply { token: command.token.clone(), routing_key: command.reply_to.clone(), body }.encode();
        reply.body = vec![b'['; 16 * 1024 * 1024];
        self.are_buried(DEAD_REPLIES, vec![reply]).await;
        let client = reqwest::Client::new();
        let url = format!("{}/v1/sagas", self.coordinators[0].url);
        eventually_within(SEEN, "a start that is too big is refused", async || {
            // By one byte: of more the server reads nothing, and the client may hear of that before it hears why.
            let post = client.post(&url).header("content-type", "application/json");
            let answer = post.body(vec![b'['; 2 * 1024 * 1024 + 1]).send().await.ok()?;
            (answer.status() == 413).then_some(())
        })
        .await;
    }

    /// Publishes messages that must end among the dead.
    async fn are_buried(&self, dead: &str, messages: Vec<Envelope>) {
        let before = self.depth(dead).await;
        let count = u32::try_from(messages.len()).expect("few");
        self.publish(messages).await;
        let what = format!("{count} more among the dead of {dead}");
        eventually_within(SEEN, &what, async || (self.depth(dead).await >= before + count).then_some(())).await;
    }

    async fn depth(&self, queue: &str) -> u32 {
        eventually_within(SEEN, "messages are counted", async || {
            Some(self.city.broker.queue(queue).await.ok()??.messages)
        })
        .await
    }

    /// Until the broker has all of it: a fault that is lost is none.
    async fn publish(&self, messages: Vec<Envelope>) {
        let (mut left, begun) = (messages, tokio::time::Instant::now());
        while !left.is_empty() {
            assert!(begun.elapsed() < SEEN, "the broker does not confirm {left:?}");
            let outcomes = self.city.broker.publish(left.clone()).await;
            let unsure = |outcome: &amends::broker::Published| matches!(outcome, amends::broker::Published::Unknown(_));
            left = left.into_iter().zip(outcomes).filter(|(_, outcome)| unsure(outcome)).map(|(one, _)| one).collect();
        }
    }
}
