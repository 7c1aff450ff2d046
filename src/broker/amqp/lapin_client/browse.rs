//! Looking into a queue: `basic.get` on a connection of its own, whose end puts everything back.

use std::future::Future;

use async_trait::async_trait;
use lapin::options::{BasicAckOptions, BasicGetOptions, BasicNackOptions, BasicPublishOptions, ConfirmSelectOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection};

use crate::broker::amqp::address::Address;
use crate::broker::amqp::lapin_client::convert::{from_lapin, short};
use crate::broker::amqp::lapin_client::declare::said;
use crate::broker::amqp::lapin_client::link::{Link, REQUEST_TIMEOUT};
use crate::broker::browse::{Browsed, Browser, Death};
use crate::broker::{BrokerError, browse};

/// The header in which a quorum queue counts how often a message was delivered.
const DELIVERIES: &str = "x-delivery-count";
/// A message that was put back so often is published anew instead, at the end of its queue: RabbitMQ 4 removes one that
/// was put back twenty times, unless the queue has a limit of its own.
const WORN: i64 = 15;

/// Starts to look.
pub(super) async fn browse(link: &Link, queue: &str) -> Result<LapinBrowser, BrokerError> {
    let name = short("queue name", queue).map_err(BrokerError::Refused)?;
    let connection = link.connect().await?;
    let mut browser = LapinBrowser {
        address: link.address().clone(),
        queue: name,
        connection: Some(connection),
        channel: None,
        worn: Vec::new(),
    };
    let Some(connection) = &browser.connection else { return Err(browser.gone()) };
    let opening = async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok::<_, lapin::Error>(channel)
    };
    browser.channel = Some(timely(&browser.address, queue, opening).await?);
    Ok(browser)
}

pub(super) struct LapinBrowser {
    address: Address,
    queue: ShortString,
    connection: Option<Connection>,
    channel: Option<Channel>,
    worn: Vec<Worn>,
}

/// A message that must not be put back as it is.
struct Worn {
    tag: u64,
    properties: BasicProperties,
    body: Vec<u8>,
}

async fn timely<T>(
    address: &Address,
    queue: &str,
    asking: impl Future<Output = Result<T, lapin::Error>>,
) -> Result<T, BrokerError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, asking).await {
        Ok(outcome) => outcome.map_err(|error| said(address, &format!("looking into `{queue}`"), &error)),
        Err(_) => Err(address.unreachable(format!("no answer within {REQUEST_TIMEOUT:?}"))),
    }
}

impl LapinBrowser {
    fn gone(&self) -> BrokerError {
        self.address.unreachable("the connection was closed")
    }

    fn channel(&self) -> Result<&Channel, BrokerError> {
        self.channel.as_ref().ok_or_else(|| self.gone())
    }

    /// Publishes worn messages anew and removes them, each only once its copy is safe.
    async fn renew(&mut self) -> Result<(), BrokerError> {
        for worn in std::mem::take(&mut self.worn) {
            let channel = self.channel()?;
            let mut headers = worn.properties.headers().clone().unwrap_or_default();
            let kept = headers.inner().iter().filter(|(name, _)| name.as_str() != DELIVERIES);
            headers = FieldTable::from(
                kept.map(|(name, value)| (name.clone(), value.clone())).collect::<std::collections::BTreeMap<_, _>>(),
            );
            let (properties, options) = (
                worn.properties.with_headers(headers),
                BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() },
            );
            let publishing = async {
                channel.basic_publish("".into(), self.queue.clone(), options, &worn.body, properties).await?.await
            };
            let confirmed = timely(&self.address, self.queue.as_str(), publishing).await?;
            if matches!(confirmed, Confirmation::Ack(None)) {
                let acking = channel.basic_ack(worn.tag, BasicAckOptions::default());
                timely(&self.address, self.queue.as_str(), acking).await?;
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Browser for LapinBrowser {
    async fn next(&mut self) -> Result<Option<Browsed>, BrokerError> {
        let getting = self.channel()?.basic_get(self.queue.clone(), BasicGetOptions::default());
        let Some(found) = timely(&self.address, self.queue.as_str(), getting).await? else { return Ok(None) };
        let delivery = found.delivery;
        let (tag, headers) = (delivery.delivery_tag, delivery.properties.headers().clone().unwrap_or_default());
        if headers.inner().get(DELIVERIES).and_then(int).is_some_and(|count| count >= WORN) {
            let (properties, body) = (delivery.properties.clone(), delivery.data.clone());
            self.worn.push(Worn { tag, properties, body });
        }
        Ok(Some(Browsed { tag, envelope: from_lapin(delivery), deaths: deaths(&headers) }))
    }

    async fn remove(&mut self, tag: u64) -> Result<(), BrokerError> {
        self.worn.retain(|worn| worn.tag != tag);
        let acking = self.channel()?.basic_ack(tag, BasicAckOptions::default());
        timely(&self.address, self.queue.as_str(), acking).await
    }

    async fn end(mut self: Box<Self>) -> Result<(), BrokerError> {
        self.renew().await?;
        let channel = self.channel()?;
        let options = BasicNackOptions { multiple: true, requeue: true };
        let ending = async {
            channel.basic_nack(0, options).await?;
            channel.close(200, "seen".into()).await
        };
        timely(&self.address, self.queue.as_str(), ending).await?;
        if let Some(connection) = self.connection.take() {
            let _ = tokio::time::timeout(REQUEST_TIMEOUT, connection.close(200, "seen".into())).await;
        }
        Ok(())
    }
}

impl Drop for LapinBrowser {
    fn drop(&mut self) {
        // Without a runtime there is nobody to close it, and the process is about to end.
        if let (Some(connection), Ok(runtime)) = (self.connection.take(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(async move { connection.close(200, "given up".into()).await });
        }
    }
}

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

fn int(value: &AMQPValue) -> Option<i64> {
    match value {
        AMQPValue::LongLongInt(int) => Some(*int),
        AMQPValue::LongInt(int) => Some(i64::from(*int)),
        AMQPValue::LongUInt(int) => Some(i64::from(*int)),
        _ => None,
    }
}

/// What the broker says in `x-death`: one table per queue and reason, the last first.
fn deaths(headers: &FieldTable) -> Vec<browse::Death> {
    let Some(AMQPValue::FieldArray(all)) = headers.inner().get("x-death") else { return Vec::new() };
    let one = |value: &AMQPValue| {
        let AMQPValue::FieldTable(table) = value else { return None };
        let member = |name: &str| table.inner().get(name).and_then(text).unwrap_or_default();
        let key = match table.inner().get("routing-keys") {
            Some(AMQPValue::FieldArray(keys)) => keys.as_slice().first().and_then(text),
            _ => None,
        };
        Some(Death {
            queue: member("queue"),
            reason: member("reason"),
            count: table.inner().get("count").and_then(int).unwrap_or(1),
            exchange: member("exchange"),
            routing_key: key.unwrap_or_default(),
        })
    };
    all.as_slice().iter().filter_map(one).collect()
}
