//! The text of a token: `amends_<namespace>_<64 hexadecimal digits>`, so that whoever finds one in a log or a repository
//! sees what it is.

/// What every token of a store begins with.
const PREFIX: &str = "amends_";
/// Hexadecimal digits of 256 random bits.
const DIGITS: usize = 64;

/// The token of these random bits.
pub(crate) fn token_text(namespace: &str, secret: &[u8; 32]) -> String {
    format!("{PREFIX}{namespace}_{}", hex::encode(secret))
}

/// The namespace that a token names; `None` when it is none of a store's. Says nothing of whether it is a good one.
pub(crate) fn token_namespace(text: &str) -> Option<&str> {
    let (namespace, digits) = text.strip_prefix(PREFIX)?.rsplit_once('_')?;
    let is_random = digits.len() == DIGITS && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    (is_random && !namespace.is_empty()).then_some(namespace)
}

/// Whether this can be the name of a token: it stands in the audit log, and must not be taken for anybody else's there.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-' | '@');
    if name.is_empty() || name.len() > 64 || !name.chars().all(is_fine) {
        return Err("a name has 1 to 64 characters: letters, digits, `.`, `_`, `-`, `@`".to_owned());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_names_its_namespace() {
        let text = token_text("default", &[0xa5; 32]);
        assert_eq!(text, format!("amends_default_{}", "a5".repeat(32)));
        assert_eq!(token_namespace(&text), Some("default"));
        assert_eq!(token_namespace(&token_text("my_team-2", &[1; 32])), Some("my_team-2"));
        let digits = "0".repeat(64);
        for none in [
            "",
            "amends_",
            "s3cret",
            &digits,
            &format!("amends_{digits}"),
            &format!("amends__{digits}"),
            &format!("amends_default_{}", &digits[1..]),
            &format!("amends_default_{}G", &digits[1..]),
            &format!("other_default_{digits}"),
        ] {
            assert_eq!(token_namespace(none), None, "{none}");
        }
    }

    #[test]
    fn a_name_cannot_be_taken_for_that_of_an_issuers_user() {
        for name in ["ci", "anna@example.org", "a.b-c_d"] {
            assert_eq!(check_name(name), Ok(()), "{name}");
        }
        for name in ["", "oidc:anna", "a b", "a\nb", "ä", &"x".repeat(65)] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
