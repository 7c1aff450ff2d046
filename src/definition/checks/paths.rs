//! Follows a path of an expression, member by member: whether each of them is there where it is read.

use crate::definition::Severity;
use crate::definition::checks::facts::{Facts, path_text};
use crate::definition::checks::infer::{Infer, Output};
use crate::definition::checks::kind::Kinds;
use crate::definition::checks::shape::{Presence, Range, Shape, length};
use crate::definition::expression::{Root, Segment};
use crate::definition::fields::nearest;

/// A path that is being followed.
pub(super) struct Way {
    /// In normal form.
    pub text: String,
    /// As it is written in definitions.
    pub shown: String,
    pub spellings: Vec<String>,
}

impl Way {
    pub fn new(text: &str) -> Self {
        Self { text: text.to_owned(), shown: text.to_owned(), spellings: vec![text.to_owned()] }
    }

    pub fn step(name: &str) -> Self {
        let spellings = vec![
            format!("steps['{name}'].output"),
            format!("steps[\"{name}\"].output"),
            format!("steps.{name}.output"),
        ];
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
        let shown = if plain { format!("steps.{name}.output") } else { format!("steps['{name}'].output") };
        Self { text: format!("steps.{name}.output"), shown, spellings }
    }

    pub fn push(&mut self, segment: &Segment) {
        let text = segment.to_string();
        let more: Vec<String> = match segment {
            Segment::Key(key) => self.spellings.iter().map(|base| format!("{base}['{key}']")).collect(),
            Segment::Index(_) => Vec::new(),
        };
        self.text.push_str(&text);
        self.shown.push_str(&text);
        for spelling in &mut self.spellings {
            spelling.push_str(&text);
        }
        self.spellings.extend(more.into_iter().take(4));
    }
}

impl<'s> Infer<'_, 's> {
    pub(super) fn follow(&mut self, root: Root, segments: &[Segment], facts: &Facts<'_>) -> Shape<'s> {
        let text = path_text(root.name(), segments);
        let (mut shape, mut way, rest) = match (root, segments) {
            (Root::Input, rest) => (self.surroundings.input(), Way::new("input"), rest),
            (Root::Item, rest) => (self.surroundings.item(), Way::new("item"), rest),
            (Root::Index, rest) => (Shape::count(Range::COUNT), Way::new(Root::Index.name()), rest),
            (Root::Steps, [Segment::Key(name), _, rest @ ..]) => (self.output(name, facts), Way::step(name), rest),
            (Root::Saga, [Segment::Key(field), rest @ ..]) => {
                if field == "key" && !self.surroundings.has_key() && facts.presence_of("saga.key") != Some(true) {
                    self.complain(
                        "DEF_READ_OPTIONAL",
                        Severity::Warning,
                        &Way::new("saga.key"),
                        "the definition has no `key`, so `saga.key` is only there when a start gives one".to_owned(),
                        Some("give the definition a `key`, or read `saga.id`, which is always there".to_owned()),
                    );
                }
                (Shape::of_kinds(Kinds::TEXT), Way::new(&format!("saga.{field}")), rest)
            }
            _ => return Shape::any(),
        };
        for segment in rest {
            shape = self.member(&shape, segment, &mut way, facts);
        }
        facts.narrow(&text, shape)
    }

    /// A member of a value, which is complained of when it may be missing.
    pub(super) fn member(
        &mut self,
        base: &Shape<'s>,
        segment: &Segment,
        way: &mut Way,
        facts: &Facts<'_>,
    ) -> Shape<'s> {
        let parent = way.shown.clone();
        let holds = match segment {
            Segment::Key(_) => Kinds::MAP.or(Kinds::OTHER),
            Segment::Index(_) => Kinds::LIST.or(Kinds::OTHER),
        };
        if !base.kinds.meets(holds) && base.kinds != Kinds::NONE {
            let message = format!("`{parent}` is {}, so it has no `{segment}`", base.kinds.told());
            way.push(segment);
            self.complain("DEF_EXPRESSION_TYPE", Severity::Error, way, message, None);
            return Shape::any();
        }
        let (presence, member) = match segment {
            Segment::Key(key) => base.field(key),
            Segment::Index(at) => (index_presence(base, *at, &way.text, facts), base.item()),
        };
        way.push(segment);
        match facts.presence_of(&way.text) {
            Some(true) => return facts.narrow(&way.text, member),
            Some(false) => {
                let message = format!("`{}` is read where it is known to be missing", way.shown);
                let advice = "turn the condition round, or take the expression out".to_owned();
                self.complain("DEF_STEP_CONTRADICTION", Severity::Error, way, message, Some(advice));
                return Shape::any();
            }
            None => {}
        }
        if base.kinds.is_known() && base.kinds.meets(holds) && !base.kinds.is_within(holds) {
            let message = format!("`{parent}` may be {}, so it may have no `{segment}`", base.kinds.told());
            self.complain("DEF_EXPRESSION_MIXED", Severity::Warning, way, message, None);
        }
        match presence {
            Presence::Always | Presence::Unknown => {}
            Presence::Optional => {
                let (message, advice) = match segment {
                    Segment::Key(key) => (
                        format!("`{}` is not required by the schema, so it may be missing", way.shown),
                        format!(
                            "put `{key}` among the schema's `required`, or guard it: `has({}) ? ... : ...`",
                            way.shown
                        ),
                    ),
                    Segment::Index(at) => (
                        format!("`{parent}` may have too few items for `{}`", way.shown),
                        format!("say `minItems: {}` in the schema, or guard it: `size({parent}) > {at}`", at + 1),
                    ),
                };
                self.complain("DEF_READ_OPTIONAL", Severity::Warning, way, message, Some(advice));
            }
            Presence::Undeclared(known) => self.undeclared(way, segment, &known, false),
            Presence::Never(known) => self.undeclared(way, segment, &known, true),
        }
        facts.narrow(&way.text, member)
    }

    fn undeclared(&mut self, way: &Way, segment: &Segment, known: &[String], is_forbidden: bool) {
        let name = segment.to_string();
        let name = name.trim_start_matches('.');
        let known: Vec<&str> = known.iter().map(String::as_str).collect();
        let advice = match nearest(name, &known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add `{name}` to the schema's `properties`"),
        };
        let (severity, message) = match is_forbidden {
            true => (Severity::Error, format!("the schema does not allow `{}`, so it is never there", way.shown)),
            false => (Severity::Warning, format!("the schema says nothing of `{}`", way.shown)),
        };
        self.complain("DEF_READ_UNDECLARED", severity, way, message, Some(advice));
    }

    fn output(&mut self, name: &str, facts: &Facts<'_>) -> Shape<'s> {
        let (output, shape) = self.surroundings.output(name, facts);
        let way = Way::step(name);
        match facts.presence_of(&way.text) {
            Some(true) => return shape,
            Some(false) => {
                let message = format!("`{}` is read where it is known to be missing", way.shown);
                let advice = "turn the condition round, or take the expression out".to_owned();
                self.complain("DEF_STEP_CONTRADICTION", Severity::Error, &way, message, Some(advice));
                return shape;
            }
            None => {}
        }
        let guard = format!("`has({}) ? ... : ...`", way.shown);
        let (code, severity, message, advice) = match output {
            Output::Present => return shape,
            Output::Skippable => (
                "DEF_OUTPUT_MISSING",
                Severity::Warning,
                format!("`{name}` may be skipped, and then it has no output"),
                format!("guard it: {guard}; or give this step the same `when`"),
            ),
            Output::Expirable => (
                "DEF_OUTPUT_MISSING",
                Severity::Warning,
                format!("the signal that `{name}` waits for may not come in time, and then there is no output"),
                format!("guard it: {guard}; or let the wait fail: `onTimeout: fail`"),
            ),
            Output::Never => (
                "DEF_OUTPUT_MISSING",
                Severity::Error,
                format!("`{name}` is never done, so it has no output"),
                format!("mend the `when` of `{name}`, or take the expression out"),
            ),
            Output::Skipped => (
                "DEF_STEP_CONTRADICTION",
                Severity::Error,
                format!("this is only evaluated when `{name}` is skipped, and then there is no output"),
                "make the two `when` agree, or take the expression out".to_owned(),
            ),
            Output::Own => (
                "DEF_OUTPUT_UNKNOWN",
                Severity::Warning,
                format!(
                    "when `{name}` times out, nobody knows whether it took effect: it is undone, but it has no output"
                ),
                format!(
                    "choose the id in the saga's input, so that it is known before, or guard it: {guard}; the \
                     participant gets the key of the action in the header `amends-compensates`"
                ),
            ),
        };
        self.complain(code, severity, &way, message, Some(advice));
        shape
    }

    /// `has(...)`.
    pub(super) fn is_there(&mut self, root: Root, segments: &[Segment], field: &str, facts: &Facts<'_>) -> Shape<'s> {
        let (known, mut way, is_sure) = match (root, segments) {
            (Root::Steps, [Segment::Key(name)]) => {
                let (output, _) = self.surroundings.output(name, facts);
                let known = match output {
                    Output::Present => Some(true),
                    Output::Never | Output::Skipped => Some(false),
                    Output::Skippable | Output::Expirable | Output::Own => None,
                };
                // What only holds under these facts is no fault of the guard.
                let (bare, _) = self.surroundings.output(name, &Facts::default());
                (known, Way::step(name), matches!(bare, Output::Present | Output::Never))
            }
            (Root::Saga, _) => (self.surroundings.has_key().then_some(true), Way::new("saga.key"), true),
            _ => {
                let base = self.follow(root, segments, facts);
                if !base.kinds.meets(Kinds::MAP.or(Kinds::OTHER)) && base.kinds != Kinds::NONE {
                    let way = Way::new(&path_text(root.name(), segments));
                    let message = format!("`has` wants a mapping, and `{}` is {}", way.shown, base.kinds.told());
                    self.complain("DEF_EXPRESSION_TYPE", Severity::Error, &way, message, None);
                    return Shape::truth(None);
                }
                let mut way = Way::new(&path_text(root.name(), segments));
                let segment = Segment::Key(field.to_owned());
                let presence = base.field(field).0;
                way.push(&segment);
                let known = match presence {
                    Presence::Always => Some(true),
                    Presence::Never(known) => {
                        self.undeclared(&way, &segment, &known, true);
                        return Shape::truth(Some(false));
                    }
                    Presence::Undeclared(known) => {
                        self.undeclared(&way, &segment, &known, false);
                        None
                    }
                    Presence::Optional | Presence::Unknown => None,
                };
                (known, way, true)
            }
        };
        if let Some(known) = known.filter(|_| is_sure) {
            let message = match known {
                true => format!("`{}` is always there, so this guard is always true", way.shown),
                false => format!("`{}` is never there, so this guard is always false", way.shown),
            };
            way.spellings = way.spellings.iter().map(|path| format!("has({path})")).collect();
            let advice = "take the guard out, or make optional what it asks about".to_owned();
            self.complain("DEF_GUARD_CONSTANT", Severity::Warning, &way, message, Some(advice));
        }
        Shape::truth(known)
    }
}

fn index_presence(base: &Shape<'_>, at: usize, path: &str, facts: &Facts<'_>) -> Presence {
    let at = length(at);
    match () {
        () if base.size.low > at => Presence::Always,
        () if !base.kinds.is_known() || facts.knows_size_of(path) => Presence::Unknown,
        () => Presence::Optional,
    }
}
