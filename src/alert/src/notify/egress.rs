//! Where connections may go. Decided by address, after the name was resolved, so that no name leads astray.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// What the administrator allows besides public addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Egress {
    /// Whether receivers that ask for it may reach private addresses.
    pub private: bool,
    /// Addresses that are allowed whatever they are, such as a sink on the loopback.
    pub exceptions: Vec<Net>,
    /// Addresses that are never allowed, such as the API server's. This goes before everything else.
    pub denied: Vec<Net>,
}

/// Addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Net {
    address: IpAddr,
    prefix: u8,
}

/// Not a net.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address and no net: write 10.0.0.1 or 10.0.0.0/8")]
pub struct NetError(String);

impl From<IpAddr> for Net {
    fn from(address: IpAddr) -> Self {
        Self { address, prefix: if address.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Net {
    type Err = NetError;

    fn from_str(text: &str) -> Result<Self, NetError> {
        let error = || NetError(text.to_owned());
        let Some((address, prefix)) = text.split_once('/') else {
            return text.parse::<IpAddr>().map(Self::from).map_err(|_| error());
        };
        let whole = Self::from(address.parse::<IpAddr>().map_err(|_| error())?);
        let prefix: u8 = prefix.parse().map_err(|_| error())?;
        if prefix <= whole.prefix { Ok(Self { prefix, ..whole }) } else { Err(error()) }
    }
}

impl Net {
    fn contains(&self, address: IpAddr) -> bool {
        match (self.address, address) {
            (IpAddr::V4(net), IpAddr::V4(address)) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            (IpAddr::V6(net), IpAddr::V6(address)) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(self.prefix)).unwrap_or(0);
                net.to_bits() & mask == address.to_bits() & mask
            }
            _ => false,
        }
    }
}

/// What an address is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Public,
    Private,
    Never(&'static str),
}

impl Egress {
    /// Whether the administrator made an exception for an address.
    pub(crate) fn is_excepted(&self, address: IpAddr) -> bool {
        faces(address).iter().any(|face| self.exceptions.iter().any(|net| net.contains(*face)))
    }

    /// Whether a receiver may reach an address; why not, otherwise.
    pub(crate) fn check(&self, address: IpAddr, asks_for_private: bool) -> Result<(), &'static str> {
        let faces = faces(address);
        let within = |nets: &[Net]| faces.iter().any(|face| nets.iter().any(|net| net.contains(*face)));
        if within(&self.denied) {
            return Err("one that is denied");
        }
        if within(&self.exceptions) {
            return Ok(());
        }
        for face in faces {
            match kind(face) {
                Kind::Public => {}
                Kind::Private if self.private && asks_for_private => {}
                Kind::Private if asks_for_private => return Err("private, which the administrator doesn't allow"),
                Kind::Private => return Err("private, which the receiver doesn't allow"),
                Kind::Never(what) => return Err(what),
            }
        }
        Ok(())
    }
}

/// The address, and those that it is another notation for: translators and tunnels lead to the latter.
fn faces(address: IpAddr) -> Vec<IpAddr> {
    let address = address.to_canonical();
    let mut faces = vec![address];
    if let IpAddr::V6(six) = address {
        let [a, b, .., g, h] = six.segments();
        let four = |high: u16, low: u16| IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low)));
        match (a, b) {
            (0x64, 0xff9b) => faces.push(four(g, h)),
            (0x2002, _) => faces.push(four(b, six.segments()[2])),
            (0, 0) if six.segments()[..6] == [0; 6] => faces.push(four(g, h)),
            _ => {}
        }
    }
    faces
}

fn kind(address: IpAddr) -> Kind {
    match address {
        IpAddr::V4(address) => kind_of_four(address),
        IpAddr::V6(address) => kind_of_six(address),
    }
}

fn kind_of_four(address: Ipv4Addr) -> Kind {
    match address.octets() {
        [0, ..] => Kind::Never("unspecified"),
        [127, ..] => Kind::Never("a loopback"),
        [169, 254, ..] => Kind::Never("link-local"),
        [224..=239, ..] => Kind::Never("a multicast"),
        [240..=255, ..] => Kind::Never("reserved"),
        [10, ..] | [172, 16..=31, ..] | [192, 168, ..] | [100, 64..=127, ..] | [192, 0, 0, _] | [198, 18..=19, ..] => {
            Kind::Private
        }
        _ => Kind::Public,
    }
}

fn kind_of_six(address: Ipv6Addr) -> Kind {
    let [first, second, ..] = address.segments();
    if address.is_unspecified() {
        return Kind::Never("unspecified");
    }
    if address.is_loopback() {
        return Kind::Never("a loopback");
    }
    match first {
        0xfe80..=0xfebf => Kind::Never("link-local"),
        0xff00..=0xffff => Kind::Never("a multicast"),
        0xfc00..=0xfdff | 0xfec0..=0xfeff => Kind::Private,
        0x2001 if second == 0 => Kind::Never("a tunnel"),
        _ => Kind::Public,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(egress: &Egress, addresses: &[&str], asks: bool, expected: bool) {
        for address in addresses {
            let result = egress.check(address.parse().unwrap(), asks);
            assert_eq!(result.is_ok(), expected, "{address}: {result:?}");
        }
    }

    const PUBLIC: [&str; 4] = ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111"];
    const PRIVATE: [&str; 8] = [
        "10.0.0.1",
        "172.16.0.1",
        "192.168.1.1",
        "100.100.100.200",
        "fd00:ec2::254",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::",
    ];
    const NEVER: [&str; 13] = [
        "0.0.0.0",
        "127.0.0.1",
        "127.9.9.9",
        "169.254.169.254",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "fe80::1",
        "ff02::1",
        "::ffff:127.0.0.1",
        "64:ff9b::a9fe:a9fe",
        "::127.0.0.1",
    ];

    #[test]
    fn by_default_only_public_addresses_are_reached() {
        let egress = Egress::default();
        check(&egress, &PUBLIC, false, true);
        check(&egress, &PRIVATE, true, false);
        check(&egress, &NEVER, true, false);
    }

    #[test]
    fn private_addresses_need_both_the_administrator_and_the_receiver() {
        let egress = Egress { private: true, ..Egress::default() };
        check(&egress, &PRIVATE, true, true);
        check(&egress, &PRIVATE, false, false);
        check(&egress, &NEVER, true, false);
    }

    #[test]
    fn exceptions_allow_and_denials_go_before_everything() {
        let net = |text: &str| text.parse::<Net>().unwrap();
        let egress = Egress {
            private: true,
            exceptions: vec![net("127.0.0.0/8"), net("10.0.0.0/8")],
            denied: vec![net("10.0.0.1"), net("2606:4700::/32")],
        };
        check(&egress, &["127.0.0.1", "10.0.0.2", "::ffff:127.0.0.1"], false, true);
        check(&egress, &["10.0.0.1", "::ffff:10.0.0.1", "2606:4700::1111", "64:ff9b::a00:1"], true, false);
        for text in ["", "x", "10.0.0.0/33", "::/129", "10.0.0.0/-1"] {
            assert!(text.parse::<Net>().is_err(), "{text}");
        }
        assert!(net("0.0.0.0/0").contains("9.9.9.9".parse().unwrap()));
    }
}
