//! `amends participants`: who does the work, and who does not.

use serde_json::Value;

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::{Context, output, sagas};

/// Lists them.
pub async fn run(context: &Context) -> Result<Exit, CliError> {
    let document = Remote::new(context)?.get(&["v1", "participants"], &[]).await?;
    let items = document["items"].as_array().cloned().unwrap_or_default();
    let header =
        ["participant", "consumers", "backlog", "window", "held back", "oldest unanswered", "circuit", "failure rate"];
    context.output.list(&document, &items, || {
        output::table(
            &header,
            items.iter().map(|item| {
                let fields =
                    ["name", "consumers", "backlog", "window", "held", "oldestUnanswered", "circuit", "failureRate"];
                fields.map(|field| sagas::text(&item[field])).into()
            }),
        )
    })?;
    Ok(Exit::Done)
}

/// Those whose circuit is open, and what there is to say of it. A server that does not tell has no more to say.
pub(super) async fn failing(context: &Context) -> Vec<(String, String)> {
    let Ok(remote) = Remote::new(context) else { return Vec::new() };
    let Ok(document) = remote.get(&["v1", "participants"], &[]).await else { return Vec::new() };
    let items = document["items"].as_array().cloned().unwrap_or_default();
    let open = items.iter().filter(|item| item["circuit"] == "open");
    let told = |item: &Value| {
        (sagas::text(&item["name"]), format!("does nothing but fail since {}", sagas::text(&item["openSince"])))
    };
    open.map(told).collect()
}
