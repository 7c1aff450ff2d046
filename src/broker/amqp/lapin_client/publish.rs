//! Publishing: a whole batch is handed over, then every confirm awaited.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use lapin::message::BasicReturnMessage;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Channel, Confirmation, PublisherConfirm};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::broker::Published;
use crate::broker::amqp::lapin_client::begun::Begun;
use crate::broker::amqp::lapin_client::convert::{short, to_lapin};
use crate::broker::amqp::lapin_client::link::{Link, Live, REQUEST_TIMEOUT};
use crate::failpoint::{self, Point};
use crate::message::Envelope;
use crate::message::command::COMMANDS_EXCHANGE;

/// How long to wait for a connection before a batch is given back.
const CONNECTION_WAIT: Duration = Duration::from_secs(10);
/// How long the broker has to confirm a batch. After that nobody knows what it has.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(30);
/// Batches that may be on their way at once. Each has a channel of its own, so that a returned message, which lapin
/// hands to the next confirm that completes on its channel, never strays into another batch.
const CHANNELS: usize = 8;
/// Unconfirmed messages per channel: a bound for memory on both sides.
const WINDOW: usize = 2_048;
/// The same in bytes of bodies; a larger message goes alone.
const WINDOW_BYTES: usize = 8 * 1024 * 1024;

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
        let mut rest = messages.as_slice();
        while !rest.is_empty() {
            let (window, later) = rest.split_at(window(rest));
            outcomes.extend(self.publish_window(window).await);
            rest = later;
        }
        outcomes
    }

    async fn publish_window(&self, messages: &[Envelope]) -> Vec<Published> {
        let (live, channel) = match self.channel().await {
            Ok(found) => found,
            Err(why) => return unknown(messages.len(), &why),
        };
        match tokio::time::timeout(CONFIRM_TIMEOUT, send(&channel, messages)).await {
            Ok(outcomes) => {
                if channel.status().connected() {
                    self.idle.lock().unwrap_or_else(PoisonError::into_inner).push((live.generation, channel));
                }
                outcomes
            }
            Err(_) => {
                live.is_lost();
                unknown(messages.len(), &format!("no confirm within {CONFIRM_TIMEOUT:?}"))
            }
        }
    }

    /// A channel that no other batch uses, in confirm mode. Nothing was sent yet, so that a connection that turns out to
    /// be gone is no reason to give up before the time is over.
    async fn channel(&self) -> Result<(Live, Channel), String> {
        let end = Instant::now() + CONNECTION_WAIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let live = self.link.live(left).await.map_err(|error| error.to_string())?;
            {
                let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
                idle.retain(|(generation, channel)| *generation == live.generation && channel.status().connected());
                if let Some((_, found)) = idle.pop() {
                    return Ok((live, found));
                }
            }
            match tokio::time::timeout(REQUEST_TIMEOUT, open(&live)).await {
                Ok(Ok(channel)) => return Ok((live, channel)),
                Ok(Err(error)) if live.connection.status().connected() => return Err(error.to_string()),
                Ok(Err(_)) | Err(_) => live.is_lost(),
            }
        }
    }
}

/// How many of `messages` go at once: at least one.
fn window(messages: &[Envelope]) -> usize {
    let mut bytes = 0;
    let fits = |message: &&Envelope| {
        bytes += message.body.len();
        bytes <= WINDOW_BYTES
    };
    messages.iter().take(WINDOW).take_while(fits).count().max(1).min(messages.len())
}

async fn open(live: &Live) -> Result<Channel, lapin::Error> {
    let channel = live.connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    Ok(channel)
}

fn unknown(count: usize, why: &str) -> Vec<Published> {
    vec![Published::Unknown(why.to_owned()); count]
}

/// What became of a message so far.
enum Sent<'a> {
    Begun(Begun<'a, lapin::Result<PublisherConfirm>>),
    /// It cannot be written in AMQP.
    Impossible(String),
}

async fn send(channel: &Channel, messages: &[Envelope]) -> Vec<Published> {
    let sent: Vec<Sent<'_>> = messages.iter().map(|message| begin(channel, message)).collect();
    let mut confirms = Vec::with_capacity(sent.len());
    for sent in sent {
        confirms.push(match sent {
            Sent::Begun(begun) => begun.outcome().await.map_err(|error| Published::Unknown(error.to_string())),
            Sent::Impossible(why) => Err(Published::Returned(why)),
        });
    }
    let has_commands = messages.iter().any(|message| message.exchange == COMMANDS_EXCHANGE);
    failpoint::reached_if(has_commands, Point::PublishedNotConfirmed);
    let mut outcomes = Vec::with_capacity(messages.len());
    let mut returned = Vec::new();
    for confirm in confirms {
        let confirmation = match confirm {
            Ok(confirm) => confirm.await,
            Err(outcome) => {
                outcomes.push(outcome);
                continue;
            }
        };
        outcomes.push(match confirmation {
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
    for message in &returned {
        take_back(messages, &mut outcomes, message);
    }
    outcomes
}

/// Hands a message over to lapin.
fn begin<'a>(channel: &'a Channel, message: &'a Envelope) -> Sent<'a> {
    let parts = || -> Result<_, String> {
        let exchange = short("exchange", &message.exchange)?;
        let key = short("routing key", &message.routing_key)?;
        let properties: BasicProperties = to_lapin(&message.properties)?;
        Ok((exchange, key, properties))
    };
    let options = BasicPublishOptions { mandatory: message.mandatory, ..BasicPublishOptions::default() };
    match parts() {
        Ok((exchange, key, properties)) => {
            Sent::Begun(Begun::now(channel.basic_publish(exchange, key, options, &message.body, properties)))
        }
        Err(why) => Sent::Impossible(why),
    }
}

/// Finds the message that was returned: the confirm that brought it may be any other's.
fn take_back(messages: &[Envelope], outcomes: &mut [Published], returned: &BasicReturnMessage) {
    let id = returned.delivery.properties.message_id().as_ref().map(ToString::to_string);
    let is_it = |sent: &Envelope| {
        sent.properties.message_id == id
            && sent.exchange == returned.delivery.exchange.as_str()
            && sent.routing_key == returned.delivery.routing_key.as_str()
    };
    let mut confirmed = messages.iter().zip(outcomes).filter(|(_, outcome)| **outcome == Published::Confirmed);
    match confirmed.find(|(sent, _)| is_it(sent)) {
        Some((_, outcome)) => {
            *outcome = Published::Returned(format!("{} {}", returned.reply_code, returned.reply_text));
        }
        None => tracing::error!(?id, key = %returned.delivery.routing_key, "a message came back that was not sent"),
    }
}
