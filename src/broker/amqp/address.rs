//! Where a broker is, and how that is shown.

use std::sync::Arc;

use lapin::uri::AMQPUri;

use crate::broker::BrokerError;

/// Seconds between heartbeats. A connection that is half open is noticed after two of them.
const HEARTBEAT: u16 = 5;
/// Milliseconds that the TCP connection may take to open.
const CONNECTION_TIMEOUT: u64 = 5_000;
/// AMQP's limit for a virtual host's name, in bytes.
const LONGEST_VHOST: usize = 255;

/// A broker's address. Is shown without the password.
#[derive(Clone)]
pub(super) struct Address {
    uri: AMQPUri,
    masked: Arc<str>,
}

impl Address {
    pub(super) fn parse(url: &str) -> Result<Self, BrokerError> {
        let masked = mask(url);
        let wrong = |problem: String| BrokerError::Address { address: masked.clone(), problem };
        let mut uri: AMQPUri = url.parse().map_err(|problem: String| wrong(problem.replace(url, &masked)))?;
        if uri.vhost.len() > LONGEST_VHOST {
            return Err(wrong(format!("the virtual host's name is longer than {LONGEST_VHOST} bytes")));
        }
        if let Some(host) = ipv6_host(url) {
            uri.authority.host = host.to_owned();
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        uri.query.connection_timeout.get_or_insert(CONNECTION_TIMEOUT);
        Ok(Self { uri, masked: masked.into() })
    }

    /// With the password: for connecting only.
    pub(super) fn uri(&self) -> AMQPUri {
        self.uri.clone()
    }

    pub(super) fn masked(&self) -> &str {
        &self.masked
    }

    pub(super) fn unreachable(&self, problem: impl ToString) -> BrokerError {
        BrokerError::Unreachable { address: self.masked.to_string(), problem: problem.to_string() }
    }
}

/// What follows the credentials.
fn after_credentials(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, host)| host)
}

/// The address in `[…]`, which the parser takes for no host at all and reads as localhost.
fn ipv6_host(url: &str) -> Option<&str> {
    after_credentials(url).strip_prefix('[')?.split_once(']').map(|(host, _)| host)
}

/// The address without its password and query. A password may hold any of `/?@:` where it should have been escaped.
fn mask(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return "(not a URL)".to_owned() };
    let host = after_credentials(url).split('?').next().unwrap_or_default();
    match rest.rsplit_once('@') {
        Some((credentials, _)) => {
            let user = credentials.split(':').next().unwrap_or_default();
            format!("{scheme}://{user}:***@{host}")
        }
        None => format!("{scheme}://{host}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{Address, mask};
    use crate::broker::BrokerError;

    #[test]
    fn an_address_is_shown_without_its_password() {
        assert_eq!(mask("amqp://anna:secret@host:5672/%2f"), "amqp://anna:***@host:5672/%2f");
        assert_eq!(mask("amqp://anna:s@cr@t@host"), "amqp://anna:***@host");
        assert_eq!(mask("amqp://anna:sec/ret?@host/shop"), "amqp://anna:***@host/shop");
        assert_eq!(mask("amqp://host?password=secret"), "amqp://host");
        assert_eq!(mask("amqp://host"), "amqp://host");
        assert_eq!(mask("anna:secret"), "(not a URL)");
    }

    #[test]
    fn an_address_that_is_none_is_refused_without_its_password() {
        let long = format!("amqp://anna:secret@host/{}", "v".repeat(256));
        let bad = ["amqp://anna:sec/ret@host", "amqp://anna:secret@host:port", "amqp://anna:secret@host?heartbeat=x"];
        for url in bad.into_iter().chain([&*long]) {
            let Err(error) = Address::parse(url) else { panic!("{url} is taken") };
            assert!(matches!(error, BrokerError::Address { .. }), "{error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("sec") && !shown.contains("ret"), "{shown}");
        }
    }

    #[test]
    fn an_ipv6_host_is_kept() {
        let address = Address::parse("amqp://anna:secret@[::1]:5673/shop").expect("an address");
        assert_eq!((&*address.uri.authority.host, address.uri.authority.port), ("::1", 5673));
        assert_eq!(address.uri.vhost, "shop");
    }
}
