//! Sessions: what a cookie holds instead of the token, and what forms carry to show that they are the console's own.
//!
//! A session names its token by the token's hash and is signed with a key of the store, so that every coordinator of a
//! deployment knows it, and it ends when the token is taken away. The session of a token that an issuer has signed says
//! itself who it is, and lasts no longer than that token.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use subtle::ConstantTimeEq;

use crate::api::auth::{Identity, Proof};
use crate::clock::Timestamp;
use crate::console::House;
use crate::console::failure::Failure;
use crate::id::fresh_secret;

/// How long a session lasts, in seconds: a working day and a bit.
const LASTS: i64 = 12 * 3_600;
/// What follows the expiry: the hash of a token, or a role's place among all roles and a name.
const TOKEN: u8 = 0;
const ISSUER: u8 = 1;

impl House {
    async fn key(&self) -> Result<[u8; 32], Failure> {
        let make = || async {
            let fresh = fresh_secret().map_err(|error| Failure::internal(error.to_string()))?;
            let keys = self.store().token_keys(fresh).await?;
            // The oldest: sessions go on when a new one is added.
            let oldest = keys.iter().min_by_key(|key| key.id).ok_or_else(|| Failure::internal("no key"))?;
            // With the namespace, should stores ever be copies of each other.
            let namespace = self.namespace();
            let name = if namespace.is_default() { "" } else { namespace.as_str() };
            Ok(sign(&oldest.secret, "amends console", name.as_bytes()))
        };
        self.0.key.get_or_try_init(make).await.copied()
    }

    /// The cookie for whoever has shown this token.
    pub(super) async fn session(&self, identity: &Identity) -> Result<String, Failure> {
        let until = self.now().timestamp() + LASTS;
        let mut bytes = Vec::new();
        match identity.proof {
            Proof::Token(sha256) => {
                bytes.extend_from_slice(&until.to_be_bytes());
                bytes.push(TOKEN);
                bytes.extend_from_slice(&sha256);
            }
            Proof::Issuer(holds) => {
                bytes.extend_from_slice(&until.min(holds.timestamp()).to_be_bytes());
                bytes.push(ISSUER);
                bytes.extend_from_slice(format!("{} {}", identity.role.as_str(), identity.name).as_bytes());
            }
        }
        let tag = sign(&self.key().await?, "session", &bytes);
        bytes.extend_from_slice(&tag);
        // Whose it is stands before it, to be found by; that it is so is in the signature.
        Ok(self.namespace().prefix(&URL_SAFE_NO_PAD.encode(bytes)))
    }

    /// Whom a cookie stands for, if it is one of this deployment's and its token is still good.
    pub(super) async fn known(&self, cookie: &str, now: Timestamp) -> Result<Option<Identity>, Failure> {
        let Some(cookie) = cookie.strip_prefix(&self.namespace().prefix("")) else { return Ok(None) };
        let Ok(bytes) = URL_SAFE_NO_PAD.decode(cookie) else { return Ok(None) };
        let Some((told, tag)) = bytes.split_last_chunk::<32>() else { return Ok(None) };
        let is_ours = bool::from(sign(&self.key().await?, "session", told).ct_eq(tag));
        let (Some((expiry, rest)), true) = (told.split_first_chunk::<8>(), is_ours) else { return Ok(None) };
        let expiry = i64::from_be_bytes(*expiry);
        if expiry <= now.timestamp() {
            return Ok(None);
        }
        match rest.split_first() {
            Some((&TOKEN, hash)) => match <[u8; 32]>::try_from(hash) {
                Ok(hash) => Ok(self.0.auth.find_hash(hash).await?),
                Err(_) => Ok(None),
            },
            // Nobody's word holds any longer where the issuer is not set any more.
            Some((&ISSUER, who)) if self.0.auth.has_issuer() => Ok(std::str::from_utf8(who).ok().and_then(|who| {
                let (role, name) = who.split_once(' ')?;
                let until = chrono::DateTime::from_timestamp(expiry, 0)?;
                Some(Identity { name: name.to_owned(), role: role.parse().ok()?, proof: Proof::Issuer(until) })
            })),
            _ => Ok(None),
        }
    }

    /// What each form of this session carries.
    pub(super) async fn csrf(&self, session: &str) -> Result<String, Failure> {
        Ok(URL_SAFE_NO_PAD.encode(sign(&self.key().await?, "form", session.as_bytes())))
    }
}

fn sign(key: &[u8; 32], what: &str, bytes: &[u8]) -> [u8; 32] {
    // HMAC takes keys of every length.
    let Ok(mut mac) = Hmac::<Sha256>::new_from_slice(key) else { return [0; 32] };
    mac.update(what.as_bytes());
    mac.update(&[0]);
    mac.update(bytes);
    mac.finalize().into_bytes().into()
}
