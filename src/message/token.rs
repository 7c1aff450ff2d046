//! The attempt token: names a command and an attempt and is signed, so that a reply is checked without a look-up
//! (guarantee 13).

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use uuid::Uuid;

use crate::id::{CommandId, SagaId, Seq};

/// version, key id, saga id, seq, attempt.
const CLAIMS: usize = 1 + 2 + 16 + 4 + 4;
/// HMAC-SHA-256 cut to 128 bits.
const TAG: usize = 16;
const VERSION: u8 = 1;

/// A secret that signs tokens. Kept in the store, so that every coordinator of a deployment has the same.
#[derive(Clone)]
pub struct TokenKey {
    /// Names the key inside the token, so that keys can be rotated.
    pub id: u16,
    /// 32 random bytes.
    pub secret: [u8; 32],
}

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TokenKey({}, …)", self.id)
    }
}

/// All keys that are accepted. Signs with the one of the highest id.
#[derive(Clone, Debug)]
pub struct TokenKeys(Vec<TokenKey>);

/// A token is not one that this deployment has given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the token is not one that this deployment has given out")]
pub struct ForgedToken;

impl TokenKeys {
    /// Takes the keys as the store keeps them; `None` when there is none.
    pub fn new(mut keys: Vec<TokenKey>) -> Option<Self> {
        keys.sort_by_key(|key| key.id);
        (!keys.is_empty()).then_some(Self(keys))
    }

    /// The token of one attempt.
    pub fn sign(&self, command: CommandId, attempt: u32) -> String {
        let Some(key) = self.0.last() else { return String::new() };
        let mut bytes = Vec::with_capacity(CLAIMS + TAG);
        bytes.push(VERSION);
        bytes.extend_from_slice(&key.id.to_be_bytes());
        bytes.extend_from_slice(command.saga.0.as_bytes());
        bytes.extend_from_slice(&command.seq.0.to_be_bytes());
        bytes.extend_from_slice(&attempt.to_be_bytes());
        let tag = mac(key, &bytes).finalize().into_bytes();
        bytes.extend_from_slice(&tag[..TAG]);
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// The command and attempt that a token names.
    ///
    /// # Errors
    /// [`ForgedToken`], whatever is wrong with it: a caller learns nothing about how close a guess was.
    pub fn verify(&self, token: &str) -> Result<(CommandId, u32), ForgedToken> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| ForgedToken)?;
        if bytes.len() != CLAIMS + TAG || bytes[0] != VERSION {
            return Err(ForgedToken);
        }
        let (claims, tag) = bytes.split_at(CLAIMS);
        let id = u16::from_be_bytes([claims[1], claims[2]]);
        let key = self.0.iter().find(|key| key.id == id).ok_or(ForgedToken)?;
        // Compares in constant time.
        mac(key, claims).verify_truncated_left(tag).map_err(|_| ForgedToken)?;
        let saga = Uuid::from_slice(&claims[3..19]).map_err(|_| ForgedToken)?;
        let number = |at: usize| u32::from_be_bytes([claims[at], claims[at + 1], claims[at + 2], claims[at + 3]]);
        Ok((CommandId { saga: SagaId(saga), seq: Seq(number(19)) }, number(23)))
    }
}

/// The saga that a token names, whoever wrote it: to show things by, and nothing more.
pub fn claimed_saga(token: &str) -> Option<SagaId> {
    let bytes =
        URL_SAFE_NO_PAD.decode(token).ok().filter(|bytes| bytes.len() == CLAIMS + TAG && bytes[0] == VERSION)?;
    Uuid::from_slice(bytes.get(3..19)?).ok().map(SagaId)
}

fn mac(key: &TokenKey, claims: &[u8]) -> Hmac<Sha256> {
    // HMAC pads a short key with zeros to the hash's block; doing so here leaves nothing that can fail.
    let mut block = [0; 64];
    block[..32].copy_from_slice(&key.secret);
    let mut mac = <Hmac<Sha256> as KeyInit>::new(&block.into());
    mac.update(claims);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(ids: &[u16]) -> TokenKeys {
        TokenKeys::new(ids.iter().map(|&id| TokenKey { id, secret: [id.to_be_bytes()[1]; 32] }).collect())
            .expect("keys")
    }

    fn command() -> CommandId {
        CommandId { saga: SagaId(Uuid::from_u128(7)), seq: Seq(3) }
    }

    #[test]
    fn a_token_names_its_command_and_attempt() {
        let keys = keys(&[1]);
        assert_eq!(keys.verify(&keys.sign(command(), 2)), Ok((command(), 2)));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let keys = keys(&[1]);
        let token = URL_SAFE_NO_PAD.decode(keys.sign(command(), 2)).expect("base64");
        for at in 0..token.len() {
            let mut forged = token.clone();
            forged[at] ^= 1;
            assert_eq!(keys.verify(&URL_SAFE_NO_PAD.encode(forged)), Err(ForgedToken), "byte {at}");
        }
    }

    #[test]
    fn a_rotated_key_still_verifies_and_the_newest_signs() {
        let (old, both) = (keys(&[1]), keys(&[1, 2]));
        assert_eq!(both.verify(&old.sign(command(), 1)), Ok((command(), 1)));
        assert_eq!(old.verify(&both.sign(command(), 1)), Err(ForgedToken));
    }

    #[test]
    fn text_that_is_no_token_is_refused() {
        for text in ["", "x", "====", "\u{0}", &"A".repeat(10_000)] {
            assert_eq!(keys(&[1]).verify(text), Err(ForgedToken));
        }
    }
}
