//! A definition as a picture: SVG, Mermaid or Graphviz' DOT; with a running saga's states where wanted. Pure.
//!
//! The forward way runs down, the compensation way up beside it, and nothing runs up from below the pivot. States are
//! told by icon and word, never by colour alone. Whatever comes out of a definition is escaped; there is no script and
//! nothing is fetched.

mod dot;
mod icon;
mod layout;
mod mermaid;
mod states;
mod style;
mod svg;
mod text;

use crate::definition::{Definition, OnTimeout, Stage, Step, Work};
use crate::id::StepIndex;

pub use states::{SagaLook, State, StepLook};

/// What is drawn: the steps with their ways, and what is said beside them.
#[derive(Clone, Debug)]
pub struct Picture {
    title: String,
    facts: Vec<String>,
    boxes: Vec<StepBox>,
    /// `(before, after)`; those that others imply are left out.
    edges: Vec<(usize, usize)>,
    pivot: Option<usize>,
    saga: Option<SagaLook>,
    /// Whether each step that stands somewhere leads to `#step-NAME`.
    is_linked: bool,
}

/// One step.
#[derive(Clone, Debug)]
struct StepBox {
    name: String,
    kind: Kind,
    /// What it does, in a few words.
    caption: String,
    condition: Option<String>,
    /// What it is done for each of, in a few words.
    each: Option<String>,
    undo: Undo,
    stage: Stage,
    /// How long and how often.
    effort: String,
    look: Option<StepLook>,
}

/// What kind of work a step is; each has an icon of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Command,
    Saga,
    Wait,
    Delay,
}

/// What undoes a step.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Undo {
    Action(String),
    Nothing,
    Pivot,
    OnlyForward,
}

impl Undo {
    fn text(&self) -> String {
        match self {
            Self::Action(action) => format!("undo: {action}"),
            Self::Nothing => "nothing to undo".to_owned(),
            Self::Pivot => "pivot: once sent, only forward".to_owned(),
            Self::OnlyForward => "only forward".to_owned(),
        }
    }
}

impl Picture {
    /// The picture of a definition.
    pub fn of(definition: &Definition) -> Self {
        let boxes = definition.indices().map(|index| step_box(definition, index)).collect();
        let mut facts = Vec::new();
        if let Some(owner) = &definition.owner {
            facts.push(format!("owner {owner}"));
        }
        if let Some(timeout) = definition.timeout {
            let until = if definition.pivot().is_some() { " until the pivot is sent" } else { "" };
            facts.push(format!("at most {}{until}", text::duration(timeout)));
        }
        Self {
            title: definition.reference.to_string(),
            facts,
            boxes,
            edges: edges(definition),
            pivot: definition.pivot().map(StepIndex::at),
            saga: None,
            is_linked: false,
        }
    }

    /// The same picture with a saga's states in it.
    #[must_use]
    pub fn with_states(mut self, saga: SagaLook) -> Self {
        for step in &mut self.boxes {
            step.look = saga.of_step(&step.name);
        }
        self.saga = Some(saga);
        self
    }

    /// The same picture where each step of which a state is shown is a link to `#step-NAME` of the page around it.
    #[must_use]
    pub fn with_links(mut self) -> Self {
        self.is_linked = true;
        self
    }

    /// As SVG 1.1, for light and dark surroundings.
    pub fn svg(&self) -> String {
        svg::draw(self)
    }

    /// As SVG inside a page whose style sheet has [`Picture::page_style`]: without one of its own, which a strict content
    /// security policy would not let in.
    pub fn svg_in_page(&self) -> String {
        let svg = svg::draw(self);
        let own = format!("<style>{}</style>", style::sheet());
        svg.replacen(&own, "", 1)
    }

    /// The style of [`Picture::svg_in_page`]: what all themes share, the light one, the dark one.
    pub fn page_style() -> [String; 3] {
        style::parts()
    }

    /// As a Mermaid flowchart.
    pub fn mermaid(&self) -> String {
        mermaid::draw(self)
    }

    /// As a graph for Graphviz.
    pub fn dot(&self) -> String {
        dot::draw(self)
    }

    /// The steps that nothing comes before, and those that nothing comes after.
    fn ends(&self) -> (Vec<usize>, Vec<usize>) {
        let all = 0..self.boxes.len();
        let first = all.clone().filter(|at| self.edges.iter().all(|(_, to)| to != at)).collect();
        let last = all.filter(|at| self.edges.iter().all(|(from, _)| from != at)).collect();
        (first, last)
    }

    /// Whether a saga that goes backward may come up from this step.
    fn has_way_back(&self, at: usize) -> bool {
        self.boxes.get(at).is_some_and(|step| step.stage != Stage::AfterPivot)
    }

    /// The whole picture in words.
    fn description(&self) -> String {
        let mut told = format!("{} steps of the saga {}.", self.boxes.len(), self.title);
        for (at, step) in self.boxes.iter().enumerate() {
            let before = self.edges.iter().filter(|(_, to)| *to == at).filter_map(|(from, _)| self.boxes.get(*from));
            let before: Vec<&str> = before.map(|step| step.name.as_str()).collect();
            let after = if before.is_empty() { "first".to_owned() } else { format!("after {}", before.join(", ")) };
            told.push_str(&format!(" {}, {after}: {}", step.name, step.in_words()));
        }
        told
    }
}

impl StepBox {
    fn in_words(&self) -> String {
        let mut parts = vec![self.caption.clone()];
        parts.extend(self.each.clone());
        parts.extend(self.condition.as_ref().map(|condition| format!("only if {condition}")));
        parts.push(self.undo.text());
        parts.push(self.effort.clone());
        parts.extend(self.look.as_ref().map(StepLook::in_words));
        parts.retain(|part| !part.is_empty());
        format!("{}.", parts.join("; "))
    }
}

fn step_box(definition: &Definition, index: StepIndex) -> StepBox {
    let step = definition.step(index);
    let (kind, caption, effort) = work(step);
    let stage = definition.stage(index);
    let undo = match (step.compensation.action(), stage) {
        (_, Stage::Pivot) => Undo::Pivot,
        (Some(_), _) if kind == Kind::Saga => Undo::Action("that saga too".to_owned()),
        (Some(compensation), _) => Undo::Action(compensation.action.clone()),
        (None, Stage::AfterPivot) => Undo::OnlyForward,
        (None, Stage::BeforePivot) => Undo::Nothing,
    };
    let each = step.for_each.as_ref().map(|each| {
        let of = each.items.text().unwrap_or_else(|| "a list".to_owned());
        match each.max_parallel {
            Some(most) => format!("for each of {of}, {most} at once"),
            None => format!("for each of {of}"),
        }
    });
    StepBox {
        name: step.name.clone(),
        kind,
        caption,
        condition: step.when.as_ref().map(|when| when.text().unwrap_or_else(|| "a constant".to_owned())),
        each,
        undo,
        stage,
        effort,
        look: None,
    }
}

/// Its kind, what it does, and how long and how often.
fn work(step: &Step) -> (Kind, String, String) {
    let time = text::duration(step.timeout);
    match &step.work {
        Work::Command => {
            let attempts = match step.retry.max_attempts {
                Some(1) => "1 attempt".to_owned(),
                Some(most) => format!("at most {most} attempts"),
                None => "as many attempts as it takes".to_owned(),
            };
            (Kind::Command, format!("{}.{}", step.participant, step.action), format!("{attempts} of {time}"))
        }
        Work::Saga { name, version } => {
            let version = version.map_or_else(String::new, |version| format!(" v{version}"));
            (Kind::Saga, format!("saga {name}{version}"), format!("at most {time}"))
        }
        Work::Wait { signal, on_timeout } => {
            let then = match on_timeout {
                OnTimeout::Fail => "then it fails",
                OnTimeout::Continue => "then it goes on without",
            };
            (Kind::Wait, format!("waits for {signal}"), format!("at most {time}, {then}"))
        }
        Work::Delay => (Kind::Delay, format!("waits {time}"), String::new()),
    }
}

/// The dependencies that no others imply.
fn edges(definition: &Definition) -> Vec<(usize, usize)> {
    let graph = &definition.graph;
    let mut edges = Vec::new();
    for to in definition.indices() {
        let before = graph.dependencies(to);
        for &from in before {
            if !before.iter().any(|&other| graph.is_before(from, other)) {
                edges.push((from.at(), to.at()));
            }
        }
    }
    edges.sort_unstable();
    edges.dedup();
    edges
}
