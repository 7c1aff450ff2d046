//! The faults of a storm: each does its harm, sees that it was done, and heals it.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use amends::broker::topology::commands_queue;
use amends::id::{CommandId, SagaId, Seq};
use amends::message::{Command as Message, Envelope, Reply, ReplyBody, TokenKey, TokenKeys};
use amends::payload::Payload;
use serde_json::json;

use crate::city::{ATTEMPT, City, SERVICES, Server};
use crate::judge::Tapped;
use crate::support::processes::Process;
use crate::support::proxy::Proxy;
use crate::support::{delete_queues, eventually, eventually_within};

/// Numbers that a seed gives: splitmix64.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, n: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(n).expect("small")).expect("small")
    }

    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for at in (1..items.len()).rev() {
            items.swap(at, self.below(at + 1));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    CoordinatorKilled,
    ServiceKilled,
    CoordinatorStopped,
    ServiceStopped,
    PostgresKilled,
    RabbitKilled,
    RabbitRestarted,
    StoreCut,
    StoreHalfOpen,
    BrokerCut,
    BrokerHalfOpen,
    BrokerRefused,
    CommandsRepeated,
    RepliesRepeated,
    RepliesForged,
    QueueDeleted,
    ReplyQueueDeleted,
    BindingDeleted,
    MemoryAlarm,
    Junk,
}

impl Fault {
    pub const ALL: [Self; 20] = [
        Self::CoordinatorKilled,
        Self::ServiceKilled,
        Self::CoordinatorStopped,
        Self::ServiceStopped,
        Self::PostgresKilled,
        Self::RabbitKilled,
        Self::RabbitRestarted,
        Self::StoreCut,
        Self::StoreHalfOpen,
        Self::BrokerCut,
        Self::BrokerHalfOpen,
        Self::BrokerRefused,
        Self::CommandsRepeated,
        Self::RepliesRepeated,
        Self::RepliesForged,
        Self::QueueDeleted,
        Self::ReplyQueueDeleted,
        Self::BindingDeleted,
        Self::MemoryAlarm,
        Self::Junk,
    ];

    /// Whether it takes longer than a short run has.
    pub fn is_slow(self) -> bool {
        matches!(self, Self::RabbitKilled | Self::RabbitRestarted)
    }
}

/// All that faults are done to. The second coordinator and the payments service have proxies before their servers.
pub struct Land {
    // Dropped in this order: the processes before the city, whose folder holds their logs.
    pub coordinators: Vec<Server>,
    pub services: Vec<Process>,
    pub store_proxy: Proxy,
    pub broker_proxy: Proxy,
    pub city: City,
}

impl Land {
    pub async fn found() -> Self {
        let city = City::found().await;
        let (store, broker) = (city.database("amends"), city.rabbit.url());
        let (store_proxy, broker_proxy) = (Proxy::before(&store).await, Proxy::before(&broker).await);
        let one = city.coordinator("one", &store, &broker, None).await;
        let two = city.coordinator("two", &store_proxy.url(&store), &broker_proxy.url(&broker), None).await;
        let through = broker_proxy.url(&broker);
        let services =
            SERVICES.map(|name| city.service(name, if name == "payments" { &through } else { &broker }, None));
        Self { city, coordinators: vec![one, two], services: services.into(), store_proxy, broker_proxy }
    }

    /// Does the fault, sees it, heals it.
    pub async fn suffer(&mut self, fault: Fault, dice: &mut Dice) {
        match fault {
            Fault::CoordinatorKilled => self.coordinators[dice.below(2)].process.kill_and_restart(),
            Fault::ServiceKilled => self.services[dice.below(3)].kill_and_restart(),
            Fault::CoordinatorStopped => stop_and_go(&self.coordinators[dice.below(2)].process).await,
            Fault::ServiceStopped => stop_and_go(&self.services[dice.below(3)]).await,
            Fault::PostgresKilled => {
                let before = started_at(&self.city).await;
                self.city.postgres.kill_and_restart().await;
                assert_ne!(started_at(&self.city).await, before, "it is another server");
            }
            Fault::RabbitKilled => self.city.rabbit.kill_and_restart().await,
            Fault::RabbitRestarted => self.city.rabbit.restart().await,
            Fault::StoreCut => cut(&self.store_proxy).await,
            Fault::BrokerCut => cut(&self.broker_proxy).await,
            Fault::StoreHalfOpen => half_open(&self.store_proxy).await,
            Fault::BrokerHalfOpen => half_open(&self.broker_proxy).await,
            Fault::BrokerRefused => {
                self.broker_proxy.refuse();
                eventually("nobody is connected", async || (self.broker_proxy.open() == 0).then_some(())).await;
                tokio::time::sleep(ATTEMPT).await;
                self.broker_proxy.pass();
            }
            Fault::CommandsRepeated => {
                self.repeat(dice, |tapped| match tapped {
                    Tapped::Command(command) => Some(command.encode()),
                    _ => None,
                })
                .await
            }
            Fault::RepliesRepeated => {
                self.repeat(dice, |tapped| match tapped {
                    Tapped::Reply(reply) => Some(reply.encode()),
                    _ => None,
                })
                .await
            }
            Fault::RepliesForged => self.forge(dice).await,
            Fault::QueueDeleted => {
                let name = commands_queue("warehouse");
                delete_queues(&self.city.rabbit.url(), std::slice::from_ref(&name)).await;
                self.is_back(&name).await;
            }
            Fault::ReplyQueueDeleted => {
                let name = "amends.replies".to_owned();
                delete_queues(&self.city.rabbit.url(), std::slice::from_ref(&name)).await;
                self.is_back(&name).await;
            }
            Fault::BindingDeleted => self.unbind().await,
            Fault::MemoryAlarm => {
                self.city.rabbit.ctl(&["set_vm_memory_high_watermark", "0.0000001"]).await;
                let alarms = self.city.rabbit.ctl(&["eval", "rabbit_alarm:get_alarms()."]).await;
                assert!(alarms.contains("memory"), "the alarm is raised: {alarms}");
                tokio::time::sleep(ATTEMPT).await;
                self.city.rabbit.ctl(&["set_vm_memory_high_watermark", "0.6"]).await;
            }
            Fault::Junk => self.junk().await,
        }
    }

    /// Publishes old messages again, shuffled; those of sagas under way as well as of those that have ended.
    async fn repeat(&self, dice: &mut Dice, which: impl Fn(&Tapped) -> Option<Envelope>) {
        let heard = self.city.tap.heard().await;
        let mut old: Vec<Envelope> = heard.iter().rev().filter_map(which).take(60).collect();
        assert!(!old.is_empty(), "there is something to repeat");
        dice.shuffle(&mut old);
        old.truncate(30);
        self.publish(old).await;
    }

    /// Success for commands under way, with tokens of another key, of another command, and with none.
    async fn forge(&self, dice: &mut Dice) {
        let heard = self.city.tap.heard().await;
        let commands: Vec<&Message> = heard
            .iter()
            .rev()
            .filter_map(|tapped| match tapped {
                Tapped::Command(command) => Some(&**command),
                _ => None,
            })
            .take(20)
            .collect();
        let strangers = TokenKeys::new(vec![TokenKey { id: 1, secret: [7; 32] }]).expect("a key");
        let mut forged = Vec::new();
        for command in commands {
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
        let before = self.dead().await;
        let count = u32::try_from(forged.len()).expect("few");
        self.publish(forged).await;
        let what = "forged replies are among the dead letters";
        eventually_within(Duration::from_secs(60), what, async || (self.dead().await >= before + count).then_some(()))
            .await;
    }

    async fn dead(&self) -> u32 {
        eventually_within(Duration::from_secs(60), "the dead letters are counted", async || {
            Some(self.city.broker.queue("amends.replies.dead").await.ok()??.messages)
        })
        .await
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

    /// Messages that nobody can read, to services and coordinators.
    async fn junk(&self) {
        let Some(Tapped::Command(command)) =
            self.city.tap.heard().await.into_iter().find(|tapped| matches!(tapped, Tapped::Command(_)))
        else {
            panic!("there is a command");
        };
        let mut huge = command.encode();
        huge.body = vec![b'['; 2 * 1024 * 1024];
        let mut nameless = command.encode();
        nameless.properties.headers.clear();
        let reply = Reply { token: "x".to_owned(), routing_key: command.reply_to.clone(), body: ReplyBody::InProgress };
        let mut odd = reply.encode();
        odd.body = vec![0xff; 1024];
        self.publish(vec![huge, nameless, odd]).await;
    }

    /// Until the broker has all of it: a fault that is lost is none.
    async fn publish(&self, messages: Vec<Envelope>) {
        let mut left = messages;
        while !left.is_empty() {
            let outcomes = self.city.broker.publish(left.clone()).await;
            let unsure = |outcome: &amends::broker::Published| matches!(outcome, amends::broker::Published::Unknown(_));
            left = left.into_iter().zip(outcomes).filter(|(_, outcome)| unsure(outcome)).map(|(one, _)| one).collect();
        }
    }

    /// Whoever needs the queue puts it back.
    async fn is_back(&self, name: &str) {
        eventually_within(Duration::from_secs(60), &format!("{name} is there again, and consumed"), async || {
            let status = self.city.broker.queue(name).await.ok()??;
            (status.consumers > 0).then_some(())
        })
        .await;
    }

    async fn unbind(&mut self) {
        let url = self.city.rabbit.url();
        let connection =
            lapin::Connection::connect(&url, lapin::ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("a channel");
        let (queue, key) = (commands_queue("orders"), "orders.#");
        channel
            .queue_unbind(
                queue.as_str().into(),
                "amends.commands".into(),
                key.into(),
                lapin::types::FieldTable::default(),
            )
            .await
            .expect("it is unbound");
        let _ = connection.close(200, "done".into()).await;
        // The tap takes all commands, so that none comes back that would tell of it. Whoever connects binds again.
        self.services[0].kill_and_restart();
        let is_bound = async || {
            let bindings = self.city.rabbit.ctl(&["list_bindings", "source_name", "routing_key"]).await;
            bindings.lines().any(|line| line.starts_with("amends.commands") && line.contains(key))
        };
        eventually_within(Duration::from_secs(60), "the binding is put back", async || is_bound().await.then_some(()))
            .await;
    }
}

async fn started_at(city: &City) -> String {
    let pool = sqlx::PgPool::connect(&city.postgres.url()).await.expect("PostgreSQL answers");
    sqlx::query_scalar("select pg_postmaster_start_time()::text").fetch_one(&pool).await.expect("it says when")
}

/// SIGSTOP, seen, for longer than an attempt may take; SIGCONT.
async fn stop_and_go(process: &Process) {
    let id = process.id();
    signal(id, "STOP");
    let is_stopped = || {
        let status = std::fs::read_to_string(PathBuf::from(format!("/proc/{id}/stat"))).ok()?;
        // The name stands in brackets and may hold anything.
        status.rsplit_once(") ")?.1.starts_with('T').then_some(())
    };
    eventually("it stands still", async || is_stopped()).await;
    tokio::time::sleep(ATTEMPT + Duration::from_secs(1)).await;
    signal(id, "CONT");
    eventually("it goes on", async || is_stopped().is_none().then_some(())).await;
}

fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "SIG{name} is sent");
}

async fn cut(proxy: &Proxy) {
    eventually_within(Duration::from_secs(60), "somebody is connected", async || (proxy.open() > 0).then_some(()))
        .await;
    let before = proxy.accepted();
    proxy.cut();
    let what = "they connect again";
    eventually_within(Duration::from_secs(60), what, async || (proxy.accepted() > before).then_some(())).await;
}

/// Connections stay open and nothing comes through, for longer than an attempt may take; then they break.
async fn half_open(proxy: &Proxy) {
    eventually_within(Duration::from_secs(60), "somebody is connected", async || (proxy.open() > 0).then_some(()))
        .await;
    proxy.stall();
    tokio::time::sleep(ATTEMPT + Duration::from_secs(1)).await;
    assert!(proxy.open() > 0, "somebody still believes to be connected");
    proxy.cut();
    proxy.pass();
}
