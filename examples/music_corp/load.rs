//! Starts orders over HTTP. An order's name is its saga's key, so that a start of unknown outcome is just sent again.

use std::time::Duration;

use amends::id::SagaId;
use futures_util::{StreamExt, TryStreamExt, stream};
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};

use crate::Error;

const RECORDS: [&str; 3] = ["blue-train", "giant-steps", "kind-of-blue"];
/// How often a start is sent before the load gives up: long enough for a coordinator to be restarted.
const TRIES: u32 = 240;

#[derive(clap::Args)]
pub struct Settings {
    /// How many orders.
    #[arg(long, default_value_t = 200)]
    orders: u32,
    /// How many of a hundred are refused by their card.
    #[arg(long, default_value_t = 10)]
    declined_percent: u32,
    /// How many of a hundred are refused by the stock.
    #[arg(long, default_value_t = 10)]
    out_of_stock_percent: u32,
    /// How many starts are under way at once.
    #[arg(long, default_value_t = 16)]
    in_flight: usize,
    /// The coordinator.
    #[arg(long, env = "AMENDS_URL", default_value = "http://127.0.0.1:7070")]
    url: String,
    /// Sent as bearer token, if the coordinator asks for one.
    #[arg(long, env = "AMENDS_TOKEN", hide_env_values = true)]
    token: Option<String>,
}

pub async fn run(settings: Settings) -> Result<(), Error> {
    let client = Client::builder().timeout(Duration::from_secs(10)).build()?;
    let name = SagaId::fresh();
    stream::iter(0..settings.orders)
        .map(|n| start(&client, &settings, order(&settings, &format!("{name}-{n}"), n)))
        .buffer_unordered(settings.in_flight.max(1))
        .try_collect::<Vec<()>>()
        .await?;
    println!("started {} orders, {name}-0 to {name}-{}", settings.orders, settings.orders.saturating_sub(1));
    Ok(())
}

/// The n-th order. Which ones are refused is spread evenly: 37 and 100 share no factor.
fn order(settings: &Settings, id: &str, n: u32) -> Value {
    let draw = (u64::from(n) * 37 % 100) as u32;
    let declined = draw < settings.declined_percent;
    let out_of_stock = !declined && draw < settings.declined_percent + settings.out_of_stock_percent;
    let sku = if out_of_stock { "out-of-print" } else { RECORDS[n as usize % RECORDS.len()] };
    let card = if declined { "declined-card".to_owned() } else { format!("card-{}", n % 100) };
    json!({
        "orderId": id,
        "customer": format!("customer-{}", n % 1_000),
        "lines": [{ "sku": "blue-train", "quantity": 1 }, { "sku": sku, "quantity": 1 + n % 3 }],
        "total": 1_000 + i64::from(n % 50) * 10,
        "card": card,
    })
}

async fn start(client: &Client, settings: &Settings, order: Value) -> Result<(), Error> {
    let body = json!({ "saga": "place-order", "input": order });
    let mut tries = 0;
    loop {
        tries += 1;
        let mut request = client.post(format!("{}/v1/sagas", settings.url)).json(&body);
        if let Some(token) = &settings.token {
            request = request.bearer_auth(token);
        }
        let problem = match request.send().await {
            Ok(response) if response.status().is_success() => return Ok(()),
            Ok(response) if is_final(response.status()) => {
                return Err(format!("{}: {}", response.status(), response.text().await?).into());
            }
            Ok(response) => response.status().to_string(),
            Err(error) => error.to_string(),
        };
        if tries >= TRIES {
            return Err(format!("no start after {tries} tries: {problem}").into());
        }
        tracing::warn!(problem, "trying again");
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Whether asking again would only give the same answer.
fn is_final(status: StatusCode) -> bool {
    status.is_client_error() && status != StatusCode::TOO_MANY_REQUESTS
}
