//! What becomes of clocks.

use amends::clock::{Clock, Timestamp};
use sqlx::postgres::PgPool;

use super::{Dice, Land, SEEN};
use crate::city::{ATTEMPT, SERVICES};
use crate::clocks::set;
use crate::support::eventually_within;

/// How many seconds a shown time is off, at most, that is not.
const NEAR: i64 = 4;
/// Seconds.
const JUMPS: [i64; 6] = [3_600, -3_600, 86_400, -86_400, 60, -60];

impl Land {
    /// The clocks of a coordinator and of a service jump, and stay where they are: nothing that counts goes by them.
    pub(super) async fn clocks_jump(&mut self, dice: &mut Dice) {
        let (server, service) = (&self.coordinators[dice.below(2)], dice.below(3));
        let jump = dice.one(&JUMPS);
        self.city.clocks.set(&server.name, self.store_clock + jump);
        // "Started since a while ago" is by the clock of whom one asks: ahead of it nothing was, behind it everything.
        let (ago, is_any) = if jump > 0 { ("30s", false) } else { ("1ms", true) };
        eventually_within(SEEN, &format!("{} goes by another time", server.name), async || {
            let answer = reqwest::get(format!("{}/v1/sagas?limit=1&since={ago}", server.url)).await.ok()?;
            let list: serde_json::Value = serde_json::from_str(&answer.text().await.ok()?).ok()?;
            (list["items"].as_array()?.is_empty() != is_any).then_some(())
        })
        .await;
        self.city.clocks.set(SERVICES[service], dice.one(&JUMPS));
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", self.services[service].id()));
        let file = self.city.clocks.file(SERVICES[service]).display().to_string();
        assert!(maps.expect("its maps are read").contains(&file), "the service goes by a clock of its own");
        tokio::time::sleep(ATTEMPT).await;
    }

    /// PostgreSQL's clock, by which everybody goes.
    pub(super) async fn set_store_clock(&mut self, seconds: i64) {
        self.store_clock += seconds;
        set(&self.city.postgres.folder().join("clock"), self.store_clock);
        let pool = PgPool::connect_lazy(&self.city.postgres.url()).expect("the address is right");
        eventually_within(SEEN, "PostgreSQL shows another time", async || {
            let shown = sqlx::query_scalar("select clock_timestamp()").fetch_one(&pool).await.ok()?;
            is_off(shown, self.store_clock).then_some(())
        })
        .await;
    }
}

fn is_off(shown: Timestamp, seconds: i64) -> bool {
    let off = (shown - Clock::System.now()).num_seconds();
    (off - seconds).abs() <= NEAR
}
