//! Which exchanges, queues and bindings there are (section 5 of the contract). Pure.

/// Exchanges with their kinds, all durable.
pub const EXCHANGES: [(&str, ExchangeKind); 5] = [
    ("amends.commands", ExchangeKind::Topic),
    ("amends.replies", ExchangeKind::Direct),
    ("amends.requests", ExchangeKind::Direct),
    ("amends.events", ExchangeKind::Topic),
    ("amends.dead", ExchangeKind::Topic),
];

/// The queue, and routing key, of replies that all coordinators share.
pub const REPLIES_QUEUE: &str = "amends.replies";

/// The queue of requests from callers who would rather publish than call HTTP.
pub const REQUESTS_QUEUE: &str = "amends.requests";

/// The dead-letter exchange.
pub const DEAD_EXCHANGE: &str = "amends.dead";

/// A message that was delivered this often without being settled goes to the dead letters.
pub const DELIVERY_LIMIT: i64 = 20;

/// The name under which coordinators take commands themselves: those that start and compensate sub-sagas.
pub const COORDINATOR: &str = "amends";

/// How an exchange routes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExchangeKind {
    /// By pattern.
    Topic,
    /// By equal key.
    Direct,
}

/// A durable quorum queue with its bindings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Its name.
    pub name: String,
    /// `(exchange, routing key or pattern)`.
    pub bindings: Vec<(String, String)>,
    /// Whether rejected messages go to [`DEAD_EXCHANGE`] with the queue's name as key, into `<name>.dead`.
    pub dead_letters: bool,
}

/// A set of queues to declare, on top of [`EXCHANGES`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// The queues.
    pub queues: Vec<Queue>,
    /// Whether, for who has no right to declare, it is enough that all of it is there, whatever its arguments and bindings.
    pub only_missing: bool,
}

impl Topology {
    /// What every coordinator needs: the reply and request queues, and the one for sub-sagas, with their dead letters.
    pub fn coordinator() -> Self {
        let mut topology = Self::replies(REPLIES_QUEUE);
        topology.add(REQUESTS_QUEUE, ("amends.requests", &["start", "signal"]));
        topology.merge(Self::participant(COORDINATOR));
        topology
    }

    /// A reply queue. A deployment that shares its broker with another one has its own.
    pub fn replies(queue: &str) -> Self {
        let mut topology = Self::default();
        topology.add(queue, ("amends.replies", &[queue]));
        topology
    }

    /// What one participant needs: its command queue, with its dead letters.
    pub fn participant(name: &str) -> Self {
        let mut topology = Self::default();
        topology.add(&commands_queue(name), ("amends.commands", &[&format!("{name}.#")]));
        topology
    }

    /// The same for who may have no right to declare anything: see [`Topology::only_missing`].
    #[must_use]
    pub fn if_missing(self) -> Self {
        Self { only_missing: true, ..self }
    }

    /// Adds the queues of `other`. Whoever declares anything in any case declares everything.
    pub fn merge(&mut self, other: Self) {
        self.only_missing = other.only_missing && (self.only_missing || self.queues.is_empty());
        for queue in other.queues {
            if !self.queues.contains(&queue) {
                self.queues.push(queue);
            }
        }
    }

    fn add(&mut self, name: &str, (exchange, keys): (&str, &[&str])) {
        let bindings = keys.iter().map(|key| (exchange.to_owned(), (*key).to_owned())).collect();
        self.queues.push(Queue { name: name.to_owned(), bindings, dead_letters: true });
        let dead = format!("{name}.dead");
        let bindings = vec![(DEAD_EXCHANGE.to_owned(), name.to_owned())];
        self.queues.push(Queue { name: dead, bindings, dead_letters: false });
    }
}

/// The queue that a participant consumes.
pub fn commands_queue(participant: &str) -> String {
    format!("{participant}.commands")
}
