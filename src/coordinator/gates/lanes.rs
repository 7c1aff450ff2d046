//! Commands of one participant that are held back, in the order in which each definition's came, and whose turn is next.
//! Only so many are known by id; the store has them all.

use std::collections::{BTreeMap, HashSet, VecDeque};

use crate::id::CommandId;
use crate::saga::Direction;

/// Ids that are kept in memory for a participant; what waits beyond them is read from the store when it is their turn.
pub(super) const KNOWN: usize = 4_096;
/// What one turn costs a definition of weight 1.
const STRIDE: u64 = 1 << 20;

/// Whose turns are counted together: a definition's actions, or its compensations, which do not wait behind a flood of
/// actions.
pub(super) type LaneName = (String, Direction);

#[derive(Default)]
pub(super) struct Lanes {
    lanes: BTreeMap<LaneName, Lane>,
    known: HashSet<CommandId>,
    /// How far turns have come: a lane that appears begins here, so that it has no turns to make up for.
    time: u64,
}

#[derive(Default)]
struct Lane {
    waiting: VecDeque<CommandId>,
    /// When its next turn is.
    turn: u64,
}

impl Lanes {
    /// How many are known.
    pub(super) fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub(super) fn has(&self, id: CommandId) -> bool {
        self.known.contains(&id)
    }

    /// Whether others of this definition and direction wait.
    pub(super) fn has_lane(&self, definition: &str, direction: Direction) -> bool {
        self.lanes.keys().any(|(name, of)| name == definition && *of == direction)
    }

    /// Puts one last. `false` when there is no room for it.
    pub(super) fn push(&mut self, definition: &str, direction: Direction, id: CommandId) -> bool {
        if self.known.len() >= KNOWN {
            return false;
        }
        if self.known.insert(id) {
            self.lane(definition, direction).waiting.push_back(id);
        }
        true
    }

    /// Puts one first that could not go out after all.
    pub(super) fn put_back(&mut self, (definition, direction): &LaneName, id: CommandId) {
        if self.known.insert(id) {
            self.lane(definition, *direction).waiting.push_front(id);
        }
    }

    fn lane(&mut self, definition: &str, direction: Direction) -> &mut Lane {
        let turn = self.time;
        self.lanes.entry((definition.to_owned(), direction)).or_insert_with(|| Lane { waiting: VecDeque::new(), turn })
    }

    /// Takes the one whose turn it is: each definition as often as its weight says, relative to the others that wait.
    pub(super) fn take(&mut self, weight: impl Fn(&str) -> u32) -> Option<(LaneName, CommandId)> {
        let name = self.lanes.iter().min_by_key(|(_, lane)| lane.turn).map(|(name, _)| name.clone())?;
        let lane = self.lanes.get_mut(&name)?;
        self.time = lane.turn;
        lane.turn += STRIDE / u64::from(weight(&name.0).max(1));
        let id = lane.waiting.pop_front();
        if lane.waiting.is_empty() {
            self.lanes.remove(&name);
        }
        let id = id?;
        self.known.remove(&id);
        Some((name, id))
    }

    /// One of them, another one each time.
    pub(super) fn any(&mut self) -> Option<CommandId> {
        let lane = self.lanes.values_mut().next_back()?;
        let id = *lane.waiting.back()?;
        lane.waiting.rotate_right(usize::from(lane.waiting.len() > 1));
        Some(id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{SagaId, Seq};

    fn id(n: u128) -> CommandId {
        CommandId { saga: SagaId(uuid::Uuid::from_u128(n)), seq: Seq(1) }
    }

    fn taken(lanes: &mut Lanes, count: usize) -> Vec<String> {
        let weight = |name: &str| if name == "heavy" { 3 } else { 1 };
        (0..count).filter_map(|_| Some(lanes.take(weight)?.0.0)).collect()
    }

    #[test]
    fn definitions_have_their_turns_by_weight_however_many_of_one_wait() {
        let mut lanes = Lanes::default();
        for n in 0..1_000 {
            assert!(lanes.push("flood", Direction::Action, id(n)));
        }
        for n in 1_000..1_030 {
            assert!(lanes.push("heavy", Direction::Action, id(n)));
        }
        let names = taken(&mut lanes, 40);
        assert_eq!(names.iter().filter(|name| *name == "heavy").count(), 30);
        lanes.push("late", Direction::Action, id(2_000));
        assert!(taken(&mut lanes, 2).contains(&"late".to_owned()), "a newcomer's turn is at hand");
    }

    #[test]
    fn a_newcomer_has_no_turns_to_make_up_for() {
        let mut lanes = Lanes::default();
        for n in 0..200 {
            lanes.push("flood", Direction::Action, id(n));
        }
        taken(&mut lanes, 100);
        for n in 200..300 {
            lanes.push("other", Direction::Action, id(n));
        }
        let names = taken(&mut lanes, 20);
        assert_eq!(names.iter().filter(|name| *name == "other").count(), 10);
    }

    #[test]
    fn compensations_do_not_wait_behind_the_actions_of_their_definition() {
        let mut lanes = Lanes::default();
        for n in 0..100 {
            lanes.push("order", Direction::Action, id(n));
        }
        lanes.push("order", Direction::Compensation, id(500));
        let next: Vec<Direction> = (0..2).filter_map(|_| Some(lanes.take(|_| 1)?.0.1)).collect();
        assert!(next.contains(&Direction::Compensation), "{next:?}");
    }

    #[test]
    fn what_is_known_has_a_bound_and_is_known_once() {
        let mut lanes = Lanes::default();
        for n in 0..KNOWN as u128 {
            assert!(
                lanes.push("order", Direction::Action, id(n)) && lanes.push("order", Direction::Action, id(0))
                    || n + 1 == KNOWN as u128
            );
        }
        assert!(!lanes.push("order", Direction::Action, id(1 << 40)));
        assert_eq!(lanes.len(), KNOWN);
        let (name, first) = lanes.take(|_| 1).expect("one");
        lanes.put_back(&name, first);
        assert_eq!(lanes.take(|_| 1).expect("one").1, first, "in its old place");
    }
}
