//! Declaring exchanges, queues and bindings, and reading what the broker says to it.

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::protocol::{AMQPErrorKind, AMQPSoftError};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{Channel, Connection, ErrorKind};

use crate::broker::amqp::address::Address;
use crate::broker::amqp::lapin_client::convert::short;
use crate::broker::topology::{DELIVERY_LIMIT, ExchangeKind};
use crate::broker::{BrokerError, Queue, Topology};

/// Declares all of it on one channel, which the broker closes at the first thing it refuses.
pub(super) async fn declare(address: &Address, channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    declare_exchanges(address, channel, topology).await?;
    for queue in &topology.queues {
        declare_queue(address, channel, queue).await?;
    }
    Ok(())
}

/// Declares after a reconnection what was declared before. What the broker refuses now does not keep the rest away.
pub(super) async fn declare_again(
    address: &Address,
    connection: &Connection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let open = || async { connection.create_channel().await.map_err(|error| address.unreachable(error)) };
    let mut channel = open().await?;
    let exchanges = declare_exchanges(address, &channel, topology).await;
    log_refusal(exchanges)?;
    for queue in &topology.queues {
        if !channel.status().connected() {
            channel = open().await?;
        }
        log_refusal(declare_queue(address, &channel, queue).await)?;
    }
    if channel.status().connected() {
        channel.close(200, "done".into()).await.map_err(|error| address.unreachable(error))?;
    }
    Ok(())
}

fn log_refusal(outcome: Result<(), BrokerError>) -> Result<(), BrokerError> {
    match outcome {
        Err(error @ (BrokerError::Mismatch { .. } | BrokerError::Refused(_))) => {
            tracing::error!(%error, "what was declared before cannot be declared again");
            Ok(())
        }
        outcome => outcome,
    }
}

async fn declare_exchanges(address: &Address, channel: &Channel, topology: &Topology) -> Result<(), BrokerError> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for (name, kind) in topology.exchanges() {
        let what = format!("exchange `{name}`");
        let name = short("exchange", &name).map_err(BrokerError::Refused)?;
        let kind = match kind {
            ExchangeKind::Topic => lapin::ExchangeKind::Topic,
            ExchangeKind::Direct => lapin::ExchangeKind::Direct,
        };
        let declared = channel.exchange_declare(name, kind, durable, FieldTable::default()).await;
        declared.map_err(|error| said(address, &what, &error))?;
    }
    Ok(())
}

async fn declare_queue(address: &Address, channel: &Channel, queue: &Queue) -> Result<(), BrokerError> {
    let what = format!("queue `{}`", queue.name);
    let failed = |error| said(address, &what, &error);
    let name = || short("queue name", &queue.name).map_err(BrokerError::Refused);
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(name()?, options, arguments(queue)).await.map_err(failed)?;
    for (exchange, key) in &queue.bindings {
        let exchange = short("exchange", exchange).map_err(BrokerError::Refused)?;
        let key = short("routing key", key).map_err(BrokerError::Refused)?;
        let (options, arguments) = (QueueBindOptions::default(), FieldTable::default());
        channel.queue_bind(name()?, exchange, key, options, arguments).await.map_err(failed)?;
    }
    Ok(())
}

/// The arguments of the contract: whoever declares the queue must give the same.
fn arguments(queue: &Queue) -> FieldTable {
    let mut arguments = FieldTable::default();
    let text = |text: &str| AMQPValue::LongString(text.into());
    arguments.insert("x-queue-type".into(), text("quorum"));
    if let Some((exchange, key)) = queue.dead_letter() {
        arguments.insert("x-dead-letter-exchange".into(), text(&exchange));
        arguments.insert("x-dead-letter-routing-key".into(), text(key));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
    }
    arguments
}

/// What went wrong with `what`: a channel error is the broker's answer to it, anything else is about the connection.
pub(super) fn said(address: &Address, what: &str, error: &lapin::Error) -> BrokerError {
    match soft(error) {
        Some((AMQPSoftError::PRECONDITIONFAILED, problem)) => {
            BrokerError::Mismatch { what: what.to_owned(), problem: problem.to_owned() }
        }
        Some((_, problem)) => BrokerError::Refused(format!("{what}: {problem}")),
        None => address.unreachable(error),
    }
}

/// Whether the broker says that there is no such queue, which is not the same as one that it cannot reach.
pub(super) fn is_no_queue(error: &lapin::Error) -> bool {
    soft(error).is_some_and(|(kind, text)| kind == AMQPSoftError::NOTFOUND && text.contains("no queue"))
}

fn soft(error: &lapin::Error) -> Option<(AMQPSoftError, &str)> {
    let ErrorKind::ProtocolError(error) = error.kind() else { return None };
    let AMQPErrorKind::Soft(kind) = error.kind() else { return None };
    Some((kind.clone(), error.get_message().as_str()))
}
