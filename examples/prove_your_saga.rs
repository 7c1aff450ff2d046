//! How a team proves its own saga: under every single fault at every place, nothing is lost and nothing is kept.

use std::sync::{Arc, Mutex};

use amends::testkit::{Answer, explore};
use serde_json::json;

const SELL: &str = r#"
saga: sell
version: 1
defaults: { timeout: 10s, retry: { maxAttempts: 3 }, compensation: { retry: { maxAttempts: 3 } } }
steps:
  - { name: reserve, participant: stock, action: reserve, compensation: { action: release } }
  - { name: charge, participant: bank, action: charge, compensation: { action: refund } }
  - { name: confirm, participant: shop, action: confirm, pivot: true, compensation: none }
"#;

/// In your own tests: `#[tokio::test]`.
#[tokio::main]
pub async fn main() {
    let report = explore(SELL).input(json!({ "quantity": 3 })).pairs(200).run(async |kit| {
        let stock = Arc::new(Mutex::new((100, 0))); // free, reserved
        let (reserve, release) = (stock.clone(), stock.clone());
        let move_stock = |stock: &Mutex<(i64, i64)>, quantity: &serde_json::Value, way: i64| {
            let (mut stock, quantity) = (stock.lock().unwrap(), way * quantity["quantity"].as_i64().unwrap());
            *stock = (stock.0 - quantity, stock.1 + quantity);
            Answer::done()
        };
        kit.on("stock.reserve", move |input, _| move_stock(&reserve, input, 1))
            .on("stock.release", move |input, _| move_stock(&release, input, -1))
            .invariant("free + reserved = 100", move || {
                let (free, reserved) = *stock.lock().unwrap();
                free + reserved == 100 && (reserved == 0 || reserved == 3)
            })
    });
    println!("{}", report.await.assert_sound());
}
