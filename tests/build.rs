//! Definitions that are written in Rust.

#[path = "../examples/code_first.rs"]
#[allow(dead_code, reason = "its `main` is the example's")]
mod code_first;

use std::time::Duration;

use amends::action::Action;
use amends::definition::build::{Built, OnTimeout, Retry, Saga, Step};
use amends::definition::read;
use serde_json::{Value, json};

/// Declares actions that take anything.
macro_rules! actions {
    ($($action:ident = $participant:literal . $name:literal;)+) => {
        $(struct $action;
        impl Action for $action {
            const PARTICIPANT: &'static str = $participant;
            const NAME: &'static str = $name;
            type Input = Value;
            type Output = Value;
        })+
    };
}

actions! {
    Create = "orders"."create"; Cancel = "orders"."cancel"; Confirm = "orders"."confirm";
    Authorise = "payments"."authorise"; Void = "payments"."void"; Capture = "payments"."capture";
    Charge = "payments"."charge";
    Pick = "warehouse"."pick"; Unpick = "warehouse"."unpick"; Dispatch = "warehouse"."dispatch";
    Gift = "warehouse"."gift"; Recall = "warehouse"."recall";
    HoldFlight = "airline"."hold"; ReleaseFlight = "airline"."release"; BookFlight = "airline"."book";
    HoldRoom = "hotel"."hold"; ReleaseRoom = "hotel"."release"; BookRoom = "hotel"."book";
    HoldCar = "cars"."hold"; ReleaseCar = "cars"."release"; BookCar = "cars"."book";
    Join = "loyalty"."create"; Leave = "loyalty"."delete"; Grant = "loyalty"."grant"; Withdraw = "loyalty"."withdraw";
    Send = "mail"."send";
    Reserve = "warehouse"."reserve"; Release = "warehouse"."release";
}

const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// The schema of a file's input: the one part that both may share.
fn schema(yaml: &str) -> Value {
    amends::definition::to_json(yaml).expect("YAML")["input"]["schema"].take()
}

fn place_order(yaml: &str) -> Saga {
    let order = || json!({ "orderId": "${ input.orderId }" });
    Saga::named("place-order")
        .version(1)
        .owner("fulfilment")
        .runbook("https://example.org/runbooks/place-order")
        .key("${ input.orderId }")
        .input_schema(schema(yaml))
        .timeout(seconds(15 * 60))
        .default_timeout(seconds(30))
        .default_retry(
            Retry::new()
                .max_attempts(8)
                .initial_interval(Duration::from_millis(200))
                .backoff_coefficient(2.0)
                .max_interval(seconds(10))
                .non_retryable(["card-declined"]),
        )
        .default_undo_retry(Retry::new().max_attempts(20).max_interval(seconds(60)))
        .step(
            Step::named("create-order")
                .does::<Create>()
                .input(json!({
                    "orderId": "${ input.orderId }", "customer": "${ input.customer }",
                    "lines": "${ input.lines }", "total": "${ input.total }",
                }))
                .undone_by_with::<Cancel>(order()),
        )
        .step(
            Step::named("authorise-payment")
                .does::<Authorise>()
                .input(
                    json!({ "orderId": "${ input.orderId }", "card": "${ input.card }", "amount": "${ input.total }" }),
                )
                .undone_by_with::<Void>(order()),
        )
        .step(
            Step::named("pick")
                .does::<Pick>()
                .input(json!({ "orderId": "${ input.orderId }", "lines": "${ input.lines }" }))
                .undone_by_with::<Unpick>(order()),
        )
        .step(Step::named("confirm-order").does::<Confirm>().input(order()).pivot().nothing_to_undo())
        .step(
            Step::named("capture-payment")
                .does::<Capture>()
                .input(json!({ "authId": "${ steps['authorise-payment'].output.authId }" })),
        )
        .step(Step::named("dispatch").does::<Dispatch>().after(["confirm-order"]).input(order()))
        .output(order())
}

fn book_trip(yaml: &str) -> Saga {
    let trip = || json!({ "tripId": "${ input.tripId }" });
    let none: [&str; 0] = [];
    let patient = || Retry::new().forever().max_interval(seconds(60));
    Saga::named("book-trip")
        .version(1)
        .owner("travel")
        .runbook("https://example.org/runbooks/book-trip")
        .key("${ input.tripId }")
        .input_schema(schema(yaml))
        .timeout(seconds(600))
        .default_timeout(seconds(20))
        .default_retry(
            Retry::new()
                .max_attempts(4)
                .initial_interval(Duration::from_millis(500))
                .max_interval(seconds(10))
                .non_retryable(["sold-out", "card-declined"]),
        )
        .step(
            Step::named("hold-flight")
                .does::<HoldFlight>()
                .after(none)
                .input(json!({
                    "tripId": "${ input.tripId }", "traveller": "${ input.traveller }", "flight": "${ input.flight }",
                }))
                .undone_by_with::<ReleaseFlight>(trip()),
        )
        .step(
            Step::named("hold-room")
                .does::<HoldRoom>()
                .after(none)
                .input(json!({
                    "tripId": "${ input.tripId }", "hotel": "${ input.hotel.name }", "nights": "${ input.hotel.nights }",
                }))
                .undone_by_with::<ReleaseRoom>(trip()),
        )
        .step(
            Step::named("hold-car")
                .does::<HoldCar>()
                .after(none)
                .when("${ has(input.car) }")
                .input(json!({ "tripId": "${ input.tripId }", "car": "${ input.car }" }))
                .undone_by_with::<ReleaseCar>(trip()),
        )
        .step(
            Step::named("pay")
                .does::<Charge>()
                .after(["hold-flight", "hold-room", "hold-car"])
                .timeout(seconds(60))
                .input(json!({
                    "tripId": "${ input.tripId }",
                    "card": "${ input.card }",
                    "amount": "${ steps['hold-flight'].output.price + steps['hold-room'].output.price + \
                               (has(steps['hold-car'].output) ? steps['hold-car'].output.price : 0) }",
                }))
                .pivot()
                .nothing_to_undo(),
        )
        .step(Step::named("book-flight").does::<BookFlight>().after(["pay"]).input(trip()).retry(patient()))
        .step(Step::named("book-room").does::<BookRoom>().after(["pay"]).input(trip()).retry(patient()))
        .step(
            Step::named("book-car")
                .does::<BookCar>()
                .after(["pay"])
                .when("${ has(input.car) }")
                .input(trip())
                .retry(patient()),
        )
        .output(json!({
            "tripId": "${ input.tripId }", "message": "${ input.traveller } flies with ${ input.flight }",
        }))
}

fn loyalty_signup(yaml: &str) -> Saga {
    let customer = || json!({ "customerId": "${ input.customerId }" });
    Saga::named("loyalty-signup")
        .version(1)
        .owner("crm")
        .runbook("https://example.org/runbooks/loyalty-signup")
        .key("${ input.customerId }")
        .input_schema(schema(yaml))
        .timeout(seconds(3_600))
        .default_timeout(seconds(15))
        .default_retry(
            Retry::new()
                .max_attempts(6)
                .initial_interval(seconds(1))
                .max_interval(seconds(60))
                .non_retryable(["already-member"]),
        )
        .step(
            Step::named("create-membership")
                .does::<Join>()
                .input(json!({ "customerId": "${ input.customerId }", "tier": "${ input.tier }" }))
                .undone_by_with::<Leave>(customer()),
        )
        .step(
            Step::named("grant-points")
                .does::<Grant>()
                .input(json!({
                    "customerId": "${ input.customerId }", "points": "${ input.tier == 'gold' ? 500 : 100 }",
                }))
                .undone_by::<Withdraw>(),
        )
        .step(
            Step::named("send-gift")
                .does::<Gift>()
                .when("${ has(input.giftWanted) && input.giftWanted }")
                .input(customer())
                .undone_by::<Recall>(),
        )
        .step(
            Step::named("send-welcome")
                .does::<Send>()
                .input(json!({ "to": "${ input.email }", "template": "welcome-${ input.tier }" }))
                .nothing_to_undo(),
        )
        .output(json!({ "customerId": "${ input.customerId }", "tier": "${ input.tier }" }))
}

fn fulfil_order(yaml: &str) -> Saga {
    let order = || json!({ "orderId": "${ input.orderId }" });
    let patient = || Retry::new().forever().max_interval(seconds(60));
    Saga::named("fulfil-order")
        .version(1)
        .owner("fulfilment")
        .runbook("https://example.org/runbooks/fulfil-order")
        .key("${ input.orderId }")
        .input_schema(schema(yaml))
        .timeout(seconds(15 * 60))
        .default_timeout(seconds(20))
        .default_retry(
            Retry::new()
                .max_attempts(4)
                .initial_interval(Duration::from_millis(500))
                .max_interval(seconds(10))
                .non_retryable(["out-of-stock", "card-declined"]),
        )
        .step(
            Step::named("create-order")
                .does::<Create>()
                .input(json!({ "orderId": "${ input.orderId }", "customer": "${ input.customer }" }))
                .undone_by_with::<Cancel>(order()),
        )
        .step(
            Step::named("reserve-line")
                .does::<Reserve>()
                .for_each("${ input.lines }", Some(4))
                .max_items(50)
                .after(["create-order"])
                .input(json!({
                    "orderId": "${ input.orderId }", "sku": "${ item.sku }", "quantity": "${ item.quantity }",
                }))
                .undone_by_with::<Release>(json!({ "orderId": "${ input.orderId }", "sku": "${ item.sku }" })),
        )
        .step(
            Step::named("authorise-payment")
                .does::<Authorise>()
                .after(["create-order"])
                .input(
                    json!({ "orderId": "${ input.orderId }", "card": "${ input.card }", "amount": "${ input.total }" }),
                )
                .undone_by_with::<Void>(order()),
        )
        .step(
            Step::named("confirm-order")
                .does::<Confirm>()
                .after(["reserve-line", "authorise-payment"])
                .input(order())
                .pivot()
                .nothing_to_undo(),
        )
        .step(Step::named("capture-payment").does::<Capture>().after(["confirm-order"]).input(order()).retry(patient()))
        .step(Step::named("dispatch").does::<Dispatch>().after(["confirm-order"]).input(order()).retry(patient()))
        .output(order())
}

fn business_trip(yaml: &str) -> Saga {
    let trip = || json!({ "tripId": "${ input.tripId }" });
    let none: [&str; 0] = [];
    let patient = || Retry::new().forever().max_interval(seconds(60));
    let days = |count: u64| seconds(count * 24 * 60 * 60);
    Saga::named("business-trip")
        .version(1)
        .owner("travel")
        .runbook("https://example.org/runbooks/business-trip")
        .key("${ input.tripId }")
        .input_schema(schema(yaml))
        .timeout(days(3))
        .default_timeout(seconds(20))
        .default_retry(
            Retry::new()
                .max_attempts(4)
                .initial_interval(Duration::from_millis(500))
                .max_interval(seconds(10))
                .non_retryable(["sold-out", "card-declined"]),
        )
        .step(
            Step::named("hold-flight")
                .does::<HoldFlight>()
                .after(none)
                .input(json!({ "tripId": "${ input.tripId }", "flight": "${ input.flight }" }))
                .undone_by_with::<ReleaseFlight>(trip()),
        )
        .step(
            Step::named("hold-room")
                .does::<HoldRoom>()
                .after(none)
                .input(json!({ "tripId": "${ input.tripId }", "hotel": "${ input.hotel }" }))
                .undone_by_with::<ReleaseRoom>(trip()),
        )
        .step(
            Step::named("approval").waits_for("approval", days(2), OnTimeout::Fail).after(["hold-flight", "hold-room"]),
        )
        .step(
            Step::named("pay")
                .does::<Charge>()
                .timeout(seconds(60))
                .input(json!({
                    "tripId": "${ input.tripId }",
                    "card": "${ input.card }",
                    "amount": "${ steps['hold-flight'].output.price + steps['hold-room'].output.price }",
                }))
                .pivot()
                .nothing_to_undo(),
        )
        .step(Step::named("book-flight").does::<BookFlight>().after(["pay"]).input(trip()).retry(patient()))
        .step(Step::named("book-room").does::<BookRoom>().after(["pay"]).input(trip()).retry(patient()))
        .output(json!({ "tripId": "${ input.tripId }", "approval": "${ steps['approval'].output }" }))
}

fn join_club(yaml: &str) -> Saga {
    let customer = || json!({ "customerId": "${ input.customerId }" });
    let days = |count: u64| seconds(count * 24 * 60 * 60);
    Saga::named("join-club")
        .version(1)
        .owner("crm")
        .runbook("https://example.org/runbooks/join-club")
        .key("${ input.customerId }")
        .input_schema(schema(yaml))
        .timeout(days(20))
        .default_timeout(seconds(15))
        .default_retry(Retry::new().max_attempts(6).initial_interval(seconds(1)).max_interval(seconds(60)))
        .step(Step::named("membership").starts("loyalty-signup", None).input(json!({
            "customerId": "${ input.customerId }", "email": "${ input.email }", "tier": "${ input.tier }",
        })))
        .step(Step::named("think-it-over").delays(days(14)).when("${ !input.atOnce }"))
        .step(
            Step::named("print-card")
                .does::<Gift>()
                .input(json!({ "customerId": "${ input.customerId }", "tier": "${ input.tier }" }))
                .undone_by_with::<Recall>(customer()),
        )
        .step(
            Step::named("send-card")
                .does::<Send>()
                .input(json!({ "to": "${ input.email }", "template": "card-${ input.tier }" }))
                .nothing_to_undo(),
        )
        .output(json!({ "customerId": "${ input.customerId }", "tier": "${ input.tier }" }))
}

#[test]
fn equal_content_has_an_equal_hash_however_it_is_written() {
    type Make = fn(&str) -> Saga;
    let written: [(&str, Make); 6] = [
        (include_str!("../sagas/place-order.yaml"), place_order),
        (include_str!("../sagas/book-trip.yaml"), book_trip),
        (include_str!("../sagas/loyalty-signup.yaml"), loyalty_signup),
        (include_str!("../sagas/fulfil-order.yaml"), fulfil_order),
        (include_str!("../sagas/business-trip.yaml"), business_trip),
        (include_str!("../sagas/join-club.yaml"), join_club),
    ];
    let shipped = std::fs::read_dir("sagas").expect("the folder").count();
    assert_eq!(written.len(), shipped, "every shipped saga is written in Rust too");
    for (yaml, make) in written {
        let saga = make(yaml);
        assert_eq!(Some(saga.document()), amends::definition::to_json(yaml));
        let built: Built = saga.clone().build().expect("sound");
        let file = read(yaml).definition.expect("sound");
        assert_eq!(built.definition.hash, file.hash, "{}", file.reference);
        let next = saga.version(2).build().expect("sound");
        assert_ne!(next.definition.hash, file.hash, "other content has another hash");
    }
}

#[test]
fn errors_name_their_step() {
    let error = Saga::named("s")
        .step(Step::named("a").does::<Create>())
        .step(Step::named("b").does::<Pick>().after(["nowhere"]).undone_by::<Unpick>())
        .build()
        .expect_err("two errors");
    let found: Vec<(Option<&str>, &str)> = error.0.iter().map(|found| (found.step.as_deref(), found.code)).collect();
    assert!(found.contains(&(Some("b"), "DEF_AFTER_UNKNOWN")), "{error}");
    assert!(error.to_string().contains("step `b`/after/0: "), "{error}");
    let error = Saga::named("s").build().expect_err("no steps");
    assert_eq!((error.0[0].step.as_deref(), error.0[0].code), (None, "DEF_STEPS_EMPTY"));
}

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Refund {
    order_id: String,
    amount: u64,
    note: Option<String>,
}

struct GiveBack;
impl Action for GiveBack {
    const PARTICIPANT: &'static str = "payments";
    const NAME: &'static str = "refund";
    type Input = Refund;
    type Output = ();
}

#[test]
fn a_field_that_the_action_needs_must_be_given() {
    let with = |input: Value| Saga::named("s").step(Step::named("a").does::<GiveBack>().input(input).nothing_to_undo());
    let error = with(json!({ "orderId": "${ input.id }" })).build().expect_err("the amount is missing");
    assert_eq!(error.0.len(), 1, "{error}");
    assert_eq!((error.0[0].step.as_deref(), error.0[0].code), (Some("a"), "DEF_FIELD_MISSING"));
    assert!(error.0[0].message.contains("`amount`"), "{error}");
    with(json!({ "orderId": "${ input.id }", "amount": 3 })).build().expect("the note is optional");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_example_places_one_order_and_undoes_the_other() {
    let told = code_first::run().await.expect("it runs");
    assert_eq!(told, ["o-1: COMPLETED", "o-2: COMPENSATED", "orders: o-1; on the shelf: 7"]);
}
