//! XChaCha20-Poly1305 over texts and keys. Nonces are random: with 192 bits none comes twice.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead, Payload as Message};
use chacha20poly1305::{KeyInit, XChaCha20Poly1305, XNonce};
use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use uuid::Uuid;

use crate::id::fresh_secret;

/// Bytes of a nonce.
const NONCE: usize = 24;

/// A secret of 32 bytes that encrypts.
#[derive(Clone)]
pub(super) struct Key([u8; 32]);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(..)")
    }
}

/// There is no random source.
#[derive(Clone, Copy, Debug)]
pub(super) struct NoRandom;

/// What was encrypted is not what is there, or was not encrypted with this key, or not for this place.
#[derive(Clone, Copy, Debug)]
pub(super) struct Broken;

impl Key {
    pub(super) fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(super) fn fresh() -> Result<Self, NoRandom> {
        fresh_secret().map(Self).map_err(|_| NoRandom)
    }

    fn encrypt(&self, message: &[u8], place: &[u8]) -> Result<([u8; NONCE], Vec<u8>), NoRandom> {
        let mut nonce = [0; NONCE];
        let random = fresh_secret().map_err(|_| NoRandom)?;
        nonce.copy_from_slice(&random[..NONCE]);
        let cipher = XChaCha20Poly1305::new(&self.0.into());
        // It only fails for messages of 256 GiB.
        let told = cipher.encrypt(&XNonce::from(nonce), Message { msg: message, aad: place });
        told.map(|told| (nonce, told)).map_err(|_| NoRandom)
    }

    fn decrypt(&self, nonce: [u8; NONCE], told: &[u8], place: &[u8]) -> Result<Vec<u8>, Broken> {
        let cipher = XChaCha20Poly1305::new(&self.0.into());
        cipher.decrypt(&XNonce::from(nonce), Message { msg: told, aad: place }).map_err(|_| Broken)
    }

    /// Encrypts another key, for this place.
    pub(super) fn wrap(&self, key: &Self, place: &str) -> Result<Vec<u8>, NoRandom> {
        let (nonce, told) = self.encrypt(&key.0, place.as_bytes())?;
        Ok([nonce.as_slice(), &told].concat())
    }

    /// The key that [`Key::wrap`] was given.
    pub(super) fn unwrap_key(&self, wrapped: &[u8], place: &str) -> Result<Self, Broken> {
        let (nonce, told) = wrapped.split_first_chunk::<NONCE>().ok_or(Broken)?;
        let bytes = self.decrypt(*nonce, told, place.as_bytes())?;
        bytes.try_into().map(Self).map_err(|_| Broken)
    }

    /// HMAC-SHA-256 of a hash.
    pub(super) fn keyed(&self, hash: &[u8; 32]) -> [u8; 32] {
        let Ok(mut mac) = <Hmac<Sha256> as hmac::KeyInit>::new_from_slice(&self.0) else { return *hash };
        mac.update(hash);
        mac.finalize().into_bytes().into()
    }
}

/// Encrypted text, as it stands in a column of type JSON.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Sealed {
    /// Of the body of a command that starts a sub-saga: which one, by which its family is found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    saga: Option<String>,
    /// The data key's id.
    #[serde(rename = "$sealed")]
    pub(super) key: Uuid,
    /// The nonce.
    n: String,
    /// What was encrypted.
    c: String,
}

impl Sealed {
    /// What `text` holds, if it is encrypted.
    pub(super) fn read(text: &str) -> Option<Self> {
        // Parsing every payload once more would cost more than decrypting it.
        let is_likely = text.starts_with("{\"") && text.contains("\"$sealed\":\"");
        is_likely.then(|| serde_json::from_str(text).ok()).flatten()
    }

    /// The text, decrypted.
    pub(super) fn open(&self, key: &Key, place: &str) -> Result<String, Broken> {
        let bytes = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Broken);
        let nonce: [u8; NONCE] = bytes(&self.n)?.try_into().map_err(|_| Broken)?;
        String::from_utf8(key.decrypt(nonce, &bytes(&self.c)?, place.as_bytes())?).map_err(|_| Broken)
    }
}

/// The data key that is written with.
#[derive(Clone, Debug)]
pub(super) struct Pen {
    pub(super) id: Uuid,
    pub(super) key: Key,
}

impl Pen {
    /// The text encrypted for this place, as JSON. `saga` stays readable in it.
    pub(super) fn seal(&self, text: &str, place: &str, saga: Option<&str>) -> Result<String, NoRandom> {
        let (nonce, told) = self.key.encrypt(text.as_bytes(), place.as_bytes())?;
        let (n, c) = (URL_SAFE_NO_PAD.encode(nonce), URL_SAFE_NO_PAD.encode(told));
        let sealed = Sealed { saga: saga.map(str::to_owned), key: self.id, n, c };
        serde_json::to_string(&sealed).map_err(|_| NoRandom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pen() -> Pen {
        Pen { id: Uuid::nil(), key: Key::new([7; 32]) }
    }

    #[test]
    fn what_was_sealed_opens_for_its_place_alone() {
        let text = r#"{"card":"4242"}"#;
        let sealed = pen().seal(text, "saga-1/input", None).expect("sealed");
        assert!(!sealed.contains("4242"));
        let read = Sealed::read(&sealed).expect("it is sealed");
        assert_eq!(read.open(&pen().key, "saga-1/input").expect("opened"), text);
        for (key, place) in
            [(pen().key, "saga-2/input"), (pen().key, "saga-1/output"), (Key::new([8; 32]), "saga-1/input")]
        {
            assert!(read.open(&key, place).is_err());
        }
    }

    #[test]
    fn equal_texts_look_different_each_time() {
        let seal = || pen().seal("1", "p", None).expect("sealed");
        assert_ne!(seal(), seal());
    }

    #[test]
    fn a_sub_sagas_name_stays_readable_and_cannot_be_lost() {
        let sealed = pen().seal("{}", "p", Some("refund")).expect("sealed");
        let value: serde_json::Value = serde_json::from_str(&sealed).expect("JSON");
        assert_eq!(value["saga"], "refund");
        assert!(Sealed::read(&sealed).is_some());
    }

    #[test]
    fn what_is_not_sealed_is_not_taken_for_it() {
        for text in ["{}", "1", r#"{"a":{"$sealed":"x"}}"#, r#"{"$sealed":"x","n":"","c":""}"#, "{\"$sealed\":\""] {
            assert!(Sealed::read(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_wrapped_key_comes_back_from_its_own_master_key_alone() {
        let (master, key) = (Key::new([1; 32]), Key::new([2; 32]));
        let wrapped = master.wrap(&key, "k").expect("wrapped");
        assert_eq!(master.unwrap_key(&wrapped, "k").expect("unwrapped").0, key.0);
        assert!(Key::new([3; 32]).unwrap_key(&wrapped, "k").is_err());
        assert!(master.unwrap_key(&wrapped, "other").is_err());
        assert!(master.unwrap_key(&[], "k").is_err());
    }
}
