//! Which addresses a webhook may have. What stands in the settings is a name, and names lead where their owners like: into
//! this machine, into the network around it, to the cloud's own services. So the addresses that a name has are looked
//! at, and the connection goes to just those: a name that gives another answer a moment later gains nothing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// Why an address is refused: in a word that tells nothing about what is there. `None` when it is public.
pub fn refused(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refused_v4(address),
        IpAddr::V6(address) => refused_v6(address),
    }
}

fn refused_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [a, b, c, _] = address.octets();
    match (a, b, c) {
        (0, ..) => Some("this network"),
        (127, ..) => Some("loopback"),
        (10, ..) | (172, 16..=31, _) | (192, 168, _) => Some("private"),
        (100, 64..=127, _) => Some("shared by carriers"),
        // 169.254.169.254 is where clouds keep what only a machine itself may know.
        (169, 254, _) => Some("link-local"),
        (192, 0, 0) | (192, 88, 99) | (192, 31, 196) | (192, 52, 193) | (192, 175, 48) => Some("reserved"),
        (192, 0, 2) | (198, 51, 100) | (203, 0, 113) => Some("for documentation"),
        (198, 18..=19, _) => Some("for benchmarks"),
        (224..=239, ..) => Some("multicast"),
        (240.., ..) => Some("reserved"),
        _ => None,
    }
}

fn refused_v6(address: Ipv6Addr) -> Option<&'static str> {
    let segments = address.segments();
    let last = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        Ipv4Addr::new(a, b, c, d)
    };
    match segments {
        [0, 0, 0, 0, 0, 0, 0, 0] => Some("unspecified"),
        [0, 0, 0, 0, 0, 0, 0, 1] => Some("loopback"),
        // An IPv4 address in IPv6: mapped, translated, compatible, translated by NAT64.
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0, 0, 0, 0, 0, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => refused_v4(last(high, low)),
        [0x2002, high, low, ..] => refused_v4(last(high, low)).or(Some("reserved")),
        [0x64, 0xff9b, 1, ..] => Some("private"),
        [first, ..] if first & 0xfe00 == 0xfc00 => Some("private"),
        [first, ..] if first & 0xffc0 == 0xfe80 => Some("link-local"),
        [first, ..] if first & 0xffc0 == 0xfec0 => Some("private"),
        [first, ..] if first & 0xff00 == 0xff00 => Some("multicast"),
        [0x2001, 0x0db8, ..] | [0x3fff, 0..=0x0fff, ..] => Some("for documentation"),
        [0x2001, 0..=0x01ff, ..] | [0x5f00, ..] => Some("reserved"),
        // Everything that is given out so far begins like this.
        [first, ..] if first & 0xe000 != 0x2000 => Some("reserved"),
        _ => None,
    }
}

/// Looks at the address that stands in a URL as such, if one does.
///
/// # Errors
/// Why it is refused.
pub fn check_literal(url: &Url) -> Result<(), String> {
    let host = url.host_str().ok_or("it names no host")?;
    // However it was written: the URL's own rules have made one form of decimal, octal and hexadecimal ones.
    let address: Result<IpAddr, _> = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address.ok().and_then(refused) {
        Some(why) => Err(told(host, why)),
        None => Ok(()),
    }
}

fn told(host: &str, why: &str) -> String {
    format!("the address of `{host}` is {why}; allow_private = true allows it")
}

/// Looks names up and gives public addresses only. One that is not refuses the name: nobody can tell which one is meant.
#[derive(Clone, Copy, Debug)]
pub(super) struct Public;

impl Resolve for Public {
    fn resolve(&self, name: Name) -> Resolving {
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            match found.iter().find_map(|address| refused(address.ip())) {
                Some(why) => Err(told(name.as_str(), why).into()),
                None => Ok(Box::new(found.into_iter()) as Addrs),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_pass_in_whatever_form() {
        for refused_one in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.0.0.170",
            "192.168.1.1",
            "198.18.0.1",
            "203.0.113.9",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::ffff:0:10.0.0.1",
            "::127.0.0.1",
            "64:ff9b::10.0.0.1",
            "64:ff9b:1::1",
            "2002:7f00:1::",
            "2001::1",
            "2001:db8::1",
            "fc00::1",
            "fd00:ec2::254",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
            "3fff::1",
            "5f00::1",
            "4000::1",
        ] {
            let address: IpAddr = refused_one.parse().expect("an address");
            assert!(refused(address).is_some(), "{refused_one} passes");
        }
        for public in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:8.8.8.8"]
        {
            let address: IpAddr = public.parse().expect("an address");
            assert_eq!(refused(address), None, "{public} is refused");
        }
    }

    #[test]
    fn an_address_in_a_url_is_seen_however_it_is_written() {
        for url in [
            "http://127.0.0.1/",
            "http://2130706433/",
            "http://0x7f000001/",
            "http://0177.0.0.1/",
            "http://127.1/",
            "http://0/",
            "http://[::1]/",
            "http://[::ffff:127.0.0.1]/",
            "http://[::ffff:7f00:1]/",
            "http://169.254.169.254/latest/meta-data/",
            "http://2852039166/",
            "https://user:pw@10.0.0.1:8443/",
            "http://１２７.0.0.1/",
        ] {
            let problem = check_literal(&Url::parse(url).expect("a URL")).expect_err(url);
            assert!(problem.contains("allow_private"), "{problem}");
        }
        assert_eq!(check_literal(&Url::parse("https://example.org/hook").expect("a URL")), Ok(()));
    }
}
