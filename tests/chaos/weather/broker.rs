//! What becomes of RabbitMQ, its queues and its bindings.

use amends::broker::topology::commands_queue;
use lapin::types::FieldTable;

use super::{Dice, Land, SEEN};
use crate::city::{ATTEMPT, SERVICES};
use crate::support::{delete_queues, eventually_within};

impl Land {
    pub(super) async fn broker_memory_full(&mut self) {
        self.alarm("memory", &["set_vm_memory_high_watermark", "0.0000001"]).await;
        self.city.rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
    }

    pub(super) async fn broker_disk_full(&mut self) {
        self.alarm("disk", &["set_disk_free_limit", "1000000GB"]).await;
        self.city.rabbit.ctl(&["set_disk_free_limit", "50MB"]).await;
    }

    /// Raises an alarm, sees it, and sees that whoever publishes is held up.
    async fn alarm(&self, kind: &str, raise: &[&str]) {
        let rabbit = &self.city.rabbit;
        rabbit.ctl(raise).await;
        eventually_within(SEEN, &format!("the {kind} alarm is raised"), async || {
            rabbit.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await.contains(kind).then_some(())
        })
        .await;
        eventually_within(SEEN, "a publisher is blocked", async || {
            rabbit.ctl(&["list_connections", "state"]).await.contains("blocked").then_some(())
        })
        .await;
        tokio::time::sleep(ATTEMPT).await;
    }

    /// Whoever needs the queue puts it back.
    pub(super) async fn delete_queue(&self, name: &str) {
        delete_queues(&self.city.rabbit.url(), &[name.to_owned()]).await;
        eventually_within(SEEN, &format!("{name} is there again, and consumed"), async || {
            let status = self.city.broker.queue(name).await.ok()??;
            (status.consumers > 0).then_some(())
        })
        .await;
    }

    pub(super) async fn unbind_commands(&mut self) {
        self.unbind(&commands_queue(SERVICES[0]), "amends.commands", "orders.#").await;
        // The tap takes all commands, so that none comes back that would tell of it. Whoever connects binds again.
        self.services[0].kill_and_restart();
        self.is_bound("amends.commands", "orders.#").await;
    }

    pub(super) async fn unbind_replies(&mut self, dice: &mut Dice) {
        self.unbind("amends.replies", "amends.replies", "amends.replies").await;
        // As above.
        self.coordinators[dice.below(2)].process.kill_and_restart();
        let bound = || self.city.rabbit.ctl(&["list_bindings", "source_name", "destination_name"]);
        eventually_within(SEEN, "the binding is put back", async || {
            bound().await.lines().any(|line| line.split_whitespace().eq(["amends.replies"; 2])).then_some(())
        })
        .await;
    }

    async fn is_bound(&self, exchange: &str, key: &str) {
        let bound = || self.city.rabbit.ctl(&["list_bindings", "source_name", "routing_key"]);
        eventually_within(SEEN, "the binding is put back", async || {
            bound().await.lines().any(|line| line.starts_with(exchange) && line.contains(key)).then_some(())
        })
        .await;
    }

    async fn unbind(&self, queue: &str, exchange: &str, key: &str) {
        let (url, properties) = (self.city.rabbit.url(), lapin::ConnectionProperties::default());
        let connection = lapin::Connection::connect(&url, properties).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        let unbinding = channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default());
        unbinding.await.expect("it is unbound");
        let _ = connection.close(200, "done".into()).await;
    }

    /// Whether nothing waits in any queue of a service or of the coordinators.
    pub async fn is_still(&self) -> bool {
        let mut queues: Vec<String> = SERVICES.iter().map(|name| commands_queue(name)).collect();
        queues.push("amends.replies".to_owned());
        for queue in queues {
            match self.city.broker.queue(&queue).await {
                Ok(Some(status)) if status.messages == 0 => {}
                _ => return false,
            }
        }
        true
    }
}
