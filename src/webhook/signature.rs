//! Signatures as Standard Webhooks has them: HMAC-SHA-256 over id, time and body.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

/// What a secret begins with.
const PREFIX: &str = "whsec_";

/// A secret that signs; shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

impl Secret {
    /// Reads `whsec_` and 24 to 64 bytes in base64.
    ///
    /// # Errors
    /// What it should be; never what it is.
    pub fn parse(text: &str) -> Result<Self, String> {
        let expected = "expected `whsec_` and 24 to 64 bytes in base64";
        let encoded = text.trim().strip_prefix(PREFIX).ok_or(expected)?;
        let bytes = STANDARD.decode(encoded).map_err(|_| expected)?;
        if !(24..=64).contains(&bytes.len()) {
            return Err(format!("{expected}; these are {}", bytes.len()));
        }
        Ok(Self(bytes))
    }

    fn sign(&self, content: &[u8]) -> Option<String> {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.0).ok()?;
        mac.update(content);
        Some(format!("v1,{}", STANDARD.encode(mac.finalize().into_bytes())))
    }
}

/// The header `webhook-signature`: one signature for each secret, parted by spaces.
pub fn sign(secrets: &[Secret], id: &str, timestamp: i64, body: &str) -> String {
    let content = format!("{id}.{timestamp}.{body}");
    let signatures: Vec<String> = secrets.iter().filter_map(|secret| secret.sign(content.as_bytes())).collect();
    signatures.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From the reference implementation's own test.
    const KNOWN: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn the_signature_is_that_of_the_reference_implementation() {
        let secrets = [Secret::parse(KNOWN).expect("a secret")];
        let signed = sign(&secrets, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, r#"{"test": 2432232314}"#);
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn each_secret_gives_a_signature_of_its_own() {
        let other = format!("{PREFIX}{}", STANDARD.encode([7; 32]));
        let secrets = [KNOWN, &other].map(|secret| Secret::parse(secret).expect("a secret"));
        let both = sign(&secrets, "id", 1, "{}");
        let each: Vec<String> =
            secrets.iter().map(|secret| sign(std::slice::from_ref(secret), "id", 1, "{}")).collect();
        assert_eq!(both.split(' ').collect::<Vec<_>>(), each);
        assert_ne!(each[0], each[1]);
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_shown() {
        for wrong in ["", "whsec_", "hunter2", "whsec_hunter2", "whsec_aHVudGVyMg=="] {
            let problem = Secret::parse(wrong).expect_err("refused");
            assert!(!problem.contains("hunter2") && !problem.contains("aHVudGVyMg"), "{problem}");
        }
        let shown = format!("{:?}", Secret::parse(KNOWN).expect("a secret"));
        assert_eq!(shown, "Secret(…)");
    }
}
