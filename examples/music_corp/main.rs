//! MusicCorp sells records. What was one database transaction, "place an order", is now a saga over three services,
//! each with its own database: `orders`, `payments`, `warehouse`.
//!
//! ```text
//! cargo run --example music_corp -- orders      # and payments, and warehouse: three processes
//! cargo run --example music_corp -- load        # starts sagas over HTTP
//! cargo run --example music_corp -- check       # proves from the three databases that the sums are right
//! ```
//!
//! `examples/music_corp/run` does all of it on servers of its own. Read the services first: `payments.rs`, then
//! `warehouse.rs` and `orders.rs`; `service.rs` is what they share.

mod check;
mod load;
mod orders;
mod payments;
mod service;
mod warehouse;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

type Error = Box<dyn std::error::Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "MusicCorp: three services, one saga")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// The service that keeps orders.
    Orders(service::Settings),
    /// The service that keeps accounts.
    Payments(service::Settings),
    /// The service that keeps stock.
    Warehouse(service::Settings),
    /// Starts orders, some of which will be refused.
    Load(load::Settings),
    /// Proves from the three databases that every order was placed whole or not at all. Exit code 1 if not.
    Check(check::Settings),
}

#[tokio::main]
async fn main() -> Result<ExitCode, Error> {
    // Which cryptography to use is the binary's choice, never a library's.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tracing_subscriber::fmt()
        .with_env_filter(tracing_subscriber::EnvFilter::try_from_default_env().unwrap_or_else(|_| "info".into()))
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match Arguments::parse().command {
        Command::Orders(settings) => service::run(settings, orders::SCHEMA, orders::participant()).await?,
        Command::Payments(settings) => service::run(settings, payments::SCHEMA, payments::participant()).await?,
        Command::Warehouse(settings) => service::run(settings, warehouse::SCHEMA, warehouse::participant()).await?,
        Command::Load(settings) => load::run(settings).await?,
        Command::Check(settings) => return check::run(settings).await,
    }
    Ok(ExitCode::SUCCESS)
}
