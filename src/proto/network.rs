//! Networks of addresses, and who is let in by where it comes from.
//!
//! An IPv4 address in IPv6 form is the IPv4 address everywhere here, so that no list can be
//! passed by spelling an address otherwise.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the same bits. Those after them are zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network {
    first: IpAddr,
    prefix: u8,
}

/// Why a text is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotANetwork {
    /// What stands before the `/` is no address.
    #[error("it is no address (names are not looked up)")]
    Address,
    /// What stands after the `/` is no number, or more bits than the address has.
    #[error("its prefix is no number of bits of such an address")]
    Prefix,
    /// Bits beyond the prefix are set: was one host meant, or its whole network?
    #[error("it has bits beyond its prefix; the network is {0}")]
    HostBits(Network),
}

impl FromStr for Network {
    type Err = NotANetwork;

    /// `10.0.0.0/8`, `2001:db8::/32`, or an address alone.
    fn from_str(text: &str) -> Result<Self, NotANetwork> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NotANetwork::Address)?;
        let bits = width(address);
        let prefix = match prefix {
            None => bits,
            Some(digits) if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) => {
                return Err(NotANetwork::Prefix);
            }
            Some(digits) => digits.parse().map_err(|_| NotANetwork::Prefix)?,
        };
        if prefix > bits {
            return Err(NotANetwork::Prefix);
        }
        // Networks within ::ffff:0:0/96 are IPv4 networks.
        let (address, prefix) = match (address, address.to_canonical()) {
            (IpAddr::V6(_), IpAddr::V4(v4)) if prefix >= 96 => (IpAddr::V4(v4), prefix - 96),
            _ => (address, prefix),
        };
        let network = Self {
            first: masked(address, prefix),
            prefix,
        };
        match network.first == address {
            true => Ok(network),
            false => Err(NotANetwork::HostBits(network)),
        }
    }
}

impl Network {
    /// Whether `address`, in its canonical form, is one of them.
    fn contains(&self, address: IpAddr) -> bool {
        self.first.is_ipv4() == address.is_ipv4() && masked(address, self.prefix) == self.first
    }

    /// Whether it is every address of its family.
    pub const fn is_everything(&self) -> bool {
        self.prefix == 0
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.first, self.prefix)
    }
}

/// Bits of an address.
const fn width(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The address without what stands behind its first `prefix` bits.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let prefix = u32::from(prefix);
    match address {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - prefix.min(32)).unwrap_or(0);
            Ipv4Addr::from_bits(v4.to_bits() & mask).into()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - prefix.min(128)).unwrap_or(0);
            Ipv6Addr::from_bits(v6.to_bits() & mask).into()
        }
    }
}

/// Several networks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks(Vec<Network>);

impl Networks {
    /// Whether one of them has `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<Network> for Networks {
    fn from_iter<I: IntoIterator<Item = Network>>(networks: I) -> Self {
        Self(networks.into_iter().collect())
    }
}

/// Who may come in. What is denied stays out, whatever is allowed: so one address can be
/// taken out of an allowed network, and no entry can be undone by a longer one elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Access {
    /// `None`: everybody who is not denied.
    pub allow: Option<Networks>,
    /// These never.
    pub deny: Networks,
}

impl Access {
    /// Whether `address` may come in.
    pub fn admits(&self, address: IpAddr) -> bool {
        let is_allowed = |allow: &Networks| allow.contains(address);
        !self.deny.contains(address) && self.allow.as_ref().is_none_or(is_allowed)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn network(text: &str) -> Network {
        text.parse().expect(text)
    }

    fn networks(texts: &[&str]) -> Networks {
        texts.iter().map(|text| network(text)).collect()
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    #[test]
    fn a_network_has_the_addresses_that_begin_like_it() {
        let cases = [
            ("10.0.0.0/8", "10.255.255.255", true),
            ("10.0.0.0/8", "11.0.0.0", false),
            ("192.0.2.7", "192.0.2.7", true),
            ("192.0.2.7", "192.0.2.6", false),
            ("192.0.2.6/31", "192.0.2.7", true),
            ("0.0.0.0/0", "255.255.255.255", true),
            ("0.0.0.0/0", "::1", false),
            ("::/0", "2001:db8::1", true),
            ("::/0", "192.0.2.1", false),
            ("2001:db8::/32", "2001:db8:ffff::", true),
            ("2001:db8::/32", "2001:db9::", false),
            ("::1", "::1", true),
            // One address, one spelling.
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("::ffff:10.0.0.0/104", "10.1.2.3", true),
            ("::ffff:10.0.0.1", "10.0.0.1", true),
        ];
        for (written, address, contained) in cases {
            let found = networks(&[written]).contains(ip(address));
            assert_eq!(found, contained, "{written} and {address}");
        }
        assert!(!Networks::default().contains(ip("10.0.0.1")));
    }

    #[test]
    fn what_is_no_network_is_refused_with_its_reason() {
        use NotANetwork::{Address, HostBits, Prefix};
        let cases = [
            ("", Address),
            ("/8", Address),
            ("example.com", Address),
            ("10.0.0", Address),
            ("010.0.0.1", Address),
            ("[::1]", Address),
            ("fe80::1%eth0", Address),
            ("10.0.0.1:80", Address),
            ("10.0.0.0/", Prefix),
            ("10.0.0.0/33", Prefix),
            ("::/129", Prefix),
            ("10.0.0.0/+8", Prefix),
            ("10.0.0.0/8/8", Prefix),
            ("10.0.0.0/999", Prefix),
            ("10.0.0.1/8", HostBits(network("10.0.0.0/8"))),
            ("2001:db8::1/64", HostBits(network("2001:db8::/64"))),
        ];
        for (text, reason) in cases {
            assert_eq!(text.parse::<Network>(), Err(reason), "{text:?}");
        }
    }

    #[test]
    fn who_is_denied_stays_out_even_of_an_allowed_network() {
        let access = Access {
            allow: Some(networks(&["10.0.0.0/8", "192.0.2.1"])),
            deny: networks(&["10.1.0.0/16"]),
        };
        let cases = [
            ("10.0.0.1", true),
            ("10.1.0.1", false),
            ("192.0.2.1", true),
            ("192.0.2.2", false),
            ("::ffff:10.1.0.1", false),
        ];
        for (address, admitted) in cases {
            assert_eq!(access.admits(ip(address)), admitted, "{address}");
        }
        assert!(Access::default().admits(ip("::1")));
        let nobody = Access {
            deny: networks(&["0.0.0.0/0", "::/0"]),
            ..Access::default()
        };
        assert!(!nobody.admits(ip("192.0.2.1")));
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(bits: u128, prefix in 0..=128u8, v4: bool) {
            let address = match v4 {
                true => IpAddr::from(Ipv4Addr::from_bits(bits as u32)),
                false => IpAddr::from(Ipv6Addr::from_bits(bits)),
            };
            let prefix = prefix.min(width(address));
            let first = masked(address, prefix);
            if first == first.to_canonical() {
                let network = Network { first, prefix };
                prop_assert_eq!(network.to_string().parse(), Ok(network));
                prop_assert!(network.contains(address));
            }
        }

        #[test]
        fn no_text_panics(text in "[0-9a-f:./]{0,24}") {
            let _read = text.parse::<Network>();
        }
    }
}
