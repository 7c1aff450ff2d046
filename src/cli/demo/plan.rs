//! Who wants what, which faults are planned, and what must become of each saga.

use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::Serialize;
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

/// A hotel without a free room.
pub const FULL_HOTEL: &str = "hotel-of-the-fair";
/// A hotel whose desk needs a second try to book the room that it holds.
pub const SLEEPY_HOTEL: &str = "hotel-of-the-nap";
/// An address that mail does not reach.
pub const WRONG_ADDRESS: &str = "nobody@nowhere.example";

/// What goes wrong, on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The bank refuses to pay.
    CardDeclined,
    /// The warehouse refuses to pick.
    OutOfStock,
    /// The warehouse refuses one line of several.
    LineOutOfStock,
    /// The warehouse asks for another attempt.
    NobodyToLift,
    /// The bank refuses to undo, so that the saga needs a person.
    VoidRefused,
    /// The coordinator is killed while the bank works.
    CoordinatorKilled,
    /// The hotel refuses, while flight and car are being held.
    HotelFull,
    /// The hotel asks for another attempt after the trip is paid, when there is no way back.
    DeskAsleep,
    /// The mail refuses, when everything else is done.
    AddressUnknown,
}

/// One saga of the demo.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// The saga's key.
    pub key: &'static str,
    /// What somebody wants.
    pub wish: Wish,
    /// What goes wrong with it.
    pub fault: Option<Fault>,
    /// The state it must end in.
    pub ends: &'static str,
}

/// What somebody wants; which shipped saga does it.
#[derive(Clone, Copy, Debug)]
pub enum Wish {
    /// `place-order`: a record, how many, and the card that pays.
    Order(&'static str, i64, &'static str),
    /// `book-trip`: the hotel, and a car if one is wanted.
    Trip(&'static str, Option<&'static str>),
    /// `loyalty-signup`: the address.
    Signup(&'static str),
    /// `fulfil-order`: several records, and the card that pays.
    Basket(&'static [&'static str], &'static str),
    /// `business-trip`: the hotel; somebody must approve.
    Business(&'static str),
    /// `join-club`: the address; membership is a saga of its own.
    Join(&'static str),
}

/// The sagas of the demo. The slow bank is in the middle, so that what comes after it waits when the coordinator dies.
pub const CASES: &[Case] = &[
    done("order-1", Wish::Order("blue-train", 1, "card-of-ada"), None),
    done("order-2", Wish::Order(HEAVY, 1, "card-of-ben"), Some(Fault::NobodyToLift)),
    undone("order-3", Wish::Order("giant-steps", 2, DECLINED_CARD), Fault::CardDeclined),
    undone("order-4", Wish::Order(OUT_OF_PRINT, 1, "card-of-cleo"), Fault::OutOfStock),
    undone("order-5", Wish::Order(OUT_OF_PRINT, 1, FUSSY_CARD), Fault::VoidRefused),
    done("order-6", Wish::Order("blue-train", 1, SLOW_CARD), Some(Fault::CoordinatorKilled)),
    done("order-7", Wish::Order("giant-steps", 3, "card-of-dora"), None),
    done("trip-1", Wish::Trip("hotel-of-the-sea", None), None),
    undone("trip-2", Wish::Trip(FULL_HOTEL, Some("beetle")), Fault::HotelFull),
    done("trip-3", Wish::Trip(SLEEPY_HOTEL, Some("beetle")), Some(Fault::DeskAsleep)),
    done("member-1", Wish::Signup("ada@example.org"), None),
    undone("member-2", Wish::Signup(WRONG_ADDRESS), Fault::AddressUnknown),
    done("basket-1", Wish::Basket(&["blue-train", "giant-steps", "kind-of-blue"], "card-of-ada"), None),
    undone(
        "basket-2",
        Wish::Basket(&["blue-train", "giant-steps", OUT_OF_PRINT], "card-of-ben"),
        Fault::LineOutOfStock,
    ),
    done("fair-1", Wish::Business("hotel-of-the-sea"), None),
    done("club-1", Wish::Join("cleo@example.org"), None),
    undone("club-2", Wish::Join(WRONG_ADDRESS), Fault::AddressUnknown),
];

const fn done(key: &'static str, wish: Wish, fault: Option<Fault>) -> Case {
    Case { key, wish, fault, ends: "COMPLETED" }
}

const fn undone(key: &'static str, wish: Wish, fault: Fault) -> Case {
    Case { key, wish, fault: Some(fault), ends: "COMPENSATED" }
}

/// Cents for a record.
const RECORD: i64 = 1_990;
/// Cents for a flight, a room and a car.
pub const FLIGHT: i64 = 12_000;
/// See [`FLIGHT`].
pub const ROOM: i64 = 8_000;
/// See [`FLIGHT`].
pub const CAR: i64 = 5_000;
/// What a new member is given.
pub const POINTS: i64 = 500;

fn cost(records: &[&str]) -> i64 {
    records.iter().map(|_| RECORD).sum()
}

impl Case {
    /// The definition's name.
    pub fn saga(&self) -> &'static str {
        match self.wish {
            Wish::Order(..) => "place-order",
            Wish::Trip(..) => "book-trip",
            Wish::Signup(_) => "loyalty-signup",
            Wish::Basket(..) => "fulfil-order",
            Wish::Business(_) => "business-trip",
            Wish::Join(_) => "join-club",
        }
    }

    /// The saga's input.
    pub fn input(&self) -> Value {
        match self.wish {
            Wish::Order(sku, quantity, card) => json!({
                "orderId": self.key,
                "customer": card.trim_start_matches("card-of-"),
                "lines": [{ "sku": sku, "quantity": quantity }],
                "total": quantity * RECORD,
                "card": card,
            }),
            Wish::Trip(hotel, car) => {
                let hotel = json!({ "name": hotel, "nights": 1 });
                let mut input = json!({
                    "tripId": self.key, "traveller": "ada", "flight": "AM-42", "hotel": hotel, "card": "card-of-ada",
                });
                if let (Some(car), Some(input)) = (car, input.as_object_mut()) {
                    input.insert("car".to_owned(), car.into());
                }
                input
            }
            Wish::Signup(email) => {
                json!({ "customerId": self.key, "email": email, "tier": "gold", "giftWanted": true })
            }
            Wish::Basket(records, card) => {
                let lines: Vec<Value> = records.iter().map(|sku| json!({ "sku": sku, "quantity": 1 })).collect();
                let (customer, total) = (card.trim_start_matches("card-of-"), cost(records));
                json!({ "orderId": self.key, "customer": customer, "lines": lines, "total": total, "card": card })
            }
            Wish::Business(hotel) => json!({
                "tripId": self.key, "traveller": "dora", "flight": "AM-7", "hotel": hotel, "card": "card-of-dora",
            }),
            Wish::Join(email) => json!({ "customerId": self.key, "email": email, "tier": "gold", "atOnce": true }),
        }
    }

    /// What must be left of it in the services' books.
    pub fn leaves(&self) -> Traces {
        if self.ends != "COMPLETED" {
            return Traces::default();
        }
        match self.wish {
            Wish::Order(_, quantity, _) => {
                Traces { confirmed: 1, paid: quantity * RECORD, taken: quantity, ..Traces::default() }
            }
            Wish::Trip(_, None) => Traces { bookings: 2, paid: FLIGHT + ROOM, ..Traces::default() },
            Wish::Trip(_, Some(_)) => Traces { bookings: 3, paid: FLIGHT + ROOM + CAR, ..Traces::default() },
            Wish::Signup(_) | Wish::Join(_) => Traces { members: 1, points: POINTS, gifts: 1, ..Traces::default() },
            Wish::Basket(records, _) => {
                let taken = i64::try_from(records.len()).unwrap_or_default();
                Traces { confirmed: 1, paid: cost(records), taken, ..Traces::default() }
            }
            Wish::Business(_) => Traces { bookings: 2, paid: FLIGHT + ROOM, ..Traces::default() },
        }
    }
}

/// What sagas leave in the books of the services.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Traces {
    /// Orders that were confirmed.
    pub confirmed: i64,
    /// Cents that were held or taken from the bank.
    pub paid: i64,
    /// Records that were picked or dispatched.
    pub taken: i64,
    /// Flights, rooms and cars that were booked.
    pub bookings: i64,
    /// Members of the loyalty programme.
    pub members: i64,
    /// Their points.
    pub points: i64,
    /// Gifts that are on their way to them.
    pub gifts: i64,
}

impl std::ops::Add for Traces {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            confirmed: self.confirmed + other.confirmed,
            paid: self.paid + other.paid,
            taken: self.taken + other.taken,
            bookings: self.bookings + other.bookings,
            members: self.members + other.members,
            points: self.points + other.points,
            gifts: self.gifts + other.gifts,
        }
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
        CASES.iter().filter_map(|case| case.fault).filter(|fault| !fired.contains(fault)).collect()
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
