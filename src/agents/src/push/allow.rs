//! Where deliveries may go: denied unless a rule here says otherwise. Pure.
//!
//! A rule is a host name (`hooks.example.com`), a suffix (`.example.com`), an address or a network
//! (`10.1.0.0/16`), or `*` for every name. A name stands for what is reachable for everybody: an
//! address of this machine, of a private network or of a group is allowed by a network only.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// A rule that cannot be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// The rule.
    pub rule: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { rule } = self;
        write!(f, "a host name, a `.suffix`, an address, a network or `*`, was {rule:?}")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Rule {
    Any,
    Name(String),
    Suffix(String),
    Network { address: IpAddr, bits: u8 },
}

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AllowList {
    rules: Vec<Rule>,
}

impl AllowList {
    /// The list of these rules.
    ///
    /// # Errors
    /// The first rule that cannot be read.
    pub fn parse(rules: &[String]) -> Result<Self, Malformed> {
        let rules = rules
            .iter()
            .map(|rule| Rule::parse(rule).ok_or_else(|| Malformed { rule: rule.clone() }));
        Ok(Self { rules: rules.collect::<Result<_, _>>()? })
    }

    /// The list of those rules that can be read.
    pub(crate) fn lenient(rules: &[String]) -> Self {
        Self { rules: rules.iter().filter_map(|rule| Rule::parse(rule)).collect() }
    }

    /// Whether a host may be delivered to at this address.
    pub fn permits(&self, host: &str, address: IpAddr) -> bool {
        let address = plain(address);
        let named = |rule: &Rule| rule.names(host);
        self.rules.iter().any(|rule| rule.contains(address))
            || (is_public(address) && self.rules.iter().any(named))
    }
}

impl Rule {
    fn parse(text: &str) -> Option<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == "*" {
            return Some(Self::Any);
        }
        if let Some((address, bits)) = text.split_once('/') {
            let address = plain(address.parse().ok()?);
            let bits: u8 = bits.parse().ok()?;
            return (bits <= width(address)).then_some(Self::Network { address, bits });
        }
        if let Ok(address) = text.trim_matches(['[', ']']).parse() {
            let address = plain(address);
            return Some(Self::Network { address, bits: width(address) });
        }
        let is_name = |name: &str| {
            let label = |label: &str| {
                !label.is_empty()
                    && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            };
            name.len() <= 253 && name.split('.').all(label)
        };
        match text.strip_prefix("*.").or_else(|| text.strip_prefix('.')) {
            Some(suffix) => is_name(suffix).then(|| Self::Suffix(format!(".{suffix}"))),
            None => is_name(&text).then_some(Self::Name(text)),
        }
    }

    fn names(&self, host: &str) -> bool {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        match self {
            Self::Any => host.parse::<IpAddr>().is_err(),
            Self::Name(name) => *name == host,
            Self::Suffix(suffix) => host.ends_with(suffix),
            Self::Network { .. } => false,
        }
    }

    fn contains(&self, address: IpAddr) -> bool {
        let Self::Network { address: network, bits } = self else { return false };
        if width(*network) != width(address) {
            return false;
        }
        let shift = u32::from(width(address) - bits);
        let head = |address: IpAddr| number(address).checked_shr(shift).unwrap_or(0);
        head(*network) == head(address)
    }
}

fn width(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

fn number(address: IpAddr) -> u128 {
    match address {
        IpAddr::V4(address) => u128::from(u32::from(address)),
        IpAddr::V6(address) => u128::from(address),
    }
}

/// An IPv4 address that is written as an IPv6 one is the IPv4 one.
fn plain(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or(address, IpAddr::V4),
        IpAddr::V4(_) => address,
    }
}

/// Whether an address is one that everybody may reach.
fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => is_public_v4(address),
        IpAddr::V6(address) => is_public_v6(address),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_loopback()
        || address.is_private()
        || address.is_link_local()
        || address.is_multicast()
        || address.is_documentation()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a, b, c) == (192, 0, 0)
        || (a, b, c) == (192, 88, 99)
        || (a == 198 && (18..20).contains(&b)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let [first, second, ..] = address.segments();
    // Only what is given out to be routed (2000::/3), without what stands for an IPv4 address or
    // for nobody in particular.
    first & 0xe000 == 0x2000
        && first != 0x2002
        && (first, second) != (0x2001, 0)
        && (first, second) != (0x2001, 0x0db8)
        && (first, second & 0xfff0) != (0x2001, 0x0010)
        && (first, second & 0xfff0) != (0x2001, 0x0020)
        && first & 0xfff0 != 0x3ff0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn permits(rules: &[&str], host: &str, address: &str) -> bool {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        AllowList::parse(&rules).unwrap().permits(host, address.parse().unwrap())
    }

    #[test]
    fn nothing_is_permitted_without_a_rule() {
        assert!(!permits(&[], "example.com", "93.184.216.34"));
    }

    #[test]
    fn a_name_stands_for_public_addresses_only() {
        let rules = ["hooks.example.com", ".trusted.example", "*.other.example"];
        assert!(permits(&rules, "hooks.example.com", "93.184.216.34"));
        assert!(permits(&rules, "Hooks.Example.com.", "93.184.216.34"));
        assert!(permits(&rules, "a.trusted.example", "2606:2800:220:1::1"));
        assert!(permits(&rules, "b.other.example", "93.184.216.34"));
        assert!(!permits(&rules, "trusted.example", "93.184.216.34"));
        assert!(!permits(&rules, "eviltrusted.example", "93.184.216.34"));
        assert!(!permits(&rules, "hooks.example.com.evil", "93.184.216.34"));
        for inside in [
            "127.0.0.1",
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "169.254.169.254",
            "0.0.0.0",
            "224.0.0.1",
            "100.64.0.1",
            "255.255.255.255",
            "::1",
            "::",
            "fe80::1",
            "fc00::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "64:ff9b::7f00:1",
            "2002:7f00:1::",
            "2001:db8::1",
        ] {
            assert!(!permits(&["*", "hooks.example.com"], "hooks.example.com", inside), "{inside}");
        }
    }

    #[test]
    fn a_network_stands_for_its_addresses() {
        assert!(permits(&["127.0.0.1"], "127.0.0.1", "127.0.0.1"));
        assert!(permits(&["127.0.0.1"], "anything.example", "::ffff:127.0.0.1"));
        assert!(permits(&["10.1.0.0/16"], "10.1.2.3", "10.1.2.3"));
        assert!(!permits(&["10.1.0.0/16"], "10.2.2.3", "10.2.2.3"));
        assert!(permits(&["::1"], "localhost", "::1"));
        assert!(permits(&["0.0.0.0/0"], "h", "10.0.0.1"));
        assert!(!permits(&["0.0.0.0/0"], "h", "::1"));
        assert!(!permits(&["*"], "93.184.216.34", "93.184.216.34"), "a number is no name");
    }

    #[test]
    fn what_is_no_rule_is_named() {
        for rule in ["", "a b", "10.0.0.0/33", "http://x", "a..b", "x:80", "10.0.0.0/x"] {
            let given = [rule.to_owned()];
            assert_eq!(AllowList::parse(&given).unwrap_err().rule, rule);
        }
    }
}
