//! What to tell the broker about deliveries: ranges where that can be, single ones where it cannot.

use std::collections::BTreeSet;

use crate::broker::{DeliveryTag, Settlement};

/// What to send to settle deliveries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    /// Rejections, with their requeue flag.
    pub(super) refused: Vec<(u64, bool)>,
    /// Acknowledge all up to and including this one.
    pub(super) up_to: Option<u64>,
    /// Acknowledge each.
    pub(super) single: BTreeSet<u64>,
}

/// Plans settling `deliveries`, and takes them from what is unsettled.
pub(super) fn plan(generation: u64, unsettled: &mut BTreeSet<u64>, deliveries: Vec<(DeliveryTag, Settlement)>) -> Plan {
    let mut plan = Plan { refused: Vec::new(), up_to: None, single: BTreeSet::new() };
    for (tag, settlement) in deliveries {
        if tag.generation != generation || !unsettled.contains(&tag.tag) {
            continue;
        }
        match settlement {
            Settlement::Ack => {
                plan.single.insert(tag.tag);
            }
            Settlement::Reject | Settlement::Requeue => {
                unsettled.remove(&tag.tag);
                plan.single.remove(&tag.tag);
                plan.refused.push((tag.tag, settlement == Settlement::Requeue));
            }
        }
    }
    // A range may only be acknowledged if nothing in it is still being worked on.
    while let Some(&oldest) = unsettled.first() {
        if !plan.single.remove(&oldest) {
            break;
        }
        unsettled.remove(&oldest);
        plan.up_to = Some(oldest);
    }
    unsettled.retain(|tag| !plan.single.contains(tag));
    plan
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::{DeliveryTag, Plan, Settlement, plan};
    use Settlement::{Ack, Reject, Requeue};

    /// Plans settlements of generation 2 while the deliveries `unsettled` are open; gives what is open afterwards too.
    fn planned(unsettled: &[u64], settlements: &[(u64, Settlement)]) -> (Plan, Vec<u64>) {
        let mut unsettled: BTreeSet<u64> = unsettled.iter().copied().collect();
        let tagged = settlements.iter().map(|&(tag, settlement)| (DeliveryTag { generation: 2, tag }, settlement));
        let plan = plan(2, &mut unsettled, tagged.collect());
        (plan, unsettled.into_iter().collect())
    }

    fn expected(refused: &[(u64, bool)], up_to: Option<u64>, single: &[u64]) -> Plan {
        Plan { refused: refused.to_vec(), up_to, single: single.iter().copied().collect() }
    }

    #[test]
    fn what_is_contiguous_is_acknowledged_at_once() {
        assert_eq!(planned(&[1, 2, 3, 4], &[(3, Ack), (1, Ack), (2, Ack)]), (expected(&[], Some(3), &[]), vec![4]));
    }

    #[test]
    fn what_is_still_worked_on_is_not_acknowledged() {
        let (plan, open) = planned(&[1, 2, 3, 4], &[(1, Ack), (3, Ack), (4, Ack)]);
        assert_eq!((plan, open), (expected(&[], Some(1), &[3, 4]), vec![2]));
        assert_eq!(planned(&[1, 2], &[(2, Ack)]), (expected(&[], None, &[2]), vec![1]));
    }

    #[test]
    fn refusals_are_sent_apart_from_the_range_around_them() {
        let (plan, open) = planned(&[1, 2, 3], &[(1, Ack), (2, Reject), (3, Ack)]);
        assert_eq!((plan, open), (expected(&[(2, false)], Some(3), &[]), vec![]));
        assert_eq!(planned(&[5], &[(5, Requeue)]), (expected(&[(5, true)], None, &[]), vec![]));
    }

    #[test]
    fn a_delivery_is_settled_once() {
        assert_eq!(planned(&[2], &[(1, Ack)]), (expected(&[], None, &[]), vec![2]), "settled before");
        assert_eq!(planned(&[1], &[(1, Ack), (1, Reject)]), (expected(&[(1, false)], None, &[]), vec![]));
        assert_eq!(planned(&[1], &[(1, Reject), (1, Ack)]), (expected(&[(1, false)], None, &[]), vec![]));
    }

    #[test]
    fn tags_of_another_connection_are_ignored() {
        let mut unsettled = BTreeSet::from([1]);
        let stale = vec![(DeliveryTag { generation: 1, tag: 1 }, Ack)];
        assert_eq!(plan(2, &mut unsettled, stale), expected(&[], None, &[]));
        assert_eq!(unsettled, BTreeSet::from([1]));
    }
}
