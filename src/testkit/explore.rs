//! The explorer: every single fault at every place, then pairs within a budget, every command twice, every compensation
//! twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde_json::Value;

use crate::definition::{Definition, Stage, Step};
use crate::saga::Direction;
use crate::testkit::{Attempts, End, Extent, Fault, FaultKind, InvalidPlan, Kit, Plan, Run, Subject, draw};

/// How many attempts of a command are struck one by one; the retries beyond are the same again.
const MOST_ATTEMPTS: u32 = 20;
/// How many attempts of a command without a limit are struck one by one.
const ATTEMPTS_WITHOUT_LIMIT: u32 = 3;

/// Runs a definition with every fault at every place.
///
/// ```
/// # use amends::testkit::explore;
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
/// let report = explore(include_str!("../../sagas/loyalty-signup.yaml")).run(async |kit| kit).await;
/// report.assert_sound();
/// assert!(report.tried() > 100);
/// # });
/// ```
#[derive(Clone, Debug)]
pub struct Explorer {
    subject: Subject,
    input: Option<Value>,
    extent: Extent,
    pairs: usize,
    seeds: u64,
}

/// An explorer of the definition with this text.
///
/// # Panics
/// When the definition is wrong, with everything that is wrong with it.
#[track_caller]
pub fn explore(source: &str) -> Explorer {
    match Subject::read(source) {
        Ok(subject) => Explorer::of(subject),
        Err(found) => {
            panic!("the definition is wrong:\n{}", crate::definition::render("definition", source, &found, false))
        }
    }
}

impl Explorer {
    /// An explorer of a definition that has been read.
    pub fn of(subject: Subject) -> Self {
        Self { subject, input: None, extent: Extent::Required, pairs: 0, seeds: 1 }
    }

    /// Starts every saga with this input. Without it one is made up.
    #[must_use]
    pub fn input(self, input: impl Into<Value>) -> Self {
        Self { input: Some(input.into()), ..self }
    }

    /// Makes up this much of the input.
    #[must_use]
    pub fn made_up(self, extent: Extent) -> Self {
        Self { extent, ..self }
    }

    /// Tries up to this many pairs of faults as well, spread evenly over all pairs.
    #[must_use]
    pub fn pairs(self, budget: usize) -> Self {
        Self { pairs: budget, ..self }
    }

    /// Runs every plan with this many seeds: other seeds, other orders of what happens side by side.
    #[must_use]
    pub fn seeds(self, seeds: u64) -> Self {
        Self { seeds: seeds.max(1), ..self }
    }

    /// Runs all plans. `prepare` gets a fresh kit for each and gives it its participants and invariants.
    ///
    /// With `AMENDS_REPLAY` set to the faults that a failure printed, only that plan is run.
    ///
    /// # Panics
    /// When no input can be made up, or the one that was given does not fit.
    pub async fn run(self, prepare: impl AsyncFn(Kit) -> Kit) -> Report {
        match self.try_run(prepare).await {
            Ok(report) => report,
            Err(error) => panic!("{error}"),
        }
    }

    /// The same.
    ///
    /// # Errors
    /// When no input can be made up, or the one that was given does not fit.
    pub async fn try_run(&self, prepare: impl AsyncFn(Kit) -> Kit) -> Result<Report, InvalidPlan> {
        let mut report = Report { saga: self.subject.definition().reference.to_string(), ..Report::default() };
        if let Some(plan) = replayed()? {
            report.take(self.one(plan, &prepare).await?);
            return Ok(report);
        }
        let reach = self.reach(&prepare).await?;
        let mut plans = vec![Plan::quiet()];
        plans.extend(self.twice(&reach));
        let singles = self.single_faults(&reach);
        plans.extend(singles.iter().cloned());
        plans.extend(self.some_pairs(&singles));
        for plan in plans {
            for seed in 0..self.seeds {
                let run = self.one(plan.clone().seed(seed), &prepare).await?;
                if run.is_sound() {
                    report.take(run);
                } else if report.bad.len() < 5 {
                    let least = self.minimise(run, &prepare).await?;
                    report.tried += 1;
                    report.take_bad(least);
                } else {
                    report.tried += 1;
                    report.more_bad += 1;
                }
            }
        }
        Ok(report)
    }

    async fn one(&self, plan: Plan, prepare: &impl AsyncFn(Kit) -> Kit) -> Result<Run, InvalidPlan> {
        let mut kit = prepare(Kit::of(self.subject.clone()).made_up(self.extent)).await;
        if let Some(input) = &self.input {
            kit = kit.input(input.clone());
        }
        kit.plan(plan).try_run().await
    }

    /// What has to go wrong for each command to be sent at all: nothing for the actions of a saga that completes;
    /// a refusal further on, or a lost outcome, for compensations.
    async fn reach(&self, prepare: &impl AsyncFn(Kit) -> Kit) -> Result<Reach, InvalidPlan> {
        let quiet = self.one(Plan::quiet(), prepare).await?;
        let definition = self.subject.expanded(&quiet.input)?;
        let mut reach = Reach { definition: Some(definition.clone()), ..Reach::default() };
        reach.actions = quiet.attempts.keys().map(|(step, _)| step.clone()).collect();
        let turning = definition.indices().rev().filter(|&step| {
            definition.stage(step) != Stage::AfterPivot && FaultKind::Fail.strikes(&definition.step(step).work)
        });
        let turning: Vec<&str> = turning.map(|step| definition.step(step).name.as_str()).collect();
        for step in definition.steps.iter().filter(|step| step.compensation.action().is_some()) {
            let mut ways = Vec::new();
            let refusals = turning.iter().filter(|other| **other != step.name);
            let refusals = refusals.map(|other| vec![Fault::action(*other, FaultKind::Fail)]);
            let own = [FaultKind::LostReply, FaultKind::Timeout, FaultKind::Stale];
            let own = own.into_iter().map(|kind| vec![Fault::action(&step.name, kind).always()]);
            let mut has_refusal = false;
            for faults in refusals.chain(own) {
                let is_refusal = faults.iter().any(|fault| fault.kind == FaultKind::Fail);
                if is_refusal && has_refusal {
                    continue;
                }
                let run = self.one(Plan { faults: faults.clone(), ..Plan::quiet() }, prepare).await?;
                if run.attempts.contains_key(&(step.name.clone(), Direction::Compensation)) {
                    has_refusal |= is_refusal;
                    ways.push(faults);
                }
            }
            reach.compensations.insert(step.name.clone(), ways);
        }
        Ok(reach)
    }

    fn single_faults(&self, reach: &Reach) -> Vec<Plan> {
        let mut plans = Vec::new();
        for step in reach.definition.iter().flat_map(|definition| &definition.steps) {
            if reach.actions.contains(&step.name) {
                for fault in faults_of(step, Direction::Action, step.retry.max_attempts, true) {
                    plans.push(Plan::quiet().with(fault));
                }
            }
            let Some(undo) = step.compensation.action() else { continue };
            for (at, way) in reach.compensations.get(&step.name).into_iter().flatten().enumerate() {
                for fault in faults_of(step, Direction::Compensation, undo.retry.max_attempts, at == 0) {
                    plans.push(Plan { faults: way.clone(), ..Plan::quiet() }.with(fault));
                }
            }
        }
        plans
    }

    /// Every command delivered twice, every reply delivered twice: on the way forward, and on every way back.
    fn twice(&self, reach: &Reach) -> Vec<Plan> {
        let mut plans = Vec::new();
        for kind in [FaultKind::Duplicate, FaultKind::DuplicateReply] {
            let all = |without: &[Fault]| -> Vec<Fault> {
                let steps = reach.definition.iter().flat_map(|definition| &definition.steps);
                let steps = steps.filter(|step| kind.strikes(&step.work));
                let both = steps.flat_map(|step| {
                    let undo = step.compensation.action().map(|_| Fault::compensation(&step.name, kind).always());
                    std::iter::once(Fault::action(&step.name, kind).always()).chain(undo)
                });
                let is_free = |fault: &Fault| {
                    !without.iter().any(|other| other.step == fault.step && other.direction == fault.direction)
                };
                both.filter(is_free).collect()
            };
            let ways: BTreeSet<&Vec<Fault>> = reach.compensations.values().flatten().collect();
            for way in std::iter::once(&Vec::new()).chain(ways) {
                let faults = way.iter().cloned().chain(all(way)).collect();
                plans.push(Plan { faults, ..Plan::quiet() });
            }
        }
        plans
    }

    /// Pairs of faults, drawn evenly; at one command only of different attempts.
    fn some_pairs(&self, singles: &[Plan]) -> Vec<Plan> {
        let mut pairs = Vec::new();
        let count = singles.len() as u64;
        let mut drawn = 0;
        while pairs.len() < self.pairs && drawn < 20 * self.pairs as u64 && count > 1 {
            drawn += 1;
            let pick = |salt| singles.get(usize::try_from(draw(drawn, salt) % count).unwrap_or_default());
            let (Some(one), Some(other)) = (pick(1), pick(2)) else { break };
            let meets = one.faults.iter().any(|fault| other.faults.iter().any(|second| is_same_place(fault, second)));
            if !meets {
                let faults = one.faults.iter().chain(&other.faults).cloned().collect();
                pairs.push(Plan { faults, ..Plan::quiet() });
            }
        }
        pairs
    }

    /// Leaves out what is not needed to fail, one fault after the other, then tries earlier attempts.
    async fn minimise(&self, mut worst: Run, prepare: &impl AsyncFn(Kit) -> Kit) -> Result<Run, InvalidPlan> {
        let mut at = 0;
        while at < worst.plan.faults.len() {
            let mut plan = worst.plan.clone();
            plan.faults.remove(at);
            let run = self.one(plan, prepare).await?;
            if run.is_sound() {
                at += 1;
            } else {
                worst = run;
            }
        }
        for at in 0..worst.plan.faults.len() {
            let mut plan = worst.plan.clone();
            let Some(fault) = plan.faults.get_mut(at).filter(|fault| fault.attempts != Attempts::Only(1)) else {
                continue;
            };
            fault.attempts = Attempts::Only(1);
            let run = self.one(plan, prepare).await?;
            if !run.is_sound() {
                worst = run;
            }
        }
        if worst.plan.seed != 0 {
            let run = self.one(worst.plan.clone().seed(0), prepare).await?;
            if !run.is_sound() {
                worst = run;
            }
        }
        Ok(worst)
    }
}

/// Whether two faults cannot both strike.
fn is_same_place(one: &Fault, other: &Fault) -> bool {
    let is_same_attempt = match (one.attempts, other.attempts) {
        (Attempts::Only(one), Attempts::Only(other)) => one == other,
        _ => true,
    };
    one.step == other.step && one.direction == other.direction && is_same_attempt
}

#[derive(Debug, Default)]
struct Reach {
    /// As it is for the input.
    definition: Option<Arc<Definition>>,
    /// The steps whose action is sent when nothing goes wrong.
    actions: BTreeSet<String>,
    /// By step: the ways on which its compensation is sent.
    compensations: BTreeMap<String, Vec<Vec<Fault>>>,
}

/// Every fault of one command: at each attempt, and at all of them.
fn faults_of(step: &Step, direction: Direction, max_attempts: Option<u32>, each: bool) -> Vec<Fault> {
    let most = max_attempts.unwrap_or(ATTEMPTS_WITHOUT_LIMIT).min(MOST_ATTEMPTS);
    let is_wait = !step.work.is_sent() && direction == Direction::Action;
    let most = if each && !is_wait { most } else { most.min(1) };
    let mut faults = Vec::new();
    for kind in FaultKind::ALL.into_iter().filter(|kind| kind.strikes(&step.work)) {
        let fault = Fault { direction, ..Fault::action(&step.name, kind) };
        faults.extend((1..=most).map(|attempt| fault.clone().at(attempt)));
        if kind.leads_to_another_attempt() && most > 0 && !is_wait {
            faults.push(fault.always());
        }
    }
    faults
}

/// The plan in `AMENDS_REPLAY`: faults, and perhaps `seed=7`, with spaces between.
fn replayed() -> Result<Option<Plan>, InvalidPlan> {
    let Ok(text) = std::env::var("AMENDS_REPLAY") else { return Ok(None) };
    let mut plan = Plan::quiet();
    for word in text.split_whitespace() {
        match word.strip_prefix("seed=").and_then(|seed| seed.parse().ok()) {
            Some(seed) => plan.seed = seed,
            None => plan.faults.push(word.parse()?),
        }
    }
    Ok(Some(plan))
}

/// One placement and its end.
#[derive(Clone, Debug)]
pub struct Placed {
    /// What went wrong.
    pub faults: Vec<Fault>,
    /// The seed.
    pub seed: u64,
    /// How the saga ended.
    pub end: End,
}

/// What an exploration found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Name and version of the definition.
    pub saga: String,
    /// Every placement that was sound, with its end.
    pub sound: Vec<Placed>,
    /// Placements that were broken, each made as small as it still breaks.
    pub bad: Vec<Run>,
    tried: usize,
    more_bad: usize,
    unreached: usize,
}

impl Report {
    fn take(&mut self, run: Run) {
        self.tried += 1;
        if !run.is_sound() {
            return self.take_bad(run);
        }
        self.unreached += usize::from(!run.unfired.is_empty());
        self.sound.push(Placed { faults: run.plan.faults, seed: run.plan.seed, end: run.end });
    }

    fn take_bad(&mut self, run: Run) {
        let is_known = self.bad.iter().any(|known| known.plan == run.plan);
        if is_known {
            self.more_bad += 1;
        } else {
            self.bad.push(run);
        }
    }

    /// How many placements were tried.
    pub fn tried(&self) -> usize {
        self.tried
    }

    /// How many of them were broken.
    pub fn broken(&self) -> usize {
        self.bad.len() + self.more_bad
    }

    /// Placements of which some fault never struck: what else went wrong came first.
    pub fn unreached(&self) -> usize {
        self.unreached
    }

    /// How many sound placements ended in this state, a word of the contract.
    pub fn ended(&self, state: &str) -> usize {
        self.sound.iter().filter(|placed| placed.end.state() == state).count()
    }

    /// Adds what another exploration of the same definition found.
    pub fn join(&mut self, other: Self) {
        self.sound.extend(other.sound);
        self.bad.extend(other.bad);
        self.tried += other.tried;
        self.more_bad += other.more_bad;
        self.unreached += other.unreached;
    }

    /// No guarantee and no invariant was broken anywhere.
    ///
    /// # Panics
    /// When one was, with the smallest plan that breaks it, its timeline, and the line that replays it.
    #[track_caller]
    pub fn assert_sound(&self) -> &Self {
        if let Some(worst) = self.bad.first() {
            let thread = std::thread::current();
            let test = thread.name().unwrap_or("NAME_OF_THE_TEST").to_owned();
            let faults: Vec<String> = worst.plan.faults.iter().map(ToString::to_string).collect();
            let seed = worst.plan.seed;
            panic!(
                "{self}\n{}\n  or: AMENDS_REPLAY='{} seed={seed}' cargo test {test}",
                worst.report("FILE"),
                faults.join(" ")
            );
        }
        self
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} placements tried, {} bad: {} completed, {} compensated, {} stuck with a reason",
            self.saga,
            self.tried,
            self.broken(),
            self.ended("COMPLETED"),
            self.ended("COMPENSATED"),
            self.ended("STUCK"),
        )
    }
}
