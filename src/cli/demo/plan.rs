//! Who orders what, which faults are planned, and what must become of each order.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde_json::{Value, json};
use tokio::sync::Notify;

/// A record that the warehouse has not got.
pub const OUT_OF_PRINT: &str = "out-of-print";
/// A card that the bank declines.
pub const DECLINED_CARD: &str = "card-declined";
/// A card whose bank does not give money back when it is first asked to.
pub const FUSSY_CARD: &str = "card-of-a-fussy-bank";
/// A card whose bank takes so long that the coordinator is killed meanwhile.
pub const SLOW_CARD: &str = "card-of-a-slow-bank";
/// A record so heavy that the warehouse needs a second try.
pub const HEAVY: &str = "box-set";

/// What goes wrong, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The bank refuses to pay.
    CardDeclined,
    /// The warehouse refuses to pick.
    OutOfStock,
    /// The warehouse asks for another attempt.
    NobodyToLift,
    /// The bank refuses to undo, so that the saga needs a person.
    VoidRefused,
    /// The coordinator is killed while the bank works.
    CoordinatorKilled,
}

/// One order.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    /// Its number, which is the saga's key.
    pub id: &'static str,
    /// What is ordered.
    pub sku: &'static str,
    /// How many.
    pub quantity: i64,
    /// What it costs, in cents.
    pub total: i64,
    /// Who pays.
    pub card: &'static str,
    /// What goes wrong with it.
    pub fault: Option<Fault>,
    /// The state it must end in.
    pub ends: &'static str,
}

/// The orders of the demo. The slow bank is in the middle, so that what comes after it waits when the coordinator dies.
pub const ORDERS: &[Order] = &[
    order("order-1", "blue-train", 1, "card-of-ada", None, "COMPLETED"),
    order("order-2", HEAVY, 1, "card-of-ben", Some(Fault::NobodyToLift), "COMPLETED"),
    order("order-3", "giant-steps", 2, DECLINED_CARD, Some(Fault::CardDeclined), "COMPENSATED"),
    order("order-4", OUT_OF_PRINT, 1, "card-of-cleo", Some(Fault::OutOfStock), "COMPENSATED"),
    order("order-5", OUT_OF_PRINT, 1, FUSSY_CARD, Some(Fault::VoidRefused), "COMPENSATED"),
    order("order-6", "blue-train", 1, SLOW_CARD, Some(Fault::CoordinatorKilled), "COMPLETED"),
    order("order-7", "giant-steps", 3, "card-of-dora", None, "COMPLETED"),
    order("order-8", "kind-of-blue", 2, "card-of-emil", None, "COMPLETED"),
];

const fn order(
    id: &'static str,
    sku: &'static str,
    quantity: i64,
    card: &'static str,
    fault: Option<Fault>,
    ends: &'static str,
) -> Order {
    Order { id, sku, quantity, total: quantity * 1_990, card, fault, ends }
}

impl Order {
    /// The saga's input.
    pub fn input(&self) -> Value {
        json!({
            "orderId": self.id,
            "customer": self.card.trim_start_matches("card-of-"),
            "lines": [{ "sku": self.sku, "quantity": self.quantity }],
            "total": self.total,
            "card": self.card,
        })
    }

    /// Whether it must be placed in the end.
    pub fn is_placed(&self) -> bool {
        self.ends == "COMPLETED"
    }
}

/// Which faults have happened, and the door that the slow bank stands at.
#[derive(Debug, Default)]
pub struct Faults {
    fired: Mutex<BTreeSet<Fault>>,
    at_the_door: Notify,
    door: Notify,
}

impl Faults {
    /// Notes that `fault` happens; whether this is the first time.
    pub fn fire(&self, fault: Fault) -> bool {
        self.fired().insert(fault)
    }

    /// The faults that were planned and have not happened.
    pub fn missing(&self) -> Vec<Fault> {
        let fired = self.fired();
        ORDERS.iter().filter_map(|order| order.fault).filter(|fault| !fired.contains(fault)).collect()
    }

    /// Where the slow bank waits until [`Faults::let_through`].
    pub async fn wait_at_the_door(&self) {
        self.at_the_door.notify_one();
        self.door.notified().await;
    }

    /// Waits until somebody waits at the door.
    pub async fn somebody_waits(&self) {
        self.at_the_door.notified().await;
    }

    /// Opens the door for who waits there.
    pub fn let_through(&self) {
        self.door.notify_one();
    }

    fn fired(&self) -> MutexGuard<'_, BTreeSet<Fault>> {
        self.fired.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
