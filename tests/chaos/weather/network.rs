//! What becomes of connections.

use std::time::Duration;

use super::SEEN;
use crate::city::ATTEMPT;
use crate::support::eventually_within;
use crate::support::proxy::Proxy;

/// PostgreSQL says that a COMMIT was carried out: CommandComplete with its tag.
pub(super) const COMMITTED: &[u8] = b"C\0\0\0\x0bCOMMIT\0";
/// RabbitMQ confirms: the method basic.ack, which only publishers get.
pub(super) const CONFIRM: &[u8] = b"\0\x3c\0\x50";

async fn is_in_use(proxy: &Proxy) {
    eventually_within(SEEN, "somebody is connected", async || (proxy.open() > 0).then_some(())).await;
}

pub(super) async fn cut(proxy: &Proxy) {
    is_in_use(proxy).await;
    let before = proxy.accepted();
    proxy.cut();
    let what = "they connect again";
    eventually_within(SEEN, what, async || (proxy.accepted() > before).then_some(())).await;
}

/// Connections stay open and nothing comes through; then they break.
pub(super) async fn half_open(proxy: &Proxy, a_while: Duration) {
    is_in_use(proxy).await;
    let before = proxy.open();
    proxy.stall();
    tokio::time::sleep(ATTEMPT).await;
    assert!(before > 0 && proxy.open() > 0, "somebody still believes to be connected");
    tokio::time::sleep(a_while.saturating_sub(ATTEMPT)).await;
    proxy.cut();
    proxy.pass();
}

/// Everything takes a third of a second longer.
pub(super) async fn slow(proxy: &Proxy) {
    is_in_use(proxy).await;
    let before = proxy.harmed();
    proxy.slow(Duration::from_millis(300));
    tokio::time::sleep(2 * ATTEMPT).await;
    eventually_within(SEEN, "something was delayed", async || (proxy.harmed() > before).then_some(())).await;
    proxy.pass();
}

/// Several answers get lost, together with their connections.
pub(super) async fn unanswered(proxy: &Proxy, answer: &'static [u8]) {
    is_in_use(proxy).await;
    let before = proxy.harmed();
    proxy.swallow(answer);
    eventually_within(SEEN, "answers were lost", async || (proxy.harmed() >= before + 3).then_some(())).await;
    proxy.pass();
}

pub(super) async fn refused(proxy: &Proxy) {
    proxy.refuse();
    eventually_within(SEEN, "nobody is connected", async || (proxy.open() == 0).then_some(())).await;
    tokio::time::sleep(ATTEMPT).await;
    proxy.pass();
}
