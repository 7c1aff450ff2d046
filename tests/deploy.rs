//! What lies in `deploy/` and in the runbooks is about the program that there is: its flags, variables, metrics and ports.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use amends::cli::Cli;
use amends::cli::settings::Settings;
use clap::{CommandFactory, Parser};
use serde_json::Value;

const ID: &str = "0198c0de-0000-7000-8000-000000000001";

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// The documents of a file.
fn documents(path: &str) -> Vec<Value> {
    read(path).split("\n---\n").map(yaml).collect()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().into_iter().flatten().map(|text| text.as_str().expect("text").to_owned()).collect()
}

/// The command line is one of the program's.
fn parses(words: &[String]) {
    if let Err(error) = Cli::try_parse_from(words) {
        panic!("{}: {error}", words.join(" "));
    }
}

fn documented() -> BTreeSet<String> {
    let text = read("docs/metrics.md");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `amends_"));
    rows.map(|row| format!("amends_{}", row.split('`').next().expect("a name"))).collect()
}

/// Metrics that an expression names; all of them must be documented.
fn check_metrics(expression: &str, documented: &BTreeSet<String>) -> usize {
    let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = expression.split(|c| !is_part(c)).filter(|word| word.starts_with("amends_"));
    words
        .inspect(|name| {
            let family = ["_total", "_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            let is_known = documented.contains(*name) || family.is_some_and(|family| documented.contains(family));
            assert!(is_known, "{name} is in no row of docs/metrics.md: {expression}");
        })
        .count()
}

#[test]
fn alerts_and_dashboard_name_metrics_that_there_are() {
    let documented = documented();
    assert!(documented.len() > 15, "the table is not read");
    let rules = yaml(&read("deploy/prometheus/alerts.yaml"));
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    let found: usize = rules.iter().map(|rule| check_metrics(rule["expr"].as_str().expect("text"), &documented)).sum();
    assert!(found >= rules.len() - 1, "all but one, which is about the process, look at metrics of ours");
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/amends.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels");
    assert!(panels.len() <= 20, "{} panels", panels.len());
    for target in panels.iter().flat_map(|panel| panel["targets"].as_array().expect("targets")) {
        assert!(check_metrics(target["expr"].as_str().expect("text"), &documented) > 0, "{target}");
    }
}

#[test]
fn every_alert_leads_to_its_page_and_every_page_is_led_to() {
    let rules = yaml(&read("deploy/prometheus/alerts.yaml"));
    let mut pages = BTreeSet::from(["stuck.md".to_owned()]);
    for rule in rules["groups"][0]["rules"].as_array().expect("rules") {
        let url = rule["annotations"]["runbook_url"].as_str().expect("a page");
        let text = read(url);
        assert!(text.starts_with(&format!("# {}\n", rule["alert"].as_str().expect("a name"))), "{url}");
        assert!(text.contains("## Look first") && text.contains("## Cure"), "{url}");
        pages.insert(url.rsplit('/').next().expect("a name").to_owned());
    }
    let there = std::fs::read_dir(root().join("docs/runbooks")).expect("the folder");
    let there = there.map(|entry| entry.expect("a file").file_name().into_string().expect("text")).collect();
    assert_eq!(pages, there);
}

#[test]
fn every_command_of_the_runbooks_is_one_that_the_program_takes() {
    let mut count = 0;
    for entry in std::fs::read_dir(root().join("docs/runbooks")).expect("the folder") {
        let text = read(entry.expect("a file").path());
        let lines = text.lines().map(str::trim).filter(|line| line.starts_with("amends "));
        let quoted = text.split('`').filter(|part| part.starts_with("amends ") && !part.contains('\n'));
        for line in lines.chain(quoted) {
            let words = shell(&line.replace("ID", ID).replace("NAME", "place-order"));
            let words: Vec<String> = words
                .into_iter()
                .map(|word| if word == "OLD" || word == "NEW" { "a.yaml".to_owned() } else { word })
                .collect();
            parses(&words);
            count += 1;
        }
    }
    assert!(count > 30, "{count} commands");
}

/// Words of a command line with single quotes.
fn shell(line: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut is_quoted = false;
    for c in line.chars() {
        match c {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            c => words.last_mut().expect("a word").push(c),
        }
    }
    words
}

#[test]
fn prometheus_takes_the_rules() {
    match Command::new("promtool").arg("check").arg("rules").arg(root().join("deploy/prometheus/alerts.yaml")).output()
    {
        Ok(said) => assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr)),
        Err(_) => println!("SKIPPED: promtool is not installed (Debian: prometheus)"),
    }
}

#[test]
fn the_sample_settings_are_all_that_there_are() {
    let text = read("deploy/amends.sample.toml");
    let is_setting = |line: &&str| line.starts_with('#') && !line.starts_with("# ") && !line.starts_with("#  ");
    let settings: Vec<&str> = text.lines().filter(is_setting).map(|line| line.trim_start_matches('#')).collect();
    let read = Settings::from_file_text(&settings.join("\n")).unwrap_or_else(|problem| panic!("{problem:?}"));
    assert!(read.store.is_some() && read.broker.is_some() && read.http.is_some() && read.url.is_some());
    assert_eq!((read.tokens.len(), read.webhooks.len()), (1, 1));
    assert_eq!(read.oidc.expect("an issuer").roles.len(), 2);
    assert!(read.traces.endpoint.is_some() && read.console.trace_url.is_some());
    // Whoever adds a setting adds it here: an unknown key is answered with all that are known.
    let (_, known) = Settings::from_file_text("zzzzzzzzzzzz = 1").expect_err("there is no such key");
    let known = known.strip_prefix("the keys are ").expect("the keys").split(", ");
    for key in known {
        assert!(
            settings
                .iter()
                .any(|line| line.starts_with(key) || *line == format!("[[{key}]]") || *line == format!("[{key}]")),
            "{key}"
        );
    }
}

/// Variables that the program reads.
fn variables() -> BTreeSet<String> {
    let command = Cli::command();
    let names = command.get_arguments().filter_map(|argument| argument.get_env()?.to_str().map(str::to_owned));
    names.chain(["AMENDS_LOG".to_owned()]).collect()
}

#[test]
fn the_compose_file_starts_what_there_is() {
    let compose = yaml(&read("deploy/compose.yaml"));
    let coordinator = &compose["services"]["coordinator"];
    let mut words = vec!["amends".to_owned()];
    words.extend(strings(&coordinator["command"]));
    parses(&words);
    let known = variables();
    for name in coordinator["environment"].as_object().expect("variables").keys() {
        assert!(known.contains(name), "{name} is read by nobody");
    }
    let settings = compose["configs"]["settings"]["content"].as_str().expect("text");
    assert_eq!(Settings::from_file_text(settings).expect("settings").tokens.len(), 1);
    for service in ["orders", "payments", "warehouse"] {
        assert_eq!(strings(&compose["services"][service]["command"]), [service]);
        let databases = compose["configs"]["databases"]["content"].as_str().expect("SQL");
        assert!(databases.contains(&format!("create database {service};")));
    }
    let docker = read("deploy/docker/Dockerfile");
    assert!(docker.contains("EXPOSE 7070") && docker.contains("USER 10001"));
    let command = docker.lines().find_map(|line| line.strip_prefix("CMD ")).expect("a command");
    let command: Vec<String> = serde_json::from_str(command).expect("JSON");
    parses(&[vec!["amends".to_owned()], command].concat());
}

#[test]
fn the_manifests_start_what_there_is_and_ask_what_it_answers() {
    let known = variables();
    let documents = documents("deploy/kubernetes/amends.yaml");
    let deployment = documents.iter().find(|document| document["kind"] == "Deployment").expect("a deployment");
    let pod = &deployment["spec"]["template"]["spec"];
    let secret = &self::documents("deploy/kubernetes/secret.sample.yaml")[0]["stringData"];
    for container in [&pod["initContainers"][0], &pod["containers"][0]] {
        parses(&[vec!["amends".to_owned()], strings(&container["args"])].concat());
        for variable in container["env"].as_array().expect("variables") {
            assert!(known.contains(variable["name"].as_str().expect("a name")), "{variable}");
            if let Some(key) = variable["valueFrom"]["secretKeyRef"]["key"].as_str() {
                assert!(secret[key].is_string(), "{key} is not in the sample");
            }
        }
        assert_eq!(container["securityContext"]["readOnlyRootFilesystem"], true);
    }
    let container = &pod["containers"][0];
    assert_eq!(container["ports"][0]["containerPort"], 7070);
    for (probe, path) in [("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")] {
        assert_eq!(container[probe]["httpGet"]["path"], path);
        assert!(amends::api::route_table().iter().any(|route| route.path == path), "{path}");
    }
    assert!(Settings::from_file_text(secret["amends.toml"].as_str().expect("text")).is_ok());
    let kinds: BTreeSet<&str> = documents.iter().filter_map(|document| document["kind"].as_str()).collect();
    assert_eq!(kinds, BTreeSet::from(["Deployment", "PodDisruptionBudget", "Service"]));
}

#[test]
fn the_unit_starts_what_there_is() {
    let unit = read("deploy/systemd/amends.service");
    let start = unit.lines().find_map(|line| line.strip_prefix("ExecStart=")).expect("a command");
    let words: Vec<String> = start.split(' ').map(str::to_owned).collect();
    // The file that it names is not here: only the words are looked at.
    parses(&words);
    assert!(unit.contains("NoNewPrivileges=yes") && unit.contains("DynamicUser=yes"));
}
