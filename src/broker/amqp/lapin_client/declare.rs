//! Declaring exchanges, queues and bindings, and reading what the broker says to it.
//!
//! Whoever may declare nothing looks whether all is there, which asks for no right.

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
    declare_exchanges(address, channel, &topology.exchanges()).await?;
    for queue in &topology.queues {
        declare_queue(address, channel, queue).await?;
    }
    Ok(())
}

/// Declares all of it, so that a binding that was lost comes back, or without the right to that only what is not there.
pub(super) async fn declare_missing(
    address: &Address,
    connection: &Connection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    let open = || async { connection.create_channel().await.map_err(|error| address.unreachable(error)) };
    let mut channel = open().await?;
    match declare(address, &channel, topology).await.map_err(missing) {
        // The broker has closed the channel over it.
        Err(BrokerError::Missing { .. }) => channel = open().await?,
        outcome => {
            if channel.status().connected() {
                channel.close(200, "done".into()).await.map_err(|error| address.unreachable(error))?;
            }
            return outcome;
        }
    }
    // The broker closes a channel over each thing that is not there.
    let (mut exchanges, mut queues) = (Vec::new(), Vec::new());
    for (name, kind) in topology.exchanges() {
        let called = short("exchange", &name).map_err(BrokerError::Refused)?;
        let passive = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        let found = channel.exchange_declare(called, lapin_kind(kind), passive, FieldTable::default()).await;
        if !is_found(address, &format!("exchange `{name}`"), found)? {
            exchanges.push((name, kind));
            channel = open().await?;
        }
    }
    for queue in &topology.queues {
        let name = short("queue name", &queue.name).map_err(BrokerError::Refused)?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let found = channel.queue_declare(name, passive, FieldTable::default()).await;
        if !is_found(address, &format!("queue `{}`", queue.name), found)? {
            queues.push(queue);
            channel = open().await?;
        }
    }
    declare_exchanges(address, &channel, &exchanges).await.map_err(missing)?;
    for queue in queues {
        declare_queue(address, &channel, queue).await.map_err(missing)?;
    }
    if channel.status().connected() {
        channel.close(200, "done".into()).await.map_err(|error| address.unreachable(error))?;
    }
    Ok(())
}

fn is_found<T>(address: &Address, what: &str, looked: lapin::Result<T>) -> Result<bool, BrokerError> {
    match looked {
        Ok(_) => Ok(true),
        Err(error) if soft(&error).is_some_and(|(kind, _)| kind == AMQPSoftError::NOTFOUND) => Ok(false),
        Err(error) => Err(said(address, what, &error)),
    }
}

/// What may not be declared is still to come from somebody who may.
fn missing(error: BrokerError) -> BrokerError {
    match error {
        BrokerError::Refused(why) => match why.split_once(": ACCESS_REFUSED") {
            Some((what, _)) => BrokerError::Missing { what: what.to_owned() },
            None => BrokerError::Refused(why),
        },
        error => error,
    }
}

/// Declares after a reconnection what was declared before. What the broker refuses now does not keep the rest away.
pub(super) async fn declare_again(
    address: &Address,
    connection: &Connection,
    topology: &Topology,
) -> Result<(), BrokerError> {
    if topology.only_missing {
        return log_refusal(declare_missing(address, connection, topology).await);
    }
    let open = || async { connection.create_channel().await.map_err(|error| address.unreachable(error)) };
    let mut channel = open().await?;
    let exchanges = declare_exchanges(address, &channel, &topology.exchanges()).await;
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
        Err(error @ (BrokerError::Mismatch { .. } | BrokerError::Refused(_) | BrokerError::Missing { .. })) => {
            tracing::error!(%error, "what was declared before cannot be declared again");
            Ok(())
        }
        outcome => outcome,
    }
}

fn lapin_kind(kind: ExchangeKind) -> lapin::ExchangeKind {
    match kind {
        ExchangeKind::Topic => lapin::ExchangeKind::Topic,
        ExchangeKind::Direct => lapin::ExchangeKind::Direct,
    }
}

async fn declare_exchanges(
    address: &Address,
    channel: &Channel,
    exchanges: &[(String, ExchangeKind)],
) -> Result<(), BrokerError> {
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for (name, kind) in exchanges {
        let called = short("exchange", name).map_err(BrokerError::Refused)?;
        let declared = channel.exchange_declare(called, lapin_kind(*kind), durable, FieldTable::default()).await;
        declared.map_err(|error| said(address, &format!("exchange `{name}`"), &error))?;
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
