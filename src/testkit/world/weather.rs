//! The storm at the beginning of each world, and the calm after it.

use std::time::Duration;

use super::crew::World;
use super::fault::Strike;
use super::sky::Place;

/// What comes of itself, rather than at something that is done.
const SUDDEN: [Strike; 9] = [
    Strike::Crash,
    Strike::Stop,
    Strike::Partition,
    Strike::StoreOutage,
    Strike::BrokerRestart,
    Strike::ClockJump,
    Strike::OwnClockJump,
    Strike::ReplyForged,
    Strike::ParticipantCrash,
];

impl World {
    /// Lets things go wrong for `length`, then no more.
    pub(super) async fn storm(self, length: Duration) {
        let has = |strike: &&Strike| self.sky.is_possible(**strike);
        let possible: Vec<Strike> = SUDDEN.iter().filter(has).copied().collect();
        let millis = u64::try_from(length.as_millis()).unwrap_or(u64::MAX);
        let mut times: Vec<u64> = self.sky.dice(|dice| (0..dice.below(10)).map(|_| dice.below(millis)).collect());
        times.sort_unstable();
        for time in times {
            tokio::time::sleep(Duration::from_millis(time).saturating_sub(self.sky.elapsed())).await;
            if !possible.is_empty() {
                let at = self.sky.dice(|dice| dice.below(possible.len() as u64));
                self.strike(possible[at as usize]).await;
            }
        }
        tokio::time::sleep(length.saturating_sub(self.sky.elapsed())).await;
        self.sky.clear();
        // Or they stay as they are: then all that matters must go by one of them.
        if self.sky.dice(|dice| dice.happens(500)) {
            self.sky.set_clocks_right();
        }
    }

    /// How far a clock is off, in milliseconds: seconds, minutes or hours, ahead or behind.
    fn wrong(&self) -> i64 {
        self.sky.dice(|dice| {
            let most = [5_000, 120_000, 10_800_000][dice.below(3) as usize];
            dice.below(2 * most) as i64 - most as i64
        })
    }

    /// Lets the clocks of some coordinators be off before anything begins.
    pub(super) fn skew(&self, coordinators: u8) {
        for n in 0..coordinators {
            if self.sky.is_possible(Strike::ClockSkewed) && self.sky.dice(|dice| dice.happens(500)) {
                self.sky.struck(Strike::ClockSkewed);
                self.sky.set_clock(Place::Coordinator(n), self.wrong());
            }
        }
    }

    async fn strike(&self, strike: Strike) {
        let places = self.crew.places();
        let some = |is: &dyn Fn(&Place) -> bool| {
            let found: Vec<Place> = places.iter().copied().filter(is).collect();
            let at = self.sky.dice(|dice| dice.below(found.len().max(1) as u64));
            found.get(at as usize).copied()
        };
        let is_coordinator = |place: &Place| matches!(place, Place::Coordinator(_));
        match strike {
            Strike::Crash | Strike::ParticipantCrash => {
                let wanted = |place: &Place| is_coordinator(place) == (strike == Strike::Crash);
                if let Some(place) = some(&wanted) {
                    self.sky.struck(strike);
                    self.crew.crash(place);
                }
            }
            Strike::Stop => {
                if let Some(Place::Coordinator(n)) = some(&is_coordinator) {
                    self.sky.struck(strike);
                    self.crew.stop(n);
                }
            }
            Strike::Partition => self.part(some(&|_| true).filter(|_| self.sky.dice(|dice| dice.below(8)) > 0)),
            Strike::StoreOutage => self.away(Place::Store, strike),
            Strike::BrokerRestart => {
                self.away(Place::Broker, strike);
                self.exchange.disconnect(|_| true);
            }
            Strike::ClockJump => {
                self.sky.struck(strike);
                self.sky.set_clock(Place::Store, self.wrong());
            }
            Strike::OwnClockJump => {
                if let Some(place) = some(&is_coordinator) {
                    self.sky.struck(strike);
                    self.sky.set_clock(place, self.wrong());
                }
            }
            Strike::ReplyForged => self.exchange.forge().await,
            _ => {}
        }
    }

    /// Cuts a process, or the clients, off from one of those that it speaks to.
    fn part(&self, place: Option<Place>) {
        let one = place.unwrap_or(Place::Client);
        let other = match (one, self.sky.dice(|dice| dice.below(3))) {
            (Place::Coordinator(_), 0) => Place::Store,
            (Place::Coordinator(_), 1) => Place::Client,
            (Place::Participant(_), 0) => Place::Database,
            _ => Place::Broker,
        };
        self.sky.struck(Strike::Partition);
        self.sky.cut(one, other);
        if other == Place::Broker {
            self.exchange.disconnect(|life| life.place == one);
        }
        let sky = self.sky.clone();
        tokio::spawn(async move {
            sky.sleep(50, 5_000).await;
            sky.mend(one, other);
        });
    }

    fn away(&self, place: Place, strike: Strike) {
        self.sky.struck(strike);
        self.sky.set_down(place, true);
        let sky = self.sky.clone();
        tokio::spawn(async move {
            sky.sleep(50, 3_000).await;
            sky.set_down(place, false);
        });
    }
}
