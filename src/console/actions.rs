//! What an operator can do to one saga: first what it would do, then a reason, then the deed.

use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::http::header::LOCATION;
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use crate::api::Right;
use crate::api::operate::action;
use crate::clock::Timestamp;
use crate::console::House;
use crate::console::failure::Failure;
use crate::console::form::{Signed, reason, reason_field};
use crate::console::json_tree::tree;
use crate::console::layout::{Page, page};
use crate::console::query::{Pairs, encode};
use crate::console::saga::Dossier;
use crate::console::visit::Visit;
use crate::console::words::{badge, command_line, sentence, shell, short};
use crate::coordinator::preview::{Planned, Preview, is_unknown, preview};
use crate::coordinator::{CoordinatorError, Operate, OperatorAction};

/// Commands of a preview that are shown, at most.
const MOST: usize = 100;

/// The actions: word, what the button says, what it does in one line.
pub(super) const WORDS: [(&str, &str, &str); 7] = [
    ("retry", "Retry now", "Sends again what is stuck or backing off, with a fresh count of attempts."),
    (
        "skip",
        "Skip the step",
        "Passes over the step, or over its compensation, as if you had seen to it by other means.",
    ),
    ("compensate", "Compensate", "Sends the saga back: what was done is undone, step by step."),
    ("pause", "Pause", "Sends nothing new until resumed; replies are still applied."),
    ("resume", "Resume", "Undoes a pause."),
    ("cancel", "Cancel", "Sends the saga back because its caller no longer wants it: it is undone, not just stopped."),
    ("abandon", "Abandon", "Gives the saga up for good: nothing is undone and nothing more is sent."),
];

fn words(word: &str) -> Result<(&'static str, &'static str, &'static str), Failure> {
    WORDS
        .into_iter()
        .find(|(known, ..)| *known == word)
        .ok_or_else(|| Failure::missing("There is no such page", "It is no action of a saga."))
}

fn of(word: &str, step: Option<&str>) -> Result<OperatorAction, Failure> {
    let step = step.filter(|_| matches!(word, "retry" | "skip")).map(str::to_owned);
    action(word, step).ok_or_else(|| Failure::missing("There is no such page", "It is no action of a saga."))
}

fn look(dossier: &Dossier, word: &str, step: Option<&str>, now: Timestamp) -> Result<Preview, CoordinatorError> {
    let step = step.filter(|_| matches!(word, "retry" | "skip")).map(str::to_owned);
    match action(word, step) {
        Some(action) => preview(&dossier.definition, &dossier.record.saga, &action, now),
        None => Err(CoordinatorError::UnknownSaga(dossier.record.saga.id)),
    }
}

/// Whether the action can be done to a step as things are.
pub(super) fn is_possible(dossier: &Dossier, word: &str, step: Option<&str>, now: Timestamp) -> bool {
    look(dossier, word, step, now).is_ok()
}

/// Buttons for what can be done; for what cannot, why not.
pub(super) fn bar(house: &House, visit: &Visit, dossier: &Dossier, now: Timestamp) -> Markup {
    let saga = &dossier.record.saga;
    let may = visit.may(Right::Operate);
    let why = |word: &str| match look(dossier, word, None, now) {
        _ if !may => Some("your role only reads".to_owned()),
        Ok(_) => None,
        Err(CoordinatorError::NotAllowed { why, .. }) => Some(why),
        Err(CoordinatorError::UnknownStep { .. }) => {
            Some("choose a step in the table below: it is not stuck at one".to_owned())
        }
        Err(other) => Some(other.to_string()),
    };
    let found: Vec<_> = WORDS.into_iter().map(|(word, label, _)| (word, label, why(word))).collect();
    let edit = ("edit", "Edit the input", super::edit::obstacle(house, visit, dossier, None));
    let found = found.into_iter().chain([edit]);
    let (can, cannot): (Vec<_>, Vec<_>) = found.partition(|(.., why)| why.is_none());
    html! {
        section.actions aria-label="Actions" {
            @if !can.is_empty() {
                div.buttons {
                    @for (at, (word, label, _)) in can.iter().enumerate() {
                        @let class = match *word { "abandon" | "cancel" => "button danger", _ if at == 0 && saga.state.stuck().is_some() => "button primary", _ => "button" };
                        a class=(class) href=(visit.to(&format!("sagas/{}/{word}", saga.id))) { (label) "…" }
                    }
                }
            }
            @if !cannot.is_empty() {
                details.cannot {
                    summary { "Not possible now: " (cannot.iter().map(|(word, ..)| *word).collect::<Vec<_>>().join(", ")) }
                    ul {
                        @for (_, label, why) in &cannot {
                            li { button type="button" disabled { (label) } " " span { (sentence(why.as_deref().unwrap_or_default())) } }
                        }
                    }
                }
            }
        }
    }
}

pub(super) async fn confirm(
    State(house): State<House>,
    visit: Visit,
    Path((id, word)): Path<(String, String)>,
    pairs: Pairs,
) -> Result<Page, Failure> {
    let (word, label, what) = words(&word)?;
    let dossier = house.dossier(&id).await?;
    asking(&house, &visit, &dossier, (word, label, what), pairs.get("step"), None)
}

/// The page that asks, with what was wrong the last time.
fn asking(
    house: &House,
    visit: &Visit,
    dossier: &Dossier,
    (word, label, what): (&'static str, &'static str, &'static str),
    step: Option<&str>,
    wrong: Option<&str>,
) -> Result<Page, Failure> {
    let saga = &dossier.record.saga;
    let id = saga.id.to_string();
    let found = look(dossier, word, step, house.now())?;
    let name = saga.key.clone().map_or_else(|| format!("…{}", short(&id)), |key| dossier.secrets.text(&key));
    let may = visit.may(Right::Operate);
    let step = step.filter(|_| matches!(word, "retry" | "skip"));
    let flag = step.map(|step| format!(" --step {}", shell(step))).unwrap_or_default();
    let title = format!("{label}: {name}");
    let body = html! {
        p.crumbs { a href=(visit.to("sagas")) { "Sagas" } " / " a href=(visit.to(&format!("sagas/{id}"))) { (name) } }
        h1 { (label) @if let Some(step) = step { " " code { (step) } } }
        p.lead { (what) }
        p { "The saga is " (badge(saga.state.as_str())) " and would be " (badge(found.after.state.as_str())) @if found.after.paused { " and paused" } " at once"
            @if let Some(ends) = found.ends.filter(|ends| *ends != found.after.state.as_str()) { "; if every answer is a success it ends " (badge(ends)) } "." }
        (unknowns(dossier))
        (planned(visit, dossier, "Sent at once", &found.sends, "Nothing is sent."))
        @if !found.follows.is_empty() { (planned(visit, dossier, "Then, one after the other, if each succeeds", &found.follows, "")) }
        @if !found.closes.is_empty() { (planned(visit, dossier, "Closed without an answer", &found.closes, "")) }
        form.ask method="post" action=(visit.to(&format!("sagas/{id}/{word}"))) {
            input type="hidden" name="csrf" value=(visit.csrf);
            input type="hidden" name="revision" value=(saga.revision);
            @if let Some(step) = step { input type="hidden" name="step" value=(step); }
            (reason_field("Kept in the audit log with your name: what you know, and where it is written down.", wrong, may))
            div.buttons {
                @let class = if matches!(word, "abandon" | "cancel") { "danger" } else { "primary" };
                button class=(class) disabled[!may] { (label) }
                a.button.quiet href=(visit.to(&format!("sagas/{id}"))) { "Do nothing" }
                @if !may { span { "Not possible: your role only reads." } }
            }
        }
        h2 { "The same from the command line" }
        (command_line(&format!("amends sagas {word} {id}{flag} --reason '...'")))
        p.soft { "Looked at revision " (saga.revision) ". If the saga moves before you confirm, nothing is done and you are told." }
    };
    Ok(page(visit, &title, body))
}

/// Steps of which nobody knows whether they took effect.
fn unknowns(dossier: &Dossier) -> Markup {
    let saga = &dossier.record.saga;
    let found: Vec<&str> = dossier
        .definition
        .indices()
        .filter(|index| is_unknown(saga, *index))
        .map(|index| dossier.definition.step(index).name.as_str())
        .collect();
    html! {
        @if !found.is_empty() {
            div.note.open {
                strong { "Outcome unknown: " }
                @for (at, name) in found.iter().enumerate() { @if at > 0 { ", " } code { (name) } }
                ". Nobody knows yet whether this took effect. A retry uses the same key, so that it takes effect once; going back undoes it in any case."
            }
        }
    }
}

fn planned(visit: &Visit, dossier: &Dossier, title: &str, planned: &[Planned], nothing: &str) -> Markup {
    let _ = visit;
    html! {
        h2 { (title) }
        @if planned.is_empty() { p.soft { (nothing) } }
        ol.planned {
            @for command in planned.iter().take(MOST) {
                li {
                    div.planned-head {
                        code { (command.participant) "." (command.action) }
                        span.soft { @if command.direction.as_str() == "compensation" { "undoes " } @else { "for " } (command.step) @if command.attempt > 1 { ", attempt " (command.attempt) } }
                        @if command.is_unknown { (badge("unknown")) }
                    }
                    @if let Some(body) = &command.body { details { summary { "Body" } (tree(body.text(), &dossier.secrets)) } }
                }
            }
        }
        @if planned.len() > MOST { p.soft { "and " (planned.len() - MOST) " more" } }
    }
}

pub(super) async fn carry_out(
    State(house): State<House>,
    visit: Visit,
    Path((id, word)): Path<(String, String)>,
    Signed(pairs): Signed,
) -> Result<Response, Failure> {
    let (word, label, what) = words(&word)?;
    let dossier = house.dossier(&id).await?;
    let step = pairs.get("step");
    let reason = match reason(&pairs) {
        Ok(reason) => reason,
        Err(wrong) => {
            let asked = asking(&house, &visit, &dossier, (word, label, what), step, Some(&wrong))?;
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, asked).into_response());
        }
    };
    let Some(revision) = pairs.get("revision").and_then(|revision| revision.parse().ok()) else {
        return Err(Failure::wrong("The form cannot be read", "The saga's revision is missing. Nothing was done."));
    };
    let operate = Operate {
        id: dossier.record.saga.id,
        action: of(word, step)?,
        actor: visit.name.clone(),
        reason,
        expected_revision: Some(revision),
    };
    let saga = house.coordinator().operate(operate).await?;
    let target = format!("{}sagas/{}?asked={}&revision={}", visit.root, saga.id, encode(word), saga.revision);
    Ok((StatusCode::SEE_OTHER, [(LOCATION, target)]).into_response())
}
