//! Tokens that an issuer has signed (OpenID Connect): JWTs, checked with the issuer's published keys.
//!
//! The algorithms are those of the settings, all of them with a public key: a token can neither leave its signature out nor
//! have one that is made with what everybody knows. What a token says counts only once its signature was checked.

mod keys;
mod ring_verifier;

use std::collections::BTreeMap;

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode, decode_header};
use serde_json::{Map, Value};

use crate::api::auth::{Identity, Proof, Refused, Role};
use keys::Keys;

/// The algorithms that can be set.
const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];
/// How far apart the issuer's clock and ours may be, in seconds.
const LEEWAY: u64 = 30;
/// Bytes of a token, at most.
const LONGEST: usize = 16 * 1024;
/// Bytes of a subject, at most: it stands in the audit log.
const LONGEST_SUBJECT: usize = 200;

/// What there is to know of an issuer.
#[derive(Clone, Debug)]
pub struct OidcConfig {
    /// Its name: what `iss` must be.
    pub issuer: String,
    /// Our name: what `aud` must be, or hold.
    pub audience: String,
    /// Where its keys are: `https://…`, or a file; `http://` on this machine only.
    pub jwks: String,
    /// What it signs with, for example `RS256`.
    pub algorithms: Vec<String>,
    /// The claim that tells the roles, with dots between the parts of its path, for example `realm_access.roles`.
    pub roles_claim: String,
    /// Which of its values gives which role. Of several the highest counts.
    pub roles: BTreeMap<String, Role>,
}

/// An issuer whose tokens are accepted.
pub struct Oidc {
    config: OidcConfig,
    algorithms: Vec<Algorithm>,
    keys: Keys,
}

/// Whether it looks like a JWT with a signature.
pub(in crate::api) fn is_jwt(token: &str) -> bool {
    token.split('.').filter(|part| !part.is_empty()).count() == 3 && token.matches('.').count() == 2
        || token.starts_with("eyJ")
}

impl Oidc {
    /// An issuer. Its keys are fetched when they are needed first.
    ///
    /// # Errors
    /// When the settings make no sense; what is wrong with them.
    pub fn new(config: OidcConfig) -> Result<Self, String> {
        ring_verifier::install();
        if config.issuer.is_empty() || config.audience.is_empty() || config.roles_claim.is_empty() {
            return Err("issuer, audience and roles_claim must not be empty".to_owned());
        }
        if config.roles.is_empty() {
            return Err("no value of the claim gives a role: nobody could do anything".to_owned());
        }
        let algorithm = |name: &String| {
            ALGORITHMS.iter().find(|(known, _)| known == name).map(|(_, algorithm)| *algorithm).ok_or_else(|| {
                let known: Vec<_> = ALGORITHMS.iter().map(|(known, _)| *known).collect();
                format!("`{name}` is no algorithm with a public key that is known here; known are {}", known.join(", "))
            })
        };
        let algorithms = config.algorithms.iter().map(algorithm).collect::<Result<Vec<_>, _>>()?;
        if algorithms.is_empty() {
            return Err("algorithms must not be empty".to_owned());
        }
        let keys = Keys::at(&config.jwks)?;
        Ok(Self { config, algorithms, keys })
    }

    /// Whom the token names.
    pub(super) async fn identify(&self, token: &str) -> Result<Identity, Refused> {
        let refused = |why: &str| Refused::Unknown(format!("this token is not accepted here: {why}"));
        if token.len() > LONGEST {
            return Err(refused("it is too long"));
        }
        // `none`, and whatever else is no algorithm, cannot be read at all.
        let header = decode_header(token).map_err(|_| refused("its header cannot be read"))?;
        if !self.algorithms.contains(&header.alg) {
            return Err(refused("it is signed with an algorithm that is not set"));
        }
        let key = self.keys.find(header.kid.as_deref(), header.alg).await.map_err(Refused::Issuer)?;
        let Some(key) = key else { return Err(refused("its key is none of the issuer's")) };
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        let decoded = decode::<Map<String, Value>>(token, &key, &validation);
        let claims = decoded.map_err(|error| refused(&why(error.kind())))?.claims;
        // One issuer, not one among several.
        if claims.get("iss").and_then(Value::as_str) != Some(&self.config.issuer) {
            return Err(refused("it has another issuer"));
        }
        let subject = claims.get("sub").and_then(Value::as_str).unwrap_or_default();
        if subject.is_empty() || subject.len() > LONGEST_SUBJECT || subject.chars().any(char::is_control) {
            return Err(refused("its subject is no name"));
        }
        let expiry = claims.get("exp").and_then(Value::as_f64).unwrap_or_default();
        // Far beyond any time, the number saturates.
        let until =
            chrono::DateTime::from_timestamp(expiry as i64, 0).unwrap_or(chrono::DateTime::<chrono::Utc>::MAX_UTC);
        let name = format!("oidc:{subject}");
        match self.role(&claims) {
            Some(role) => Ok(Identity { name, role, proof: Proof::Issuer(until) }),
            None => {
                let claim = &self.config.roles_claim;
                Err(Refused::NoRole(format!("`{name}` has no role here: no value of its claim `{claim}` gives one")))
            }
        }
    }

    /// The highest role that the claim gives.
    fn role(&self, claims: &Map<String, Value>) -> Option<Role> {
        let mut parts = self.config.roles_claim.split('.');
        // A name may have dots itself, as those that are URLs do.
        let found = claims.get(&self.config.roles_claim).or_else(|| {
            let first = claims.get(parts.next()?)?;
            parts.try_fold(first, |value, part| value.get(part))
        })?;
        let values: Vec<&str> = match found {
            Value::Array(values) => values.iter().filter_map(Value::as_str).collect(),
            // As scopes are written.
            Value::String(text) => std::iter::once(text.as_str()).chain(text.split_whitespace()).collect(),
            _ => Vec::new(),
        };
        let given = |role: &Role| values.iter().any(|value| self.config.roles.get(*value) == Some(role));
        Role::ALL.into_iter().rev().find(given)
    }
}

/// What is wrong with a token, in words. Nothing is told of its content before its signature was checked.
fn why(error: &ErrorKind) -> String {
    match error {
        ErrorKind::ExpiredSignature => "it has expired".to_owned(),
        ErrorKind::ImmatureSignature => "it is not valid yet".to_owned(),
        ErrorKind::InvalidAudience => "it is meant for another audience".to_owned(),
        ErrorKind::InvalidIssuer => "it has another issuer".to_owned(),
        ErrorKind::MissingRequiredClaim(claim) => {
            format!("its claim `{claim}` is missing, or is not what it should be")
        }
        _ => "its signature is wrong, or it cannot be read".to_owned(),
    }
}
