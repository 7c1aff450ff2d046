//! Which exchanges, queues and bindings there are (section 5 of the contract). Pure.
//!
//! Exchanges and queues of a namespace carry its name before the contract's; routing keys do not.

use std::collections::BTreeSet;

use crate::id::Namespace;

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
    /// Whose it is: name and exchanges carry it, unless it is the default one.
    pub namespace: Namespace,
}

impl Queue {
    /// Exchange and routing key of messages that are rejected, if they are kept.
    pub fn dead_letter(&self) -> Option<(String, &str)> {
        let key = self.name.strip_prefix(&self.namespace.prefix("")).unwrap_or(&self.name);
        self.dead_letters.then(|| (self.namespace.prefix(DEAD_EXCHANGE), key))
    }
}

/// How an exchange of that name routes, if it is one of [`EXCHANGES`] or a namespace's.
pub fn exchange_kind(name: &str) -> Option<ExchangeKind> {
    let is_namespace = |prefix: &str| prefix.parse::<Namespace>().is_ok_and(|namespace| !namespace.is_default());
    let plain = match name.split_once('.') {
        Some((prefix, rest)) if is_namespace(prefix) => rest,
        _ => name,
    };
    EXCHANGES.into_iter().find(|(known, _)| *known == plain).map(|(_, kind)| kind)
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

    /// The same within a namespace.
    pub fn within(&self, namespace: &Namespace) -> Self {
        let queues = self.queues.iter().map(|queue| Queue {
            name: namespace.prefix(&queue.name),
            bindings: queue.bindings.iter().map(|(exchange, key)| (namespace.prefix(exchange), key.clone())).collect(),
            dead_letters: queue.dead_letters,
            namespace: namespace.clone(),
        });
        Self { queues: queues.collect(), only_missing: self.only_missing }
    }

    /// The exchanges that its queues need, with their kinds.
    pub fn exchanges(&self) -> Vec<(String, ExchangeKind)> {
        let mut namespaces: BTreeSet<Namespace> = self.queues.iter().map(|queue| queue.namespace.clone()).collect();
        if namespaces.is_empty() {
            namespaces.insert(Namespace::default());
        }
        let of = |namespace: &Namespace| EXCHANGES.map(|(name, kind)| (namespace.prefix(name), kind));
        namespaces.iter().flat_map(of).collect()
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
        let namespace = Namespace::default();
        self.queues.push(Queue { name: name.to_owned(), bindings, dead_letters: true, namespace: namespace.clone() });
        let dead = format!("{name}.dead");
        let bindings = vec![(DEAD_EXCHANGE.to_owned(), name.to_owned())];
        self.queues.push(Queue { name: dead, bindings, dead_letters: false, namespace });
    }
}

/// The queue that a participant consumes.
pub fn commands_queue(participant: &str) -> String {
    format!("{participant}.commands")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_a_namespace_carry_it_and_routing_keys_do_not() {
        let acme: Namespace = "acme".parse().expect("a name");
        let topology = Topology::participant("warehouse").within(&acme);
        let queue = &topology.queues[0];
        assert_eq!(queue.name, "acme.warehouse.commands");
        assert_eq!(queue.bindings, [("acme.amends.commands".to_owned(), "warehouse.#".to_owned())]);
        assert_eq!(queue.dead_letter(), Some(("acme.amends.dead".to_owned(), "warehouse.commands")));
        assert_eq!(topology.queues[1].name, "acme.warehouse.commands.dead");
        assert_eq!(topology.queues[1].bindings, [("acme.amends.dead".to_owned(), "warehouse.commands".to_owned())]);
        let exchanges = topology.exchanges();
        assert_eq!(exchanges.len(), EXCHANGES.len());
        assert!(exchanges.iter().all(|(name, kind)| name.starts_with("acme.") && exchange_kind(name) == Some(*kind)));
    }

    #[test]
    fn the_default_namespace_has_the_names_of_the_contract() {
        let topology = Topology::coordinator();
        assert_eq!(topology.within(&Namespace::default()), topology);
        let named: Vec<_> = topology.exchanges();
        assert_eq!(named, EXCHANGES.map(|(name, kind)| (name.to_owned(), kind)));
        assert_eq!(topology.queues[0].dead_letter(), Some((DEAD_EXCHANGE.to_owned(), REPLIES_QUEUE)));
        for unknown in ["amends.other", "Acme.amends.commands", "default.amends.commands", "amq.amends.commands"] {
            assert_eq!(exchange_kind(unknown), None, "{unknown}");
        }
    }
}
