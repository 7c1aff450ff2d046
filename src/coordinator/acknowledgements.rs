//! Acknowledgements of what is committed, which nobody waits for: they go together, a moment later. Sent at once, each
//! would have the broker write its log ahead of the command that was just decided, and ahead of the answer to that.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use crate::broker::{DeliveryTag, Settlement, Settler};
use crate::coordinator::work::{Item, Waiting};
use crate::failpoint::{self, Point};
use crate::store::StoreError;

/// How long one waits for others. After a coordinator was killed so much more is delivered again, which the next one knows
/// to be settled.
const TOGETHER: Duration = Duration::from_millis(20);
/// So many wait for no more.
const MOST: usize = 256;
/// How long the store may be away until what waits for it is given back to the broker.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long a commit may take until the store is taken to be away. It may wait for others' locks meanwhile.
const LATE: Duration = Duration::from_secs(5);

pub(super) struct Acknowledgements {
    settler: watch::Receiver<Option<Arc<dyn Settler>>>,
    open: Vec<(DeliveryTag, Settlement)>,
    /// When the first of those came.
    since: Option<Instant>,
    /// Those that are being sent.
    sending: Option<JoinHandle<()>>,
    /// Since when the store has been away.
    away: Option<Instant>,
    /// Whether everything was given back.
    gave_back: bool,
}

impl Acknowledgements {
    pub(super) fn new(settler: watch::Receiver<Option<Arc<dyn Settler>>>) -> Self {
        Self { settler, open: Vec::new(), since: None, sending: None, away: None, gave_back: false }
    }

    /// Who settles, while there is a consumer.
    pub(super) fn settler(&self) -> Option<Arc<dyn Settler>> {
        self.settler.borrow().clone()
    }

    /// Takes those of a commit, and sends all if it is time.
    pub(super) async fn add(&mut self, more: Vec<(DeliveryTag, Settlement)>) {
        self.away = None;
        if std::mem::take(&mut self.gave_back)
            && let Some(settler) = self.settler()
        {
            tracing::info!("the store is back: replies are taken again");
            settler.take_more(true);
        }
        if !more.is_empty() {
            failpoint::reached(Point::CommittedNotAcknowledged);
            self.since.get_or_insert_with(Instant::now);
            self.open.extend(more);
        }
        if self.open.len() >= MOST || self.wait().is_some_and(|wait| wait.is_zero()) {
            self.send().await;
        }
    }

    /// A commit has failed: sends all, since the next may take long. When the store stays away other coordinators may have it,
    /// and are left what this one would keep from them, which is nearly all: it may be the one that comes first.
    pub(super) async fn failed(&mut self, error: &StoreError) {
        self.send().await;
        if !matches!(error, StoreError::Unavailable(_) | StoreError::Unknown(_)) {
            return;
        }
        if self.away.get_or_insert_with(Instant::now).elapsed() >= PATIENCE {
            self.give_back();
        }
    }

    /// Waits until a commit that began then is so late that the store is taken to be away; for ever if everything was given
    /// back already.
    pub(super) async fn is_late(&self, began: Instant) {
        match self.gave_back {
            true => std::future::pending().await,
            false => tokio::time::sleep_until(began + LATE).await,
        }
    }

    /// Gives the broker back whatever it has delivered, until a commit succeeds.
    pub(super) fn give_back(&mut self) {
        let was_here = !std::mem::replace(&mut self.gave_back, true);
        if was_here && let Some(settler) = self.settler() {
            tracing::warn!("the store stays away: replies are left to other coordinators, or in the queue");
            settler.take_more(false);
        }
    }

    /// Without what was given back: that comes again, here or elsewhere.
    pub(super) fn those_held(&self, items: Vec<Item>, waiting: Vec<Waiting>) -> (Vec<Item>, Vec<Waiting>) {
        let Some(settler) = self.settler() else { return (items, waiting) };
        let is_held = |waiting: &Waiting| match waiting {
            Waiting::Broker(delivery) => settler.holds(delivery.tag),
            _ => true,
        };
        items.into_iter().zip(waiting).filter(|(_, waiting)| is_held(waiting)).unzip()
    }

    /// How long those that are open still wait; `None` when there are none.
    pub(super) fn wait(&self) -> Option<Duration> {
        Some(TOGETHER.saturating_sub(self.since?.elapsed()))
    }

    /// Sends what is open while whoever asks goes on; one batch at a time, so that a broker that does not take them holds
    /// this up.
    pub(super) async fn send(&mut self) {
        self.since = None;
        let open = std::mem::take(&mut self.open);
        if let Some(settler) = self.settler()
            && !open.is_empty()
        {
            self.sent().await;
            self.sending = Some(tokio::spawn(async move { settler.settle(open).await }));
        }
    }

    /// Sends what is open, and waits until it is sent.
    pub(super) async fn end(&mut self) {
        self.send().await;
        self.sent().await;
    }

    async fn sent(&mut self) {
        if let Some(sending) = self.sending.take() {
            // What is not acknowledged is delivered again.
            drop(sending.await);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use async_trait::async_trait;

    use super::*;

    #[derive(Default)]
    struct Heard(Mutex<Vec<Vec<u64>>>, Mutex<Vec<bool>>);

    #[async_trait]
    impl Settler for Heard {
        async fn settle(&self, deliveries: Vec<(DeliveryTag, Settlement)>) {
            self.0.lock().expect("unlocked").push(deliveries.into_iter().map(|(tag, _)| tag.tag).collect());
        }

        fn take_more(&self, more: bool) {
            self.1.lock().expect("unlocked").push(more);
        }
    }

    fn acks(tags: std::ops::RangeInclusive<u64>) -> Vec<(DeliveryTag, Settlement)> {
        tags.map(|tag| (DeliveryTag { generation: 1, tag }, Settlement::Ack)).collect()
    }

    fn begin() -> (Arc<Heard>, Acknowledgements) {
        let heard = Arc::new(Heard::default());
        let (_, settler) = watch::channel(Some(heard.clone() as Arc<dyn Settler>));
        (heard, Acknowledgements::new(settler))
    }

    #[tokio::test(start_paused = true)]
    async fn those_of_a_moment_go_together_when_it_is_over() {
        let (heard, mut open) = begin();
        assert_eq!(open.wait(), None);
        open.add(acks(1..=2)).await;
        tokio::time::advance(TOGETHER / 2).await;
        open.add(acks(3..=3)).await;
        assert_eq!(open.wait(), Some(TOGETHER / 2), "since the first of them");
        assert!(heard.0.lock().expect("unlocked").is_empty());
        tokio::time::advance(TOGETHER / 2).await;
        open.add(Vec::new()).await;
        assert_eq!(open.wait(), None);
        open.end().await;
        assert_eq!(*heard.0.lock().expect("unlocked"), [vec![1, 2, 3]]);
    }

    #[tokio::test(start_paused = true)]
    async fn many_wait_for_no_more_and_the_end_leaves_none() {
        let (heard, mut open) = begin();
        let most = MOST as u64;
        open.add(acks(1..=most)).await;
        assert_eq!(open.wait(), None);
        open.add(acks(most + 1..=most + 1)).await;
        open.end().await;
        let heard = heard.0.lock().expect("unlocked");
        assert_eq!(heard.iter().map(Vec::len).collect::<Vec<_>>(), [MOST, 1]);
    }

    #[tokio::test(start_paused = true)]
    async fn while_the_store_stays_away_what_waits_for_it_is_given_back() {
        let (heard, mut open) = begin();
        let said = || std::mem::take(&mut *heard.1.lock().expect("unlocked"));
        let away = StoreError::Unavailable("away".to_owned());
        for wait in [PATIENCE / 2, Duration::ZERO] {
            open.failed(&away).await;
            tokio::time::advance(wait).await;
        }
        assert_eq!(said(), [false; 0], "it may be back in a moment");
        open.add(Vec::new()).await;
        open.failed(&away).await;
        tokio::time::advance(PATIENCE).await;
        open.failed(&StoreError::Conflict("quicker".to_owned())).await;
        assert_eq!(said(), [false; 0], "it is there");
        open.failed(&away).await;
        open.failed(&away).await;
        assert_eq!(said(), [false]);
        open.add(Vec::new()).await;
        open.add(Vec::new()).await;
        assert_eq!(said(), [true]);
    }
}
