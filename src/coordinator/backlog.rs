//! What waits for a committer, and whose turn it is: sagas that are under way before new ones, and new ones of each
//! definition in turns, so that a flood of starts costs the others no more than a small commit.

use std::collections::VecDeque;

use crate::coordinator::work::{Item, Together, Work};

/// How many replies, operator actions and the like one transaction takes at most, and how many starts: a bound for the time
/// that whatever comes next waits for. What one request starts is one transaction all the same, however much it is.
const MOST: usize = 384;
const MOST_STARTS: usize = 128;
/// With fewer of those, no more starts than these: a saga or two beside a flood of starts wait for a commit of them at each
/// step, also for one that began before they came. More starts are no faster then: those that come meanwhile are read and
/// answered beside the commit.
const FEW: usize = 8;
const FEW_STARTS: usize = 32;
/// With so many waiting, large units are committed among the others, too: what waits has a bound.
const CROWDED: usize = 2_048;

#[derive(Default)]
pub(super) struct Backlog {
    under_way: VecDeque<Work>,
    /// By definition; the first is the next in turn, and none is empty.
    starts: VecDeque<(String, VecDeque<Unit>)>,
    /// How many those are, and what is under way.
    len: usize,
    /// Of requests whose starts have not all come out of the channel yet: in a moment they have.
    coming: Vec<Unit>,
    /// Units of more than so many are committed beside the others, at the same time, where the store does that.
    large_beside: Option<usize>,
}

/// Starts that one transaction is to have: a single one, or all of a request.
type Unit = Vec<Work>;

impl Backlog {
    pub(super) fn new(large_beside: Option<usize>) -> Self {
        Self { large_beside, ..Self::default() }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn push(&mut self, work: Work) {
        match work.item {
            Item::Start(_) => {
                if let Some(unit) = self.whole(work) {
                    self.enter(unit, false);
                }
            }
            _ => {
                self.len += 1;
                self.under_way.push_back(work);
            }
        }
    }

    /// The unit that is complete with this start.
    fn whole(&mut self, work: Work) -> Option<Unit> {
        let Some(together) = work.item.together().cloned() else { return Some(vec![work]) };
        let at = self.coming.iter().position(|unit| are_together(unit, &together)).unwrap_or_else(|| {
            self.coming.push(Vec::with_capacity(together.count()));
            self.coming.len() - 1
        });
        self.coming[at].push(work);
        (self.coming[at].len() == together.count()).then(|| self.coming.swap_remove(at))
    }

    /// Puts a unit at an end of its definition's line.
    fn enter(&mut self, unit: Unit, is_first: bool) {
        let Some(Item::Start(start)) = unit.first().map(|work| &work.item) else { return };
        self.len += unit.len();
        let name = &start.definition.reference.name;
        match (self.starts.iter_mut().find(|(of, _)| of == name), is_first) {
            (Some((_, units)), true) => units.push_front(unit),
            (Some((_, units)), false) => units.push_back(unit),
            (None, true) => self.starts.push_front((name.clone(), VecDeque::from([unit]))),
            (None, false) => self.starts.push_back((name.clone(), VecDeque::from([unit]))),
        }
    }

    /// These come before all others; of each definition, and of what is under way, in their order.
    pub(super) fn put_back(&mut self, batch: impl DoubleEndedIterator<Item = Work>) {
        let mut unit = Unit::new();
        for work in batch.rev() {
            let is_next = work.item.together().is_some_and(|together| are_together(&unit, together));
            if !is_next {
                self.enter(in_order(std::mem::take(&mut unit)), true);
            }
            match work.item {
                Item::Start(_) => unit.push(work),
                _ => {
                    self.len += 1;
                    self.under_way.push_front(work);
                }
            }
        }
        self.enter(in_order(unit), true);
    }

    /// Whether there is anything to commit next that is not to be committed beside the others.
    pub(super) fn is_ready(&self) -> bool {
        !self.under_way.is_empty() || self.next(0).is_some()
    }

    /// The definition whose turn it is, beside so many that are under way.
    fn next(&self, under_way: usize) -> Option<usize> {
        let has_place = |unit: &Unit| self.has_place(unit, under_way);
        self.starts.iter().position(|(_, units)| units.front().is_some_and(has_place))
    }

    /// About how many would be committed next.
    pub(super) fn ready(&self) -> usize {
        let under_way = self.under_way.len().min(MOST);
        under_way + (self.len - self.under_way.len()).min(most_starts(under_way))
    }

    /// What is to be committed next. A unit that is larger than a transaction should be has one for itself and what is under
    /// way, or one [beside](Backlog::take_large) the others.
    pub(super) fn take(&mut self) -> Vec<Work> {
        let mut batch: Vec<Work> = self.under_way.drain(..self.under_way.len().min(MOST)).collect();
        let (under_way, most) = (batch.len(), batch.len() + most_starts(batch.len()));
        while batch.len() < most {
            let fits = |unit: &Unit| batch.len() == under_way || batch.len() + unit.len() <= most;
            let next = self.next(under_way);
            let Some(at) = next.filter(|at| self.starts[*at].1.front().is_some_and(fits)) else { break };
            batch.extend(self.take_unit(at));
        }
        self.len -= batch.len();
        batch
    }

    /// A unit that is to be committed beside the others.
    pub(super) fn take_large(&mut self) -> Option<Vec<Work>> {
        let is_large = |unit: &Unit| !self.has_place(unit, self.under_way.len());
        let at = self.starts.iter().position(|(_, units)| units.front().is_some_and(is_large))?;
        let unit = self.take_unit(at);
        self.len -= unit.len();
        Some(unit)
    }

    /// Whether a unit is committed among the others. A large one is where it may not be beside them, and where many are under
    /// way, whose commit would be about as large.
    fn has_place(&self, unit: &Unit, under_way: usize) -> bool {
        self.large_beside.is_none_or(|most| unit.len() <= most) || under_way >= FEW || self.len > CROWDED
    }

    /// The first unit of a definition, whose next turn comes after all others'.
    fn take_unit(&mut self, at: usize) -> Unit {
        let Some((name, mut units)) = self.starts.remove(at) else { return Unit::new() };
        let unit = units.pop_front().unwrap_or_default();
        if !units.is_empty() {
            self.starts.push_back((name, units));
        }
        unit
    }
}

/// A batch cut up: into what one request starts and all else by itself, or if there is nothing but one request, its starts.
pub(super) fn parts(batch: Vec<Work>) -> Vec<Vec<Work>> {
    let mut parts: Vec<Unit> = Vec::new();
    for work in batch {
        let together = work.item.together();
        match parts.last_mut().filter(|unit| together.is_some_and(|together| are_together(unit, together))) {
            Some(unit) => unit.push(work),
            None => parts.push(vec![work]),
        }
    }
    if parts.len() > 1 { parts } else { parts.into_iter().flatten().map(|work| vec![work]).collect() }
}

fn are_together(unit: &[Work], together: &Together) -> bool {
    unit.first().and_then(|work| work.item.together()).is_some_and(|other| other.is(together))
}

/// What was gathered from its end.
fn in_order(mut unit: Unit) -> Unit {
    unit.reverse();
    unit
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
            together: None,
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
        assert_eq!(backlog.len(), 0);
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

    fn request(sagas: &[&str]) -> Vec<Work> {
        let together = Together::of(sagas.len());
        let of_it = |saga: &&str| match start(saga) {
            Work { item: Item::Start(item), waiting } => {
                Work { item: Item::Start(StartItem { together: together.clone(), ..item }), waiting }
            }
            other => other,
        };
        sagas.iter().map(of_it).collect()
    }

    #[test]
    fn the_starts_of_a_request_are_never_parted() {
        let mut backlog = Backlog::default();
        let (large, small) = (["large"; 2 * MOST_STARTS], ["small", "other"]);
        let mut large = request(&large).into_iter();
        large.by_ref().take(10).for_each(|work| backlog.push(work));
        assert!(backlog.len() == 0 && backlog.take().is_empty(), "the others are on their way");
        backlog.push(start("small"));
        large.for_each(|work| backlog.push(work));
        request(&small).into_iter().for_each(|work| backlog.push(work));
        backlog.push(told());
        assert_eq!(backlog.len(), 1 + 2 * MOST_STARTS + 2 + 1);

        assert_eq!(names(&backlog.take()), ["under way", "small"], "the large one does not fit in with these");
        let batch = backlog.take();
        assert_eq!(names(&batch), ["large"; 2 * MOST_STARTS]);
        assert_eq!(names(&backlog.take()), small);
        assert_eq!(backlog.len(), 0);

        // Nor are they when a commit comes to nothing.
        request(&["later"; 3]).into_iter().for_each(|work| backlog.push(work));
        let ids = |batch: &[Work]| {
            batch
                .iter()
                .filter_map(|work| match &work.item {
                    Item::Start(start) => Some(start.id),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        let (large, later) = (ids(&batch), backlog.take());
        backlog.put_back(batch.into_iter().chain(later));
        assert_eq!(ids(&backlog.take()), large);
        assert_eq!(names(&backlog.take()), ["later"; 3]);
        assert_eq!(backlog.len(), 0);
    }

    #[test]
    fn a_request_is_parted_only_when_there_is_nothing_else_to_part() {
        let lengths = |parts: Vec<Vec<Work>>| parts.iter().map(Vec::len).collect::<Vec<_>>();
        let batch = [vec![told(), start("a")], request(&["a"; 3]), request(&["b"; 2]), vec![start("b")]];
        assert_eq!(lengths(parts(batch.into_iter().flatten().collect())), [1, 1, 3, 2, 1]);
        assert_eq!(lengths(parts(request(&["a"; 3]))), [1, 1, 1]);
        assert_eq!(lengths(parts(vec![start("a"), start("a")])), [1, 1]);
        assert!(parts(Vec::new()).is_empty());
    }

    #[test]
    fn a_large_request_is_left_to_be_committed_beside_few_others_unless_too_much_waits() {
        let mut backlog = Backlog::new(Some(MOST_STARTS));
        request(&["large"; MOST_STARTS + 1]).into_iter().for_each(|work| backlog.push(work));
        assert!(!backlog.is_ready() && backlog.take().is_empty());
        request(&["large"; MOST_STARTS]).into_iter().for_each(|work| backlog.push(work));
        backlog.push(start("other"));
        assert!(backlog.is_ready());
        assert_eq!(names(&backlog.take()), ["other"], "what comes after it of its definition waits with it");
        assert_eq!(backlog.take_large().map(|unit| unit.len()), Some(MOST_STARTS + 1));
        assert!(backlog.take_large().is_none() && backlog.is_ready());
        assert_eq!(backlog.take().len(), MOST_STARTS);
        assert_eq!(backlog.len(), 0);

        // Its commit is not much larger than theirs.
        request(&["large"; MOST_STARTS + 1]).into_iter().for_each(|work| backlog.push(work));
        (0..FEW).for_each(|_| backlog.push(told()));
        assert!(backlog.is_ready() && backlog.take_large().is_none());
        assert_eq!(backlog.take().len(), FEW + MOST_STARTS + 1);

        while backlog.len() <= CROWDED {
            assert!(!backlog.is_ready());
            request(&["large"; MOST_STARTS + 1]).into_iter().for_each(|work| backlog.push(work));
        }
        assert_eq!(backlog.take().len(), MOST_STARTS + 1);
        assert!(backlog.take().is_empty());
    }
}
