//! What the settings say about namespaces: which there are, where each has its state, whose tokens lead where.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::str::FromStr;

use sqlx::sqlite::SqliteConnectOptions;

use super::connect;
use super::error::CliError;
use super::output::escape;
use super::settings::{NamespaceEntry, Settings, TokenEntry};
use crate::api::{self, Access, Reach};
use crate::id::Namespace;

/// One namespace, with all that is needed to open it.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name.
    pub namespace: Namespace,
    /// Where its state lives.
    pub store: String,
    /// Its broker.
    pub broker: String,
    /// What its entry in the settings says besides.
    pub entry: NamespaceEntry,
}

impl Settings {
    /// The namespace that this run is about, if one was named.
    ///
    /// # Errors
    /// When the name is none.
    pub fn namespace(&self) -> Result<Option<Namespace>, CliError> {
        self.namespace.as_deref().map(named).transpose()
    }

    /// The place of the namespace that this run is about, for commands that open its store.
    ///
    /// # Errors
    /// When the name is none, or there is no place for the default store.
    pub fn place(&self) -> Result<Place, CliError> {
        let namespace = self.namespace()?.unwrap_or_default();
        let entry = self.namespaces.iter().find(|entry| entry.name == namespace.as_str());
        if entry.is_none() && !namespace.is_default() && !self.namespaces.is_empty() {
            // A slip would make a store that nobody serves.
            return Err(CliError::usage(format!("there is no namespace `{namespace}` in [[namespaces]]"))
                .help("give it an entry in the settings file first"));
        }
        self.place_of(namespace, entry.cloned().unwrap_or_default())
    }

    /// Every namespace of the settings, the default one first.
    ///
    /// # Errors
    /// When a name is none, is there twice, or two would share their state.
    pub fn places(&self) -> Result<Vec<Place>, CliError> {
        let mut places = vec![self.place_of(Namespace::default(), NamespaceEntry::default())?];
        for entry in &self.namespaces {
            let namespace = named(&entry.name)?;
            if namespace.is_default() {
                return Err(CliError::usage("[[namespaces]]: `default` is there already")
                    .help("its store and broker are those of the top of the file"));
            }
            if places.iter().any(|place| place.namespace == namespace) {
                return Err(CliError::usage(format!("[[namespaces]]: `{namespace}` is there twice"))
                    .help("give each namespace one entry"));
            }
            if let Some((definition, weight)) = entry.weights.iter().find(|(_, weight)| !(1..=1_000).contains(*weight))
            {
                let definition = escape(definition);
                return Err(CliError::usage(format!("namespace `{namespace}`: the weight {weight} of `{definition}`"))
                    .help("a weight is a number from 1 to 1000"));
            }
            places.push(self.place_of(namespace, entry.clone())?);
        }
        let mut files = BTreeSet::new();
        for place in &places {
            if file(&place.store).is_some_and(|file| !files.insert(file)) {
                let problem = format!("namespace `{}` has the same SQLite file as another", place.namespace);
                return Err(
                    CliError::usage(problem).help("give each namespace a file of its own, or leave `store` out")
                );
            }
        }
        Ok(places)
    }

    fn place_of(&self, namespace: Namespace, entry: NamespaceEntry) -> Result<Place, CliError> {
        let store = match &entry.store {
            Some(store) => store.clone(),
            None => beside(&self.store_or_default()?, &namespace),
        };
        let broker = entry.broker.clone().unwrap_or_else(|| self.broker_or_default().to_owned());
        Ok(Place { namespace, store, broker, entry })
    }

    /// Who may use which namespace.
    ///
    /// # Errors
    /// When a token's role, hash or namespace makes no sense, or what is said of an issuer does not.
    pub fn access(&self) -> Result<Access, CliError> {
        let mut names = Vec::new();
        for entry in &self.namespaces {
            names.push(named(&entry.name)?);
        }
        let mut tokens = Vec::new();
        let mut hashes = BTreeSet::new();
        for token in &self.tokens {
            let (entry, reach) = read(token, &names)?;
            if !hashes.insert(entry.sha256()) && !names.is_empty() {
                return Err(wrong(token, "another entry has the same sha256".to_owned()));
            }
            tokens.push((entry, reach));
        }
        let access = Access::new(names, tokens);
        match &self.oidc {
            Some(issuer) => Ok(access.with_issuer(connect::oidc(issuer)?)),
            None => Ok(access),
        }
    }
}

/// A namespace by its name.
///
/// # Errors
/// What is wrong with the name.
fn named(name: &str) -> Result<Namespace, CliError> {
    name.parse::<Namespace>().map_err(|error| {
        CliError::usage(format!("namespace `{}`: {error}", escape(name))).help("for example `acme` or `acme-eu`")
    })
}

fn wrong(token: &TokenEntry, problem: String) -> CliError {
    CliError::usage(format!("token `{}`: {problem}", escape(&token.name)))
        .help("see [[tokens]] in the settings file: name, role, sha256, and namespace or namespaces")
}

fn read(token: &TokenEntry, others: &[Namespace]) -> Result<(api::TokenEntry, Reach), CliError> {
    // What the audit log says of others must not be said of a token.
    if token.name.starts_with("oidc:") || token.name.starts_with("cli:") {
        return Err(wrong(token, "a name cannot begin with `oidc:` or `cli:`".to_owned()));
    }
    let role = token.role.parse().map_err(|problem| wrong(token, problem))?;
    let entry = api::TokenEntry::hashed(&token.name, role, &token.sha256).map_err(|problem| wrong(token, problem))?;
    let there_is = |name: &String| {
        let namespace = name
            .parse::<Namespace>()
            .map_err(|error| wrong(token, format!("namespace `{}`: {error}", escape(name))))?;
        if namespace.is_default() || others.contains(&namespace) {
            return Ok(namespace);
        }
        Err(wrong(token, format!("there is no namespace `{namespace}` in [[namespaces]]")))
    };
    let reach = match (&token.namespace, &*token.namespaces) {
        (Some(_), [_, ..]) => return Err(wrong(token, "has both `namespace` and `namespaces`".to_owned())),
        (Some(one), []) => Reach::Only(vec![there_is(one)?]),
        (None, []) => Reach::Only(vec![Namespace::default()]),
        (None, [all]) if all == "*" => Reach::Every,
        (None, several) => Reach::Only(several.iter().map(there_is).collect::<Result<_, _>>()?),
    };
    Ok((entry, reach))
}

/// Where a namespace without a store of its own has its state, given the default one's: PostgreSQL holds a schema for it,
/// beside an SQLite file is another.
fn beside(default: &str, namespace: &Namespace) -> String {
    if namespace.is_default() || !default.starts_with("sqlite:") {
        return default.to_owned();
    }
    let (path, query) = default.split_once('?').map_or((default, None), |(path, query)| (path, Some(query)));
    let name_starts = path.rfind('/').map_or(0, |slash| slash + 1);
    let dot = path[name_starts..].rfind('.').map(|dot| name_starts + dot).filter(|dot| *dot > name_starts);
    let (stem, end) = path.split_at(dot.unwrap_or(path.len()));
    let query = query.map_or_else(String::new, |query| format!("?{query}"));
    format!("{stem}.{namespace}{end}{query}")
}

/// The SQLite file at an address, told apart from others however it is written.
fn file(store: &str) -> Option<PathBuf> {
    if !store.starts_with("sqlite:") {
        return None;
    }
    let path = SqliteConnectOptions::from_str(store).ok()?.get_filename().to_owned();
    let whole = std::fs::canonicalize(&path).ok();
    let folder = || {
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(std::path::Path::new("."));
        Some(std::fs::canonicalize(parent).ok()?.join(path.file_name()?))
    };
    whole.or_else(folder).or(Some(path.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Settings {
        Settings::from_file_text(text).expect("the text is well formed")
    }

    #[test]
    fn a_namespace_has_a_schema_or_a_file_of_its_own_unless_its_entry_says_where() {
        let acme: Namespace = "acme".parse().expect("a name");
        for (default, expected) in [
            ("sqlite:///var/lib/amends.db", "sqlite:///var/lib/amends.acme.db"),
            ("sqlite://amends.db?mode=rwc", "sqlite://amends.acme.db?mode=rwc"),
            ("sqlite:///a.b/state", "sqlite:///a.b/state.acme"),
            ("postgres://me@host/db", "postgres://me@host/db"),
        ] {
            assert_eq!(beside(default, &acme), expected);
            assert_eq!(beside(default, &Namespace::default()), default);
        }
        let text = "store = \"postgres://a/b\"\n[[namespaces]]\nname = \"acme\"\nstore = \"postgres://c/d\"\nbroker = \"amqp://e\"\n";
        let places = settings(text).places().expect("places");
        let told: Vec<_> =
            places.iter().map(|place| (place.namespace.as_str(), &*place.store, &*place.broker)).collect();
        assert_eq!(told, [("default", "postgres://a/b", "in-process"), ("acme", "postgres://c/d", "amqp://e")]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_and_named() {
        let hash = "0".repeat(64);
        let token = |more: &str| format!("[[tokens]]\nname = \"me\"\nrole = \"viewer\"\nsha256 = \"{hash}\"\n{more}\n");
        for (text, expected) in [
            ("[[namespaces]]\nname = \"Acme\"".to_owned(), "namespace `Acme`: a namespace's name has"),
            ("[[namespaces]]\nname = \"amends\"".to_owned(), "is reserved"),
            ("[[namespaces]]\nname = \"default\"".to_owned(), "is there already"),
            ("[[namespaces]]\nname = \"a\"\n[[namespaces]]\nname = \"a\"".to_owned(), "is there twice"),
            ("[[namespaces]]\nname = \"a\"\nstore = \"sqlite://./x.db\"".to_owned(), "same SQLite file"),
            ("[[namespaces]]\nname = \"a\"\nstore = \"sqlite://%78.db?mode=rw\"".to_owned(), "same SQLite file"),
            ("[[namespaces]]\nname = \"a\"\nweights = { x = 0 }".to_owned(), "the weight 0 of `x`"),
            (token("namespace = \"a\""), "there is no namespace `a`"),
            (token("namespace = \"default\"\nnamespaces = [\"*\"]"), "both"),
            (format!("[[namespaces]]\nname = \"a\"\n{}{}", token(""), token("namespace = \"a\"")), "the same sha256"),
        ] {
            let settings = settings(&format!("store = \"sqlite://x.db\"\n{text}"));
            let error = settings.places().map(drop).and_then(|()| settings.access().map(drop));
            let error = error.expect_err(&text).message;
            assert!(error.contains(expected), "{error}");
        }
    }
}
