//! Names and numbers of things, each a type of its own. With [`clock`](crate::clock) the only module that makes
//! anything up: everywhere else ids arrive as arguments.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One running saga. A UUIDv7, so that ranges of ids are ranges of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(pub Uuid);

impl SagaId {
    /// A fresh id, later than every id made before it in this process.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes saga ids")]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }

    /// An id that is after those of all sagas started before a time, in milliseconds since 1970, and before those started
    /// from then on.
    pub fn first_at(millis: i64) -> Self {
        let millis = u64::try_from(millis).unwrap_or_default().min((1 << 48) - 1);
        Self(Uuid::from_u64_pair((millis << 16) | 0x7000, 0x8000 << 48))
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// One bulk job. A UUIDv7, so that jobs sort by when they were made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BulkId(pub Uuid);

impl BulkId {
    /// A fresh id, later than every id made before it in this process.
    #[expect(clippy::disallowed_methods, reason = "this is the one place that makes ids of bulk jobs")]
    pub fn fresh() -> Self {
        Self(Uuid::now_v7())
    }
}

impl fmt::Display for BulkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for BulkId {
    type Err = uuid::Error;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Uuid::parse_str(text).map(Self)
    }
}

/// A fresh id for one HTTP request, to be found again in the log.
#[expect(clippy::disallowed_methods, reason = "this is the one place that makes request ids")]
pub fn fresh_request_id() -> Uuid {
    Uuid::now_v7()
}

/// A fresh id of a span; never 0. `None` when the operating system has no random source.
pub fn fresh_span() -> Option<u64> {
    getrandom::u64().ok().filter(|id| *id != 0)
}

/// 32 random bytes, for a key that signs tokens.
///
/// # Errors
/// When the operating system has no random source: nothing could be kept secret then.
pub fn fresh_secret() -> Result<[u8; 32], getrandom::Error> {
    let mut secret = [0; 32];
    getrandom::fill(&mut secret)?;
    Ok(secret)
}

/// Where a coordinator's fresh ids and secrets come from: the machine, or a simulation that can be repeated.
#[derive(Clone, Debug, Default)]
pub enum Ids {
    /// The machine's clock and random source.
    #[default]
    Random,
    /// A seed. Nobody must be meant to be kept from guessing them.
    Drawn(DrawnIds),
}

impl Ids {
    /// The id of a new saga, later than every id made before it.
    pub fn saga(&self) -> SagaId {
        match self {
            Self::Random => SagaId::fresh(),
            Self::Drawn(drawn) => drawn.saga(),
        }
    }

    /// 32 bytes for a key that signs tokens.
    ///
    /// # Errors
    /// As [`fresh_secret`].
    pub fn secret(&self) -> Result<[u8; 32], getrandom::Error> {
        match self {
            Self::Random => fresh_secret(),
            Self::Drawn(drawn) => Ok([drawn.seed.to_be_bytes()[7]; 32]),
        }
    }
}

/// Ids that a seed gives, one after the other; clones go on where the others are.
#[derive(Clone, Debug)]
pub struct DrawnIds {
    seed: u64,
    drawn: Arc<AtomicU64>,
    /// Whose time the ids tell; that of nobody unless it is given.
    clock: Option<Arc<AtomicI64>>,
}

impl DrawnIds {
    /// The ids of this seed, from the first.
    pub fn of(seed: u64) -> Self {
        Self { seed, drawn: Arc::default(), clock: None }
    }

    /// The same, as one makes them whose clock this is, in milliseconds since 1970.
    #[must_use]
    pub fn by(self, clock: Arc<AtomicI64>) -> Self {
        Self { clock: Some(clock), ..self }
    }

    /// Shaped as a UUIDv7 whose milliseconds are the clock's, or the count.
    fn saga(&self) -> SagaId {
        let count = self.drawn.fetch_add(1, Ordering::Relaxed) + 1;
        let mixed = (self.seed ^ count.wrapping_mul(0x9e37_79b9_7f4a_7c15)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let millis = self.clock.as_ref().and_then(|clock| u64::try_from(clock.load(Ordering::Relaxed)).ok());
        SagaId(Uuid::from_u64_pair(millis.unwrap_or(count) << 16 | 0x7000 | count & 0xfff, 1 << 63 | mixed >> 2))
    }
}

/// The place of a command among all commands of its saga, from 1, in the order they were decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Seq(pub u32);

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One command: an outbox entry. All its attempts share this id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CommandId {
    /// The saga that decided it.
    pub saga: SagaId,
    /// Its place in that saga.
    pub seq: Seq,
}

impl CommandId {
    /// The AMQP `message_id` of one attempt: derived, so that publishing the same attempt again repeats it.
    pub fn message_id(self, attempt: u32) -> Uuid {
        Uuid::new_v5(&self.saga.0, format!("{}/{attempt}", self.seq).as_bytes())
    }
}

/// The place of a step in its definition, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct StepIndex(pub u16);

impl StepIndex {
    /// As an index into a definition's or saga's list of steps.
    pub fn at(self) -> usize {
        usize::from(self.0)
    }
}

/// A definition's name and version: what a running saga is pinned to.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DefinitionRef {
    /// The definition's name, for example `place-order`.
    pub name: String,
    /// Its version, from 1.
    pub version: u32,
}

impl fmt::Display for DefinitionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} v{}", self.name, self.version)
    }
}

/// One tenant of a deployment: nothing of it is seen from another. Its name is in its schema, its queues and its tokens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(Arc<str>);

/// Names that would be mistaken for something else: on the broker `amends.*` and `amq.*` are not a namespace's.
const RESERVED: [&str; 4] = ["all", "amends", "amq", "none"];
/// Characters of a namespace's name, at most.
const LONGEST_NAMESPACE: usize = 40;

impl Namespace {
    /// The name of the namespace that is always there.
    pub const DEFAULT: &str = "default";

    /// Its name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it is the one that is always there, whose names are those of the contract.
    pub fn is_default(&self) -> bool {
        &*self.0 == Self::DEFAULT
    }

    /// `name` with the namespace before it, unless it is the default one: what its exchanges and queues are called.
    pub fn prefix(&self, name: &str) -> String {
        if self.is_default() { name.to_owned() } else { format!("{self}.{name}") }
    }

    /// The schema that holds it in a PostgreSQL database; the default namespace is where the connection itself leads.
    pub fn schema(&self) -> Option<String> {
        (!self.is_default()).then(|| format!("amends_{self}"))
    }
}

impl Default for Namespace {
    fn default() -> Self {
        Self(Self::DEFAULT.into())
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A text is no name of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidNamespace {
    /// It has other characters, or too many.
    #[error(
        "a namespace's name has 1 to {LONGEST_NAMESPACE} lower case letters, digits and `-`, begins with a letter and does not end in `-`"
    )]
    Form,
    /// It means something else already.
    #[error("`{0}` is reserved and cannot be a namespace's name")]
    Reserved(&'static str),
}

impl FromStr for Namespace {
    type Err = InvalidNamespace;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let is_plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        let is_well_formed = (1..=LONGEST_NAMESPACE).contains(&text.len())
            && text.bytes().all(is_plain)
            && text.starts_with(|first: char| first.is_ascii_lowercase())
            && !text.ends_with('-');
        if !is_well_formed {
            return Err(InvalidNamespace::Form);
        }
        match RESERVED.iter().find(|reserved| **reserved == text) {
            Some(reserved) => Err(InvalidNamespace::Reserved(reserved)),
            None => Ok(Self(text.into())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_a_name_that_fits_schemas_queues_and_tokens() {
        for good in ["a", "acme", "acme-eu-2", "default", &"n".repeat(40)] {
            assert_eq!(good.parse::<Namespace>().map(|namespace| namespace.to_string()).as_deref(), Ok(good));
        }
        for bad in ["", "Acme", "acme_eu", "acme.eu", "-a", "a-", "1a", "ä", "a b", "a\"b", &"n".repeat(41)] {
            assert_eq!(bad.parse::<Namespace>(), Err(InvalidNamespace::Form), "{bad}");
        }
        for reserved in RESERVED {
            assert_eq!(reserved.parse::<Namespace>(), Err(InvalidNamespace::Reserved(reserved)));
        }
    }
}
