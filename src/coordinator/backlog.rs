//! What waits for a committer, and whose turn it is: sagas that are under way before new ones, and new ones of each
//! definition in turns, so that a flood of starts costs the others no more than a small commit.

use std::collections::VecDeque;

use crate::coordinator::work::{Item, Work};

/// How many replies, operator actions and the like one transaction takes at most, and how many starts: a bound for the time
/// that whatever comes next waits for.
const MOST: usize = 384;
const MOST_STARTS: usize = 128;
/// With fewer of those, no more starts than these: a saga or two beside a flood of starts wait for a commit of them at each
/// step, also for one that began before they came. More starts are no faster then: those that come meanwhile are read and
/// answered beside the commit.
const FEW: usize = 8;
const FEW_STARTS: usize = 32;

#[derive(Default)]
pub(super) struct Backlog {
    under_way: VecDeque<Work>,
    /// By definition; the first is the next in turn, and none is empty.
    starts: VecDeque<(String, VecDeque<Work>)>,
    len: usize,
}

impl Backlog {
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn push(&mut self, work: Work) {
        self.len += 1;
        let Item::Start(start) = &work.item else { return self.under_way.push_back(work) };
        let name = &start.definition.reference.name;
        match self.starts.iter_mut().find(|(of, _)| of == name) {
            Some((_, starts)) => starts.push_back(work),
            None => self.starts.push_back((name.clone(), VecDeque::from([work]))),
        }
    }

    /// These come before all others; of each definition, and of what is under way, in their order.
    pub(super) fn put_back(&mut self, batch: impl DoubleEndedIterator<Item = Work>) {
        for work in batch.rev() {
            self.len += 1;
            let Item::Start(start) = &work.item else {
                self.under_way.push_front(work);
                continue;
            };
            let name = &start.definition.reference.name;
            match self.starts.iter_mut().find(|(of, _)| of == name) {
                Some((_, starts)) => starts.push_front(work),
                None => self.starts.push_front((name.clone(), VecDeque::from([work]))),
            }
        }
    }

    /// How many would be committed next.
    pub(super) fn ready(&self) -> usize {
        let under_way = self.under_way.len().min(MOST);
        under_way + (self.len - self.under_way.len()).min(most_starts(under_way))
    }

    /// What is to be committed next.
    pub(super) fn take(&mut self) -> Vec<Work> {
        let mut batch: Vec<Work> = self.under_way.drain(..self.under_way.len().min(MOST)).collect();
        let most = batch.len() + most_starts(batch.len());
        while batch.len() < most
            && let Some((name, mut starts)) = self.starts.pop_front()
        {
            batch.extend(starts.pop_front());
            if !starts.is_empty() {
                self.starts.push_back((name, starts));
            }
        }
        self.len -= batch.len();
        batch
    }
}

/// How many starts go with so many others.
fn most_starts(under_way: usize) -> usize {
    if under_way < FEW { FEW_STARTS } else { MOST_STARTS }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::coordinator::work::{StartItem, TellItem, Waiting};
    use crate::id::SagaId;
    use crate::payload::Payload;
    use crate::saga::EventKind;

    fn start(saga: &str) -> Work {
        let source = format!(
            "saga: {saga}\nversion: 1\nsteps: [{{ name: s, participant: p, action: a, compensation: none, pivot: true }}]"
        );
        let item = Item::Start(StartItem {
            id: SagaId::fresh(),
            definition: crate::definition::compile(&source).expect("a definition"),
            key: None,
            input: Payload::trusted("{}"),
            input_hash: [0; 32],
            turn: None,
            parent: None,
            tombstone: None,
            trace: None,
        });
        Work { item, waiting: Waiting::Starter(oneshot::channel().0) }
    }

    fn told() -> Work {
        let item = Item::Tell(TellItem { id: SagaId::fresh(), event: EventKind::Due });
        Work { item, waiting: Waiting::Teller(oneshot::channel().0) }
    }

    fn names(batch: &[Work]) -> Vec<String> {
        let name = |work: &Work| match &work.item {
            Item::Start(start) => start.definition.reference.name.clone(),
            _ => "under way".to_owned(),
        };
        batch.iter().map(name).collect()
    }

    #[test]
    fn a_start_behind_a_flood_of_another_definition_is_in_the_next_commit() {
        let mut backlog = Backlog::default();
        (0..1_000).for_each(|_| backlog.push(start("flood")));
        backlog.push(start("other"));
        backlog.push(told());
        let batch = backlog.take();
        assert_eq!(batch.len(), 1 + FEW_STARTS);
        assert_eq!(names(&batch)[..3], ["under way", "flood", "other"]);
        assert_eq!(backlog.len(), 1_002 - batch.len());
        let rest = std::iter::from_fn(|| Some(backlog.take()).filter(|batch| !batch.is_empty()));
        assert_eq!(rest.map(|batch| batch.len()).sum::<usize>(), 1_002 - batch.len());
        assert!(backlog.is_empty());
    }

    #[test]
    fn what_is_put_back_comes_first_and_in_its_order() {
        let mut backlog = Backlog::default();
        for saga in ["a", "b", "a"] {
            backlog.push(start(saga));
        }
        backlog.push(told());
        let batch = backlog.take();
        let ids = |batch: &[Work]| batch.iter().filter_map(|work| work.item.saga()).collect::<Vec<_>>();
        let first = ids(&batch);
        backlog.push(start("c"));
        backlog.push(told());
        backlog.put_back(batch.into_iter());
        assert_eq!((backlog.len(), backlog.ready()), (6, 6));
        let batch = backlog.take();
        assert_eq!(names(&batch), ["under way", "under way", "b", "a", "c", "a"]);
        assert_eq!(ids(&batch)[..1], first);
        assert_eq!(backlog.ready(), 0);
    }

    #[test]
    fn while_much_is_under_way_more_is_started() {
        let mut backlog = Backlog::default();
        (0..1_000).for_each(|_| backlog.push(start("flood")));
        assert_eq!(backlog.take().len(), FEW_STARTS);
        (0..1_000).for_each(|_| backlog.push(told()));
        let batch = backlog.take();
        let starts = batch.iter().filter(|work| matches!(work.item, Item::Start(_))).count();
        assert_eq!((batch.len() - starts, starts), (MOST, MOST_STARTS));
    }
}
