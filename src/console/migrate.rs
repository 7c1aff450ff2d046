//! Moving one saga to another version of its definition: what would become of it, a reason, and at once a retry of what it
//! is stuck at, if that is wanted.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::Right;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::{Signed, reason, reason_field};
use crate::console::layout::{Page, empty, page};
use crate::console::query::{Pairs, encode};
use crate::console::saga::Dossier;
use crate::console::visit::Visit;
use crate::console::words::{badge, command_line, sentence, short};
use crate::coordinator::{CoordinatorError, Migrate, Operate, OperatorAction};

impl House {
    /// The versions that a saga of this definition could be moved to, the newest first.
    pub(super) async fn open_versions(&self, name: &str) -> Result<Vec<u32>, Failure> {
        let records = self.store().definitions(Some(name)).await?;
        let open = records.iter().filter(|record| record.deprecated.is_none());
        let mut versions: Vec<u32> = open.map(|record| record.reference.version).collect();
        versions.sort_unstable_by(|one, other| other.cmp(one));
        Ok(versions)
    }
}

pub(super) async fn confirm(
    State(house): State<House>,
    visit: Visit,
    Path(id): Path<String>,
    pairs: Pairs,
) -> Result<Page, Failure> {
    let dossier = house.dossier(&id).await?;
    asking(&house, &visit, &dossier, &pairs, None).await
}

/// The page that asks, with what was wrong the last time.
async fn asking(
    house: &House,
    visit: &Visit,
    dossier: &Dossier,
    pairs: &Pairs,
    wrong: Option<&str>,
) -> Result<Page, Failure> {
    let saga = &dossier.record.saga;
    let id = saga.id.to_string();
    let mut versions = house.open_versions(&saga.definition.name).await?;
    versions.retain(|version| *version != saga.definition.version);
    let name = saga.key.clone().map_or_else(|| format!("…{}", short(&id)), |key| dossier.secrets.text(&key));
    let to = match pairs.get("to") {
        Some(to) => to.parse().map_err(|_| Failure::wrong("The address cannot be read", "`to` is no version."))?,
        None => versions.first().copied().unwrap_or_default(),
    };
    let head = html! {
        p.crumbs { a href=(visit.to("sagas")) { "Sagas" } " / " a href=(visit.to(&format!("sagas/{id}"))) { (name) } }
        h1 { "Move to another version" }
    };
    if saga.state.is_terminal() || versions.is_empty() {
        let why = match saga.state.is_terminal() {
            true => "It has ended: what has ended stays as it is.",
            false => "There is no other version of its definition that takes in sagas. Register one, then look again.",
        };
        let body = html! {
            (head)
            (empty("This saga cannot be moved", why))
            p.buttons { a.button href=(visit.to(&format!("sagas/{id}"))) { "Back to the saga" } }
        };
        return Ok(page(visit, "Move to another version", body));
    }
    let plan = house.coordinator().plan_migration(saga.id, to).await?;
    let is_stuck = saga.state.stuck().is_some();
    let may = visit.may(Right::Operate);
    let body = html! {
        (head)
        p.lead { "It is " (badge(saga.state.as_str())) " at version " (saga.definition.version) ". Another version takes it on from where it is; what was sent keeps its meaning." }
        nav.views aria-label="Versions" {
            @for version in versions.iter().take(20) {
                a href=(visit.to(&format!("sagas/{id}/migrate?to={version}"))) aria-current=[(*version == to).then_some("true")] { "v" (version) }
            }
        }
        @if plan.reasons.is_empty() {
            div.note.good { strong { "It fits. " } "Version " (to) " takes it on from where it is. " a href=(visit.to(&format!("definitions/{}/{to}", encode(&saga.definition.name)))) { "Look at that version" } }
        } @else {
            div.note.bad {
                strong { "It does not fit version " (to) "." }
                ul { @for reason in plan.reasons.iter().take(20) { li { @if let Some(step) = &reason.step { code { (step) } ": " } (sentence(&reason.why)) } } }
            }
        }
        @if plan.reasons.is_empty() {
            form.ask method="post" action=(visit.to(&format!("sagas/{id}/migrate"))) {
                input type="hidden" name="csrf" value=(visit.csrf);
                input type="hidden" name="revision" value=(saga.revision);
                input type="hidden" name="to" value=(to);
                (reason_field("Kept in the audit log with your name: what you know, and where it is written down.", wrong, may))
                @if is_stuck { label.choice { input type="checkbox" name="retry" value="yes" checked; "Then retry what it is stuck at" } }
                div.buttons {
                    button.primary disabled[!may] { "Move to version " (to) }
                    a.button.quiet href=(visit.to(&format!("sagas/{id}"))) { "Do nothing" }
                    @if !may { span { "Not possible: your role only reads." } }
                }
            }
        }
        h2 { "The same from the command line" }
        (command_line(&format!("amends sagas migrate {id} --to {to} --reason '...'")))
        @if is_stuck { (command_line(&format!("amends sagas retry {id} --reason '...'"))) }
    };
    Ok(page(visit, &format!("Move: {name}"), body))
}

pub(super) async fn carry_out(
    State(house): State<House>,
    visit: Visit,
    Path(id): Path<String>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let dossier = house.dossier(&id).await?;
    let reason = match reason(&pairs) {
        Ok(reason) => reason,
        Err(wrong) => {
            let asked = asking(&house, &visit, &dossier, &pairs, Some(&wrong)).await?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, asked).into_response());
        }
    };
    let number = |name: &str| pairs.get(name).and_then(|number| number.parse::<u32>().ok());
    let (Some(to), Some(revision)) = (number("to"), number("revision")) else {
        return Err(Failure::wrong("The form cannot be read", "Version or revision is missing. Nothing was done."));
    };
    let id = dossier.record.saga.id;
    let (actor, expected_revision) = (visit.name.clone(), Some(revision));
    let moved = Migrate { id, to, actor: actor.clone(), reason: reason.clone(), expected_revision };
    let mut saga = house.coordinator().migrate(moved).await?;
    let mut word = "migrate";
    if pairs.get("retry").is_some() && saga.state.stuck().is_some() {
        let (action, expected_revision) = (OperatorAction::Retry { step: None }, Some(saga.revision));
        saga = match house.coordinator().operate(Operate { id, action, actor, reason, expected_revision }).await {
            Ok(saga) => saga,
            Err(error) => return Err(half_done(id.to_string(), to, error)),
        };
        word = "retry";
    }
    let target = format!("{}sagas/{id}?asked={word}&revision={}", visit.root, saga.revision);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}

fn half_done(id: String, to: u32, error: CoordinatorError) -> Failure {
    Failure::conflict(format!("It is at version {to} now, but was not retried"), error.to_string())
        .back(format!("sagas/{id}"), "Back to the saga")
}

/// The way to this page, beside what a saga is.
pub(super) fn link(visit: &Visit, id: &str, version: u32, newest: Option<u32>, name: &str) -> Markup {
    html! {
        @if let Some(newest) = newest.filter(|newest| *newest > version && visit.may(Right::Operate)) {
            a href=(visit.to(&format!("sagas/{id}/migrate"))) { "Move to v" (newest) "… " span.unseen { (name) } }
        }
    }
}
