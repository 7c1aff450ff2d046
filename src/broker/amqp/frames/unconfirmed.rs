//! What was published and is not confirmed yet, in batches. The broker confirms by counting: the n-th message of a
//! channel has tag n; a returned message names itself by its id, and is confirmed all the same afterwards.

use std::collections::VecDeque;

use tokio::sync::oneshot;

use crate::broker::Published;
use crate::message::Envelope;

#[derive(Default)]
pub(super) struct Unconfirmed {
    /// Messages that were published on this channel.
    published: u64,
    batches: VecDeque<Batch>,
}

/// What became of a message so far.
enum Fate {
    Waiting,
    /// It came back: why. Counts once it is confirmed.
    Returned(String),
    Settled(Published),
}

struct Batch {
    /// The tag of the first message that was sent.
    first: u64,
    /// For each tag from the first one on, which message it is.
    sent: Vec<usize>,
    /// Tags before this one, counted from the first, are settled.
    settled_up_to: usize,
    /// Unsettled messages.
    left: usize,
    messages: Vec<Envelope>,
    fates: Vec<Fate>,
    /// Gone once it was told.
    done: Option<oneshot::Sender<Vec<Published>>>,
}

impl Unconfirmed {
    /// Takes up a batch that is being sent now. `impossible` has, by their places, the messages that are not.
    pub(super) fn begin(
        &mut self,
        messages: Vec<Envelope>,
        impossible: Vec<(usize, String)>,
    ) -> oneshot::Receiver<Vec<Published>> {
        let (done, outcome) = oneshot::channel();
        let mut fates: Vec<Fate> = messages.iter().map(|_| Fate::Waiting).collect();
        for (at, why) in impossible {
            if let Some(fate) = fates.get_mut(at) {
                *fate = Fate::Settled(Published::Returned(why));
            }
        }
        let waiting = fates.iter().enumerate().filter(|(_, fate)| matches!(fate, Fate::Waiting));
        let sent: Vec<usize> = waiting.map(|(at, _)| at).collect();
        let (first, left) = (self.published + 1, sent.len());
        self.published += left as u64;
        self.batches.push_back(Batch { first, sent, settled_up_to: 0, left, messages, fates, done: Some(done) });
        self.tell();
        outcome
    }

    /// The broker has settled a message, or all up to and including it.
    pub(super) fn settle(&mut self, tag: u64, multiple: bool, outcome: &Published) {
        for batch in &mut self.batches {
            let Some(last) = tag.checked_sub(batch.first) else { break };
            let last = usize::try_from(last).unwrap_or(usize::MAX);
            if multiple {
                let end = batch.sent.len().min(last.saturating_add(1));
                (batch.settled_up_to..end).for_each(|at| batch.settle(at, outcome));
                batch.settled_up_to = batch.settled_up_to.max(end);
            } else if last < batch.sent.len() {
                batch.settle(last, outcome);
                break;
            }
        }
        self.tell();
    }

    /// A message has come back. Returns whether it is one of these.
    pub(super) fn returned(&mut self, message: &Envelope, why: String) -> bool {
        for batch in &mut self.batches {
            let is_it = |(sent, fate): &(&Envelope, &mut Fate)| {
                matches!(fate, Fate::Waiting)
                    && sent.properties.message_id == message.properties.message_id
                    && sent.exchange == message.exchange
                    && sent.routing_key == message.routing_key
            };
            if let Some((_, fate)) = batch.messages.iter().zip(&mut batch.fates).find(is_it) {
                *fate = Fate::Returned(why);
                return true;
            }
        }
        false
    }

    /// The connection is gone: nobody knows what became of the rest.
    pub(super) fn lose(&mut self, why: &str) {
        for batch in &mut self.batches {
            (0..batch.sent.len()).for_each(|at| batch.settle(at, &Published::Unknown(why.to_owned())));
        }
        self.tell();
    }

    /// Answers for the batches that are whole, and forgets them.
    fn tell(&mut self) {
        for batch in &mut self.batches {
            if batch.left == 0
                && let Some(done) = batch.done.take()
            {
                let fates = std::mem::take(&mut batch.fates).into_iter();
                let outcome = |fate| match fate {
                    Fate::Settled(outcome) => outcome,
                    Fate::Waiting | Fate::Returned(_) => Published::Unknown("not settled".to_owned()),
                };
                // Whoever has given up waiting does not hear it.
                drop(done.send(fates.map(outcome).collect()));
                batch.messages.clear();
            }
        }
        while self.batches.front().is_some_and(|batch| batch.done.is_none()) {
            self.batches.pop_front();
        }
    }
}

impl Batch {
    fn settle(&mut self, at: usize, outcome: &Published) {
        let Some(fate) = self.sent.get(at).and_then(|&message| self.fates.get_mut(message)) else { return };
        let settled = match (&mut *fate, outcome) {
            // It said so before, and does not say it again.
            (Fate::Settled(_), _) => return,
            (Fate::Returned(why), Published::Confirmed) => Published::Returned(std::mem::take(why)),
            (_, outcome) => outcome.clone(),
        };
        *fate = Fate::Settled(settled);
        self.left -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::Unconfirmed;
    use crate::broker::Published::{self, Confirmed, Refused, Returned, Unknown};
    use crate::message::{Envelope, Properties};

    fn message(id: &str) -> Envelope {
        Envelope {
            exchange: "x".to_owned(),
            routing_key: "k".to_owned(),
            mandatory: true,
            properties: Properties { message_id: Some(id.to_owned()), ..Properties::default() },
            body: Vec::new(),
        }
    }

    fn batch(ids: &[&str]) -> Vec<Envelope> {
        ids.iter().map(|id| message(id)).collect()
    }

    fn told(outcome: &mut tokio::sync::oneshot::Receiver<Vec<Published>>) -> Option<Vec<Published>> {
        outcome.try_recv().ok()
    }

    #[test]
    fn a_range_confirms_over_batches() {
        let mut unconfirmed = Unconfirmed::default();
        let mut a = unconfirmed.begin(batch(&["1", "2"]), Vec::new());
        let mut b = unconfirmed.begin(batch(&["3", "4"]), Vec::new());
        unconfirmed.settle(3, true, &Confirmed);
        assert_eq!((told(&mut a), told(&mut b)), (Some(vec![Confirmed, Confirmed]), None));
        unconfirmed.settle(4, false, &Confirmed);
        assert_eq!(told(&mut b), Some(vec![Confirmed, Confirmed]));
        assert!(unconfirmed.batches.is_empty());
    }

    #[test]
    fn batches_end_in_any_order_and_each_message_keeps_its_place() {
        let mut unconfirmed = Unconfirmed::default();
        let mut a = unconfirmed.begin(batch(&["1", "2"]), Vec::new());
        let mut b = unconfirmed.begin(batch(&["3"]), Vec::new());
        unconfirmed.settle(3, false, &Confirmed);
        assert_eq!((told(&mut a), told(&mut b)), (None, Some(vec![Confirmed])));
        unconfirmed.settle(2, false, &Refused);
        unconfirmed.settle(2, true, &Confirmed);
        assert_eq!(told(&mut a), Some(vec![Confirmed, Refused]), "what was said first stands");
    }

    #[test]
    fn what_came_back_is_returned_once_it_is_confirmed() {
        let mut unconfirmed = Unconfirmed::default();
        let mut outcome = unconfirmed.begin(batch(&["1", "2", "2"]), Vec::new());
        assert!(unconfirmed.returned(&message("2"), "312 NO_ROUTE".to_owned()));
        assert!(!unconfirmed.returned(&message("4"), "312 NO_ROUTE".to_owned()));
        unconfirmed.settle(3, true, &Confirmed);
        let expected = vec![Confirmed, Returned("312 NO_ROUTE".to_owned()), Confirmed];
        assert_eq!(told(&mut outcome), Some(expected), "each copy comes back for itself");
    }

    #[test]
    fn what_was_not_sent_takes_no_tag() {
        let mut unconfirmed = Unconfirmed::default();
        let mut outcome = unconfirmed.begin(batch(&["1", "2", "3"]), vec![(1, "too long".to_owned())]);
        unconfirmed.settle(2, false, &Confirmed);
        unconfirmed.settle(1, false, &Refused);
        assert_eq!(told(&mut outcome), Some(vec![Refused, Returned("too long".to_owned()), Confirmed]));
        let mut none = unconfirmed.begin(batch(&["4"]), vec![(0, "too long".to_owned())]);
        assert_eq!(told(&mut none), Some(vec![Returned("too long".to_owned())]), "nothing to wait for");
    }

    #[test]
    fn a_lost_connection_leaves_what_is_known() {
        let mut unconfirmed = Unconfirmed::default();
        let mut outcome = unconfirmed.begin(batch(&["1", "2"]), Vec::new());
        unconfirmed.settle(1, false, &Confirmed);
        unconfirmed.lose("cut off");
        assert_eq!(told(&mut outcome), Some(vec![Confirmed, Unknown("cut off".to_owned())]));
    }

    #[test]
    fn tags_that_were_never_given_change_nothing() {
        let mut unconfirmed = Unconfirmed::default();
        let mut outcome = unconfirmed.begin(batch(&["1"]), Vec::new());
        unconfirmed.settle(0, false, &Confirmed);
        unconfirmed.settle(7, false, &Confirmed);
        assert_eq!(told(&mut outcome), None);
        unconfirmed.settle(u64::MAX, true, &Confirmed);
        assert_eq!(told(&mut outcome), Some(vec![Confirmed]));
    }
}
