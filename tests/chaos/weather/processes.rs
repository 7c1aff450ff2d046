//! Processes that die and processes that stand still.

use std::process::Command;
use std::time::Duration;

use amends::failpoint::Point;

use super::{Dice, Land, SEEN};
use crate::city::{Armed, SERVICES};
use crate::support::eventually_within;

/// Where coordinators die. They come by all of these in any storm.
const OF_COORDINATORS: [Point; 10] = [
    Point::ReplyReceived,
    Point::TimerFired,
    Point::BeforeCommit,
    Point::AfterCommit,
    Point::Compensating,
    Point::TerminalCommit,
    Point::BeforePublish,
    Point::PublishedNotConfirmed,
    Point::Confirmed,
    Point::CommittedNotAcknowledged,
];
const OF_SERVICES: [Point; 3] =
    [Point::ParticipantBeforeCommit, Point::ParticipantAfterCommit, Point::ParticipantBeforeReply];

impl Land {
    pub(super) async fn coordinator_dies(&mut self, dice: &mut Dice) {
        let (point, which) = (dice.one(&OF_COORDINATORS), dice.below(2));
        let is_timer = point == Point::TimerFired;
        let at = if is_timer { 1 } else { u32::try_from(1 + dice.below(8)).expect("small") };
        println!("          {} at {}:{at}", self.coordinators[which].name, point.name());
        let name = self.coordinators[which].name.clone();
        let marker = self.city.marker(&name);
        let _ = std::fs::remove_file(&marker);
        // Of two coordinators one hears the replies, and which that is depends on their clocks: this one is alone meanwhile.
        let other = 1 - which;
        self.coordinators[other].process.kill();
        self.coordinators[which].process.kill_and_restart_with(&self.city.armed(&name, Armed { point, at }));
        let what = format!("{name} dies at {}:{at}", point.name());
        eventually_within(SEEN, &what, async || {
            if is_timer {
                // So that an attempt takes too long.
                stop_and_go(self.services[dice.below(3)].id(), Duration::from_secs(3)).await;
            }
            self.coordinators[which].process.has_ended().then_some(())
        })
        .await;
        let process = &mut self.coordinators[which].process;
        assert!(marker.exists(), "{name} died, and not at its point: {}", process.tail());
        process.restart();
        self.coordinators[other].process.start_again();
    }

    pub(super) async fn service_dies(&mut self, dice: &mut Dice) {
        let (point, which) = (dice.one(&OF_SERVICES), dice.below(3));
        let at = u32::try_from(1 + dice.below(4)).expect("small");
        let name = SERVICES[which];
        println!("          {name} at {}:{at}", point.name());
        let marker = self.city.marker(name);
        let _ = std::fs::remove_file(&marker);
        let process = &mut self.services[which];
        process.kill_and_restart_with(&self.city.armed(name, Armed { point, at }));
        let what = format!("{name} dies at {}:{at}", point.name());
        eventually_within(SEEN, &what, async || process.has_ended().then_some(())).await;
        assert!(marker.exists(), "{name} died, and not at its point: {}", process.tail());
        process.restart();
    }
}

/// SIGSTOP, seen, and after a while SIGCONT.
pub(super) async fn stop_and_go(id: u32, a_while: Duration) {
    signal(id, "STOP");
    let is_stopped = || {
        let status = std::fs::read_to_string(format!("/proc/{id}/stat")).ok()?;
        // The name stands in brackets and may hold anything.
        status.rsplit_once(") ")?.1.starts_with('T').then_some(())
    };
    eventually_within(SEEN, "it stands still", async || is_stopped()).await;
    tokio::time::sleep(a_while).await;
    signal(id, "CONT");
    eventually_within(SEEN, "it goes on", async || is_stopped().is_none().then_some(())).await;
}

fn signal(id: u32, name: &str) {
    let sent = Command::new("kill").args([&format!("-{name}"), &id.to_string()]).status();
    assert!(sent.expect("kill runs").success(), "SIG{name} is sent");
}
