//! Publishing: a whole batch is written, then every confirm awaited.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{Channel, Confirmation};
use tokio::sync::Semaphore;

use crate::broker::Published;
use crate::broker::amqp::convert::to_lapin;
use crate::broker::amqp::link::{Link, Live, REQUEST_TIMEOUT};
use crate::message::Envelope;

/// How long to wait for a connection before a batch is given back.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// How long the broker has to confirm a batch. After that nobody knows what it has.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Batches that may be on their way at once. Each has a channel of its own, so that a returned message, which lapin
/// hands to the next confirm that completes on its channel, never strays into another batch.
const CHANNELS: usize = 8;
/// Unconfirmed messages per channel: a bound for memory on both sides.
const WINDOW: usize = 2_048;

pub(super) struct Publisher {
    link: Link,
    slots: Semaphore,
    idle: Mutex<Vec<(u64, Channel)>>,
}

impl Publisher {
    pub(super) fn new(link: Link) -> Self {
        Self { link, slots: Semaphore::new(CHANNELS), idle: Mutex::default() }
    }

    pub(super) async fn publish(&self, messages: Vec<Envelope>) -> Vec<Published> {
        let mut outcomes = Vec::with_capacity(messages.len());
        let Ok(_slot) = self.slots.acquire().await else {
            return unknown(messages.len(), "the broker was closed");
        };
        for window in messages.chunks(WINDOW) {
            outcomes.extend(self.publish_window(window).await);
        }
        outcomes
    }

    async fn publish_window(&self, messages: &[Envelope]) -> Vec<Published> {
        let (generation, channel) = match self.channel().await {
            Ok(found) => found,
            Err(why) => return unknown(messages.len(), &why),
        };
        match tokio::time::timeout(CONFIRM_TIMEOUT, send(&channel, messages)).await {
            Ok(outcomes) => {
                if channel.status().connected() {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((generation, channel));
                }
                outcomes
            }
            Err(_) => {
                self.link.is_lost(generation);
                unknown(messages.len(), "no confirm in time")
            }
        }
    }

    /// A channel that no other batch uses, in confirm mode.
    async fn channel(&self) -> Result<(u64, Channel), String> {
        let live = self.link.live(CONNECTION_WAIT).await.map_err(|error| error.to_string())?;
        {
            let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
            idle.retain(|(generation, channel)| *generation == live.generation && channel.status().connected());
            if let Some(found) = idle.pop() {
                return Ok(found);
            }
        }
        match tokio::time::timeout(REQUEST_TIMEOUT, open(&live)).await {
            Ok(Ok(channel)) => Ok((live.generation, channel)),
            Ok(Err(error)) => Err(error.to_string()),
            Err(_) => {
                self.link.is_lost(live.generation);
                Err("no channel in time".to_owned())
            }
        }
    }
}

async fn open(live: &Live) -> Result<Channel, lapin::Error> {
    let channel = live.connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

fn unknown(count: usize, why: &str) -> Vec<Published> {
    vec![Published::Unknown(why.to_owned()); count]
}

async fn send(channel: &Channel, messages: &[Envelope]) -> Vec<Published> {
    let mut confirms = Vec::with_capacity(messages.len());
    let mut broken = None;
    for message in messages {
        let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
        let (exchange, key) = (message.exchange.as_str().into(), message.routing_key.as_str().into());
        let properties = to_lapin(&message.properties);
        match channel.basic_publish(exchange, key, options, &message.body, properties).await {
            Ok(confirm) => confirms.push(confirm),
            Err(error) => {
                broken = Some(error.to_string());
                break;
            }
        }
    }
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut returned = Vec::new();
    for confirm in confirms {
        outcomes.push(match confirm.await {
            Ok(Confirmation::Ack(message)) => {
                returned.extend(message);
                Published::Confirmed
            }
            Ok(Confirmation::Nack(message)) => {
                returned.extend(message);
                Published::Refused
            }
            Ok(Confirmation::NotRequested) => Published::Unknown("the channel does not confirm".to_owned()),
            Err(error) => Published::Unknown(error.to_string()),
        });
    }
    if let Some(why) = broken {
        outcomes.resize(messages.len(), Published::Unknown(why));
    }
    for message in returned {
        let reason = format!("{} {}", message.reply_code, message.reply_text);
        let id = message.delivery.properties.message_id().as_ref().map(ToString::to_string);
        let is_it = |sent: &Envelope| {
            sent.properties.message_id == id
                && sent.exchange == message.delivery.exchange.as_str()
                && sent.routing_key == message.delivery.routing_key.as_str()
        };
        let at =
            messages.iter().zip(&outcomes).position(|(sent, outcome)| is_it(sent) && *outcome == Published::Confirmed);
        if let Some(outcome) = at.and_then(|at| outcomes.get_mut(at)) {
            *outcome = Published::Returned(reason);
        }
    }
    outcomes
}
