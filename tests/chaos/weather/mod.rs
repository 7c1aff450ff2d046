//! The faults of a storm: each does its harm, sees that it was done, and heals it.

mod broker;
mod dice;
mod messages;
mod network;
mod processes;
mod store;
mod time;

use std::time::Duration;

pub use dice::Dice;

use crate::city::{ATTEMPT, City, SERVICES, Server};
use crate::judge::Tapped;
use crate::support::processes::Process;
use crate::support::proxy::Proxy;

/// How long a fault may take to be seen, or to be got over, on a busy machine.
const SEEN: Duration = Duration::from_secs(90);

macro_rules! faults {
    ($($(#[$doc:meta])* $fault:ident,)*) => {
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum Fault { $($(#[$doc])* $fault,)* }

        impl Fault {
            pub const ALL: &[Self] = &[$(Self::$fault,)*];
        }
    };
}

faults! {
    CoordinatorKilled,
    /// At a named point.
    CoordinatorDies,
    /// For longer than an attempt may take.
    CoordinatorStopped,
    ServiceKilled,
    /// At a named point.
    ServiceDies,
    ServiceStopped,
    PostgresKilled,
    PostgresRestarted,
    RabbitKilled,
    RabbitRestarted,
    RabbitStopped,
    StoreCut,
    /// Connections are there, and nothing comes through.
    StoreHalfOpen,
    StoreSlow,
    /// The connection is cut after a COMMIT has been carried out, and before its answer.
    CommitUnanswered,
    BrokerCut,
    BrokerHalfOpen,
    BrokerSlow,
    BrokerRefused,
    /// The connection is cut when the broker confirms.
    ConfirmLost,
    /// No more data fits.
    StoreDiskFull,
    /// No more write-ahead log fits, of which PostgreSQL dies.
    LogDiskFull,
    BrokerDiskFull,
    BrokerMemoryFull,
    /// Every connection that PostgreSQL gives is taken by others.
    ConnectionsTaken,
    /// By a foreign transaction.
    TableLocked,
    QueueDeleted,
    ReplyQueueDeleted,
    BindingDeleted,
    ReplyBindingDeleted,
    /// Again, and in another order.
    CommandsRepeated,
    RepliesRepeated,
    RepliesForged,
    /// What nobody can read.
    Poison,
    Huge,
    /// Those of a coordinator and of a service.
    ClocksJump,
    StoreClockJumps,
    StoreClockSetBack,
}

impl Fault {
    /// Whether it takes longer than a short run has.
    pub fn is_slow(self) -> bool {
        matches!(
            self,
            Self::RabbitKilled
                | Self::RabbitRestarted
                | Self::RabbitStopped
                | Self::PostgresRestarted
                | Self::BrokerSlow
                | Self::BrokerHalfOpen
                | Self::StoreDiskFull
                | Self::BrokerDiskFull
                | Self::ServiceStopped
                | Self::ReplyBindingDeleted
                | Self::StoreClockSetBack
        )
    }

    /// Whether it can end a publisher, or the broker, between two queues that take the same message.
    pub fn may_keep_a_reply_from_the_tap(self) -> bool {
        matches!(
            self,
            Self::CoordinatorKilled
                | Self::CoordinatorDies
                | Self::ServiceKilled
                | Self::ServiceDies
                | Self::RabbitKilled
                | Self::RabbitRestarted
                | Self::BrokerCut
                | Self::BrokerHalfOpen
                | Self::BrokerRefused
                | Self::ConfirmLost
        )
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
    /// Whether faults may last longer than the longest time-out.
    is_patient: bool,
    /// Seconds that the store's clock is off.
    store_clock: i64,
    /// Seconds that it was set back, in all.
    pub set_back: u64,
}

impl Land {
    pub async fn found(is_patient: bool) -> Self {
        let city = City::found().await;
        let (store, broker) = (city.database("amends"), city.rabbit.url());
        let (store_proxy, broker_proxy) = (Proxy::before(&store).await, Proxy::before(&broker).await);
        let one = city.coordinator("one", &store, &broker, None).await;
        let two = city.coordinator("two", &store_proxy.url(&store), &broker_proxy.url(&broker), None).await;
        let services = SERVICES.map(|name| {
            let database = city.database(name);
            if name == "payments" {
                return city.service(name, &store_proxy.url(&database), &broker_proxy.url(&broker), None);
            }
            city.service(name, &database, &broker, None)
        });
        Self {
            city,
            coordinators: vec![one, two],
            services: services.into(),
            store_proxy,
            broker_proxy,
            is_patient,
            store_clock: 0,
            set_back: 0,
        }
    }

    /// Why this machine cannot have such a fault.
    pub fn cannot_have(&self, fault: Fault) -> Option<&'static str> {
        let needs_disk = matches!(fault, Fault::StoreDiskFull | Fault::LogDiskFull);
        let needs_clock = matches!(fault, Fault::ClocksJump | Fault::StoreClockJumps | Fault::StoreClockSetBack);
        if needs_disk && self.city.postgres.disk("wal").is_none() {
            Some("no small disk: no right to mount one")
        } else if needs_clock && self.city.clocks.library().is_none() {
            Some("no clocks of their own: not Linux, or no C compiler")
        } else {
            None
        }
    }

    /// Does the fault, sees it, heals it.
    pub async fn suffer(&mut self, fault: Fault, dice: &mut Dice) {
        match fault {
            Fault::CoordinatorKilled => self.coordinators[dice.below(2)].process.kill_and_restart(),
            Fault::CoordinatorDies => self.coordinator_dies(dice).await,
            Fault::CoordinatorStopped => {
                let while_stopped = self.while_it_lasts(dice);
                processes::stop_and_go(self.coordinators[dice.below(2)].process.id(), while_stopped).await;
            }
            Fault::ServiceKilled => self.services[dice.below(3)].kill_and_restart(),
            Fault::ServiceDies => self.service_dies(dice).await,
            Fault::ServiceStopped => {
                let while_stopped = self.while_it_lasts(dice);
                processes::stop_and_go(self.services[dice.below(3)].id(), while_stopped).await;
            }
            Fault::PostgresKilled => self.restart_postgres(true).await,
            Fault::PostgresRestarted => self.restart_postgres(false).await,
            Fault::RabbitKilled => self.city.rabbit.kill_and_restart().await,
            Fault::RabbitRestarted => self.city.rabbit.restart().await,
            Fault::RabbitStopped => processes::stop_and_go(self.city.rabbit.id(), self.while_it_lasts(dice)).await,
            Fault::StoreCut => network::cut(&self.store_proxy).await,
            Fault::StoreHalfOpen => network::half_open(&self.store_proxy, self.while_it_lasts(dice)).await,
            Fault::StoreSlow => network::slow(&self.store_proxy).await,
            Fault::CommitUnanswered => network::unanswered(&self.store_proxy, network::COMMITTED).await,
            Fault::BrokerCut => network::cut(&self.broker_proxy).await,
            Fault::BrokerHalfOpen => network::half_open(&self.broker_proxy, self.while_it_lasts(dice)).await,
            Fault::BrokerSlow => network::slow(&self.broker_proxy).await,
            Fault::BrokerRefused => network::refused(&self.broker_proxy).await,
            Fault::ConfirmLost => network::unanswered(&self.broker_proxy, network::CONFIRM).await,
            Fault::StoreDiskFull => self.store_disk_full().await,
            Fault::LogDiskFull => self.log_disk_full().await,
            Fault::BrokerDiskFull => self.broker_disk_full().await,
            Fault::BrokerMemoryFull => self.broker_memory_full().await,
            Fault::ConnectionsTaken => self.take_connections().await,
            Fault::TableLocked => self.lock_table(dice).await,
            Fault::QueueDeleted => self.delete_queue("warehouse.commands").await,
            Fault::ReplyQueueDeleted => self.delete_queue("amends.replies").await,
            Fault::BindingDeleted => self.unbind_commands().await,
            Fault::ReplyBindingDeleted => self.unbind_replies(dice).await,
            Fault::CommandsRepeated => {
                self.repeat(dice, |tapped| match tapped {
                    Tapped::Command(command) => Some(command.encode()),
                    _ => None,
                })
                .await;
            }
            Fault::RepliesRepeated => {
                self.repeat(dice, |tapped| match tapped {
                    Tapped::Reply(reply) => Some(reply.encode()),
                    _ => None,
                })
                .await;
            }
            Fault::RepliesForged => self.forge(dice).await,
            Fault::Poison => self.poison().await,
            Fault::Huge => self.huge().await,
            Fault::ClocksJump => self.clocks_jump(dice).await,
            Fault::StoreClockJumps => self.set_store_clock(i64::try_from(5 + dice.below(56)).expect("small")).await,
            Fault::StoreClockSetBack => {
                let seconds = 1 + dice.below(3);
                self.set_back += u64::try_from(seconds).expect("small");
                self.set_store_clock(-i64::try_from(seconds).expect("small")).await;
            }
        }
    }

    /// Longer than an attempt may take; now and then longer than heartbeats and locks may.
    fn while_it_lasts(&self, dice: &mut Dice) -> Duration {
        let seconds = if self.is_patient { dice.one(&[3, 3, 3, 14, 14, 35]) } else { 3 };
        assert!(Duration::from_secs(seconds) > ATTEMPT);
        Duration::from_secs(seconds)
    }
}
