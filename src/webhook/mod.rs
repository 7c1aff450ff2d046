//! Tells webhooks of sagas that need a person: what was written down with the change is sent, again and again until it is
//! taken, or parked for a person to see to.
//!
//! ```text
//!   commit ──> webhook_delivery ──> claim ──> check the address ──> sign ──> POST ──> gone, due again, or parked
//! ```
//!
//! Messages and signatures are those of Standard Webhooks; the body is a CloudEvent.

pub mod address;
mod deliver;
pub mod signature;

use std::time::Duration;

use reqwest::Url;

pub use deliver::launch;

use crate::coordinator::{Hook, HookEvent};
use signature::Secret;

/// A webhook.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// Its name: what is still to be told is kept under it.
    pub name: String,
    /// Where it is.
    pub url: Url,
    /// What it is told.
    pub events: Vec<HookEvent>,
    /// Of sagas of these definitions; of all, when there are none.
    pub definitions: Vec<String>,
    /// What messages are signed with: each secret gives a signature, so that secrets can be changed one by one.
    pub secrets: Vec<Secret>,
    /// Whether addresses are allowed that are not public.
    pub allow_private: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// After so many attempts a message is parked.
    pub max_attempts: u32,
    /// The wait after the first attempt; doubles, up to [`LONGEST_WAIT`].
    pub first_wait: Duration,
}

/// The longest wait between two attempts.
pub const LONGEST_WAIT: Duration = Duration::from_secs(60 * 60);

impl Endpoint {
    /// What the coordinator must know of it.
    pub fn hook(&self) -> Hook {
        let Self { name, events, definitions, .. } = self;
        Hook { name: name.clone(), events: events.clone(), definitions: definitions.clone() }
    }
}
