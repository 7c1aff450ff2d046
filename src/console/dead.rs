//! Dead letters: messages that nobody could take, by queue.

use std::time::Duration;

use axum::extract::State;
use futures_util::future::join_all;
use maud::html;

use crate::broker::topology::{REPLIES_QUEUE, REQUESTS_QUEUE};
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::layout::{Page, empty, page};
use crate::console::visit::Visit;
use crate::console::words::number;

/// How long the broker may take to tell of a queue.
const LOOK: Duration = Duration::from_millis(500);

pub(super) async fn show(State(house): State<House>, visit: Visit) -> Result<Page, Failure> {
    let mut queues = vec![REPLIES_QUEUE.to_owned(), REQUESTS_QUEUE.to_owned()];
    queues.extend(house.participants().await?.iter().map(|name| format!("{name}.commands")));
    let names: Vec<String> = queues.iter().map(|queue| format!("{queue}.dead")).collect();
    let broker = house.coordinator().broker();
    let asked = names.iter().map(|name| tokio::time::timeout(LOOK, broker.queue(name)));
    let found: Vec<_> = names.iter().zip(join_all(asked).await).collect();
    let messages: u64 = found
        .iter()
        .filter_map(|(_, told)| Some(u64::from(told.as_ref().ok()?.as_ref().ok()?.as_ref()?.messages)))
        .sum();
    let body = html! {
        h1 { "Dead letters" }
        p.soft { "Messages that nobody could take: replies with a wrong token or that contradict what is recorded, and commands that a service rejected." }
        @if messages == 0 {
            (empty("No dead letters", "Every message found somebody who could take it, as far as the broker tells."))
        }
        div.scroll tabindex="0" role="region" aria-label="Queues of dead letters" {
            table {
                caption.unseen { "Queues of dead letters" }
                thead { tr { th scope="col" { "Queue" } th.number scope="col" { "Messages" } } }
                tbody {
                    @for (name, told) in &found {
                        tr {
                            th scope="row" { code { (house.namespace().prefix(name)) } }
                            td.number {
                                @match told {
                                    Ok(Ok(Some(status))) => (number(u64::from(status.messages))),
                                    Ok(Ok(None)) => span.soft { "not there" },
                                    _ => span.soft { "the broker does not tell" },
                                }
                            }
                        }
                    }
                }
            }
        }
    };
    Ok(page(&visit, "Dead letters", body))
}
