//! Live updates: a page names the sagas that it shows, each with its revision, and is told which have changed. By
//! server-sent events, or by asking where those do not get through.

use std::collections::HashMap;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::json;

use crate::console::House;
use crate::console::failure::Failure;
use crate::console::query::Pairs;
use crate::id::SagaId;
use crate::store::StoreError;

/// How often is looked.
const LOOK: Duration = Duration::from_millis(1_000);
/// How long one stream lasts; the browser opens another.
const LASTS: Duration = Duration::from_secs(300);
/// Sagas that one page can watch.
const MOST: usize = 60;

/// Sagas with the revisions that a page shows.
#[derive(Clone)]
struct Watched(HashMap<SagaId, u32>);

impl Watched {
    fn of(pairs: &Pairs) -> Result<Self, Failure> {
        let wrong = || {
            Failure::wrong("The address cannot be read", "`ids` holds pairs of id and revision, with commas between.")
        };
        let mut watched = HashMap::new();
        for pair in pairs.get("ids").unwrap_or_default().split(',').filter(|pair| !pair.is_empty()) {
            let (id, revision) = pair.split_once(':').ok_or_else(wrong)?;
            watched.insert(id.parse().map_err(|_| wrong())?, revision.parse().map_err(|_| wrong())?);
        }
        if watched.len() > MOST {
            return Err(wrong());
        }
        Ok(Self(watched))
    }

    /// The ids of those that have changed since this was asked last.
    async fn changed(&mut self, house: &House) -> Result<Vec<String>, StoreError> {
        let ids: Vec<SagaId> = self.0.keys().copied().collect();
        let mut changed = Vec::new();
        for (id, revision) in house.store().revisions(&ids).await? {
            if self.0.insert(id, revision) != Some(revision) {
                changed.push(id.to_string());
            }
        }
        changed.sort_unstable();
        Ok(changed)
    }
}

pub(super) async fn poll(State(house): State<House>, pairs: Pairs) -> Result<Response, Failure> {
    let changed = Watched::of(&pairs)?.changed(&house).await?;
    Ok(Json(json!({ "changed": changed })).into_response())
}

pub(super) async fn stream(State(house): State<House>, pairs: Pairs) -> Result<Response, Failure> {
    let watched = Watched::of(&pairs)?;
    let end = tokio::time::Instant::now() + LASTS;
    let stop = house.0.stop.clone();
    let events = stream::unfold((house, watched), move |(house, mut watched)| {
        let stop = stop.clone();
        async move {
            loop {
                tokio::select! {
                    () = stop.cancelled() => return None,
                    () = tokio::time::sleep_until(end) => return None,
                    () = tokio::time::sleep(LOOK) => {}
                }
                // A store that is away is asked again.
                let changed = watched.changed(&house).await.unwrap_or_default();
                if !changed.is_empty() {
                    let event = Event::default().event("changed").data(changed.join(","));
                    return Some((Ok::<_, Infallible>(event), (house, watched)));
                }
            }
        }
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(Duration::from_secs(15))).into_response())
}
