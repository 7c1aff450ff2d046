//! `amends definitions diff|deprecate|undeprecate`: versions compared, and taken out of use.

use serde_json::{Value, json};

use super::error::{CliError, Exit};
use super::remote::Remote;
use super::sagas::text;
use super::{Context, definitions, output};
use crate::definition::{self, Change, Diff, Severity, Side};

/// Which two definitions.
#[derive(Debug, clap::Args)]
pub struct DiffArgs {
    /// The one: NAME@VERSION on the server, or a file
    #[arg(value_name = "A")]
    from: String,
    /// The other
    #[arg(value_name = "B")]
    to: String,
}

/// Which version, and why.
#[derive(Debug, clap::Args)]
pub struct DeprecateArgs {
    /// The version
    #[arg(value_name = "NAME@VERSION", value_parser = reference)]
    version: Reference,
    /// Why; kept in the audit log
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new(),
        required_unless_present = "dry_run")]
    reason: Option<String>,
    /// Only say how the version stands and what would change
    #[arg(long)]
    dry_run: bool,
}

/// A version on the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    name: String,
    version: u32,
}

/// Reads `NAME@VERSION`.
pub fn reference(text: &str) -> Result<Reference, String> {
    text.rsplit_once('@')
        .filter(|(name, _)| !name.is_empty())
        .and_then(|(name, version)| Some(Reference { name: name.to_owned(), version: version.parse().ok()? }))
        .filter(|reference| reference.version > 0)
        .ok_or_else(|| "a version is written NAME@VERSION, for example place-order@2".to_owned())
}

/// One of the two, with its text.
struct Read {
    /// Where it is registered, if it is.
    on_server: Option<Reference>,
    definition: std::sync::Arc<crate::definition::Definition>,
    source: String,
}

async fn read(given: &str, context: &Context) -> Result<Read, CliError> {
    let is_file = given == "-" || std::path::Path::new(given).exists();
    let on_server = reference(given).ok().filter(|_| !is_file);
    let source = match &on_server {
        Some(Reference { name, version }) => {
            let answer = Remote::new(context)?.get(&["v1", "definitions", name, &version.to_string()], &[]).await?;
            answer["source"].as_str().map(str::to_owned).ok_or_else(|| CliError::failed("the server gave no source"))?
        }
        None => definitions::text_of(given)?.1,
    };
    let checked = definition::read(&source);
    let Some(definition) = checked.definition else {
        let errors: Vec<_> =
            checked.diagnostics.into_iter().filter(|found| found.severity == Severity::Error).collect();
        output::note(definition::render(given, &source, &errors, output::is_lively()));
        return Err(CliError::failed(format!("`{}` has errors; there is nothing to compare", output::escape(given))));
    };
    Ok(Read { on_server, definition, source })
}

/// Shows what changed from one definition to the other.
pub async fn diff(args: DiffArgs, context: &Context) -> Result<Exit, CliError> {
    let (from, to) = (read(&args.from, context).await?, read(&args.to, context).await?);
    let diff = definition::diff(
        Side { definition: &from.definition, source: &from.source },
        Side { definition: &to.definition, source: &to.source },
    );
    let in_flight = in_flight(&from, &to, context).await?;
    let mut document = serde_json::to_value(&diff).unwrap_or_default();
    document["inFlight"] = in_flight.clone();
    context.output.one(&document, || table(&diff))?;
    if context.output.is_for_people() {
        output::note(sentence(&diff, &in_flight));
    }
    Ok(Exit::Done)
}

/// What the sagas in flight of the older version have to do with it: nothing by themselves, since they keep theirs; so
/// how many there are, and how many could be moved.
async fn in_flight(from: &Read, to: &Read, context: &Context) -> Result<Value, CliError> {
    let (Some(old), Some(new)) = (&from.on_server, &to.on_server) else { return Ok(Value::Null) };
    if old.name != new.name || old.version == new.version {
        return Ok(Value::Null);
    }
    let plan = match super::sagas::migrate::plan(&Remote::new(context)?, &old.name, old.version, new.version).await {
        Ok(plan) => plan,
        // A version that takes in nothing has no plan, and can still be compared.
        Err(error) if error.exit == Exit::Conflict => return Ok(Value::Null),
        Err(error) => return Err(error),
    };
    let movable = plan.iter().filter(|item| item["compatible"] == true).count();
    Ok(json!({ "count": plan.len(), "movable": movable, "keepTheirVersion": true }))
}

fn table(diff: &Diff) -> String {
    let row = |step: &str, kind: &str, change: Option<&Change>| {
        let cell = |value: &Value| if value.is_null() { "-".to_owned() } else { text(value) };
        let what = change.map_or("", |change| change.what).to_owned();
        let (from, to) = change.map_or_else(Default::default, |change| (cell(&change.from), cell(&change.to)));
        vec![step.to_owned(), kind.to_owned(), what, from, to]
    };
    let mut rows: Vec<Vec<String>> = diff.saga.iter().map(|change| row("(saga)", "changed", Some(change))).collect();
    for step in &diff.steps {
        let kind = step.kind.as_str();
        if step.changes.is_empty() {
            rows.push(row(&step.step, kind, None));
        }
        rows.extend(step.changes.iter().map(|change| row(&step.step, kind, Some(change))));
    }
    output::table(&["step", "change", "what", "from", "to"], rows)
}

fn sentence(diff: &Diff, in_flight: &Value) -> String {
    let Diff { from, to, .. } = diff;
    if diff.same {
        return format!("{from} and {to} say the same");
    }
    let kept = format!("sagas in flight are not touched: each keeps the version it was started with ({from})");
    match (in_flight["count"].as_u64(), in_flight["movable"].as_u64()) {
        (Some(0), _) => format!("{kept}; none is in flight"),
        (Some(count), Some(movable)) => format!(
            "{kept}; {count} in flight, of which {movable} could be moved: amends sagas migrate --saga {} --from {} \
             --to {} --reason ...",
            from.name, from.version, to.version
        ),
        _ => kept,
    }
}

/// Stops new starts of a version, or allows them again.
pub async fn deprecate(args: DeprecateArgs, is_deprecated: bool, context: &Context) -> Result<Exit, CliError> {
    let Reference { name, version } = args.version;
    let word = if is_deprecated { "deprecate" } else { "undeprecate" };
    if args.dry_run {
        let answer = Remote::new(context)?.get(&["v1", "definitions", &name, &version.to_string()], &[]).await?;
        let changes = answer["deprecated"].is_object() != is_deprecated;
        let told = match (changes, is_deprecated) {
            (false, _) => format!("nothing would change: {name} v{version} is as you want it"),
            (true, true) => format!("{name} v{version} would take no new starts; running sagas go on"),
            (true, false) => format!("{name} v{version} would take new starts again"),
        };
        context.output.one(&answer, || told)?;
        output::note("nothing was done");
        return Ok(Exit::Done);
    }
    let path = ["v1", "definitions", &name, &version.to_string(), word];
    let (_, answer) = Remote::new(context)?.post(&path, &json!({ "reason": args.reason }), None).await?;
    let told = match answer["deprecated"]["reason"].as_str() {
        Some(reason) => format!(
            "{name} v{version} is deprecated ({}): nothing new is started with it, running sagas go on",
            output::escape(reason)
        ),
        None => format!("{name} v{version} is not deprecated"),
    };
    context.output.one(&answer, || told)?;
    if is_deprecated {
        output::next(&[format!("amends sagas list --saga {name} --state RUNNING")]);
    }
    Ok(Exit::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_written_with_its_name() {
        let is = |name: &str, version| Ok(Reference { name: name.to_owned(), version });
        assert_eq!(reference("place-order@2"), is("place-order", 2));
        for wrong in ["place-order", "@2", "place-order@", "place-order@0", "place-order@two", "place-order@-1"] {
            assert!(reference(wrong).is_err(), "{wrong}");
        }
    }
}
