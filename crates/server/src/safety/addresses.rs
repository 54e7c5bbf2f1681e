//! Which IP addresses belong to the public internet.
//!
//! After the registries of special-purpose addresses (RFC 6890 and IANA's tables). Where those leave doubt, the answer is no: what is refused here can
//! still be allowed as a whole by who runs the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Networks of IPv4 that aren't public, as address, prefix length, what they are.
const REFUSED_V4: &[(Ipv4Addr, u32, &str)] = &[
    (Ipv4Addr::new(0, 0, 0, 0), 8, "an address of this network"),
    (Ipv4Addr::new(10, 0, 0, 0), 8, "a private address"),
    (Ipv4Addr::new(100, 64, 0, 0), 10, "an address of a provider's inner network"),
    (Ipv4Addr::new(127, 0, 0, 0), 8, "a loopback address"),
    (Ipv4Addr::new(169, 254, 0, 0), 16, "a link-local address"),
    (Ipv4Addr::new(172, 16, 0, 0), 12, "a private address"),
    (Ipv4Addr::new(192, 0, 0, 0), 24, "an address for protocols"),
    (Ipv4Addr::new(192, 0, 2, 0), 24, "a documentation address"),
    (Ipv4Addr::new(192, 88, 99, 0), 24, "a 6to4 relay"),
    (Ipv4Addr::new(192, 168, 0, 0), 16, "a private address"),
    (Ipv4Addr::new(198, 18, 0, 0), 15, "a benchmarking address"),
    (Ipv4Addr::new(198, 51, 100, 0), 24, "a documentation address"),
    (Ipv4Addr::new(203, 0, 113, 0), 24, "a documentation address"),
    (Ipv4Addr::new(224, 0, 0, 0), 4, "a multicast address"),
    (Ipv4Addr::new(240, 0, 0, 0), 4, "a reserved or broadcast address"),
];

/// The networks of IPv6 that aren't public although they lie in 2000::/3, the only part that is given out.
const REFUSED_V6: &[(Ipv6Addr, u32, &str)] = &[
    // Teredo, ORCHID, benchmarking and more. Teredo carries IPv4 addresses, which could be private ones.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23, "an address for protocols"),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32, "a documentation address"),
    // Carries an IPv4 address, which could be a private one; out of use since 2015 (RFC 7526).
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16, "a 6to4 address"),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20, "a documentation address"),
];

/// The part of IPv6 that is given out as public addresses.
const GIVEN_OUT: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Addresses by which networks of IPv6 alone reach IPv4 (RFC 6052).
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

/// Why an address isn't public, in words that follow "is"; none for a public one.
pub fn refusal(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => refusal_v6(address),
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let inside = |&&(network, length, _): &&(Ipv4Addr, u32, &str)| {
        let mask = u32::MAX << (32 - length);
        u32::from(address) & mask == u32::from(network)
    };
    REFUSED_V4.iter().find(inside).map(|(_, _, what)| *what)
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let inside = |network: Ipv6Addr, length: u32| {
        let mask = u128::MAX << (128 - length);
        u128::from(address) & mask == u128::from(network)
    };
    if inside(NAT64.0, NAT64.1) {
        let [.., a, b, c, d] = address.octets();
        return refusal_v4(Ipv4Addr::new(a, b, c, d));
    }
    if !inside(GIVEN_OUT.0, GIVEN_OUT.1) {
        return Some(match address.segments() {
            [0, 0, 0, 0, 0, 0, 0, 0] => "an address of this network",
            [0, 0, 0, 0, 0, 0, 0, 1] => "a loopback address",
            [0, 0, 0, 0, 0, 0xffff | 0, ..] => "an IPv4 address in IPv6 form",
            [0xfe80..=0xfebf, ..] => "a link-local address",
            [0xfc00..=0xfdff, ..] => "a private address",
            [0xff00..=0xffff, ..] => "a multicast address",
            _ => "no public address",
        });
    }
    REFUSED_V6.iter().find(|(network, length, _)| inside(*network, *length)).map(|(_, _, what)| *what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(address: &str) -> Option<&'static str> {
        refusal(address.parse().unwrap_or_else(|_| panic!("{address} is an address")))
    }

    #[test]
    fn public_addresses_are_public() {
        for address in [
            "1.1.1.1",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "93.184.216.34",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::1",
            "2001:4860:4860::8888",
            "2606:4700:4700::1111",
            "2a00:1450:4001:80b::200e",
            "3ffe::1",
            "64:ff9b::8.8.8.8",
        ] {
            assert_eq!(of(address), None, "{address}");
        }
    }

    #[test]
    fn both_ends_of_every_other_network_are_refused() {
        for address in [
            "0.0.0.0",
            "0.255.255.255",
            "10.0.0.0",
            "10.255.255.255",
            "100.64.0.0",
            "100.127.255.255",
            "127.0.0.0",
            "127.0.0.1",
            "127.255.255.255",
            "169.254.0.0",
            "169.254.169.254",
            "169.254.255.255",
            "172.16.0.0",
            "172.31.255.255",
            "192.0.0.0",
            "192.0.0.255",
            "192.0.2.0",
            "192.0.2.255",
            "192.88.99.1",
            "192.168.0.0",
            "192.168.255.255",
            "198.18.0.0",
            "198.19.255.255",
            "198.51.100.7",
            "203.0.113.7",
            "224.0.0.0",
            "239.255.255.255",
            "240.0.0.0",
            "255.255.255.255",
        ] {
            assert!(of(address).is_some(), "{address}");
            // The same hidden in IPv6.
            for prefix in ["::ffff:", "::", "64:ff9b::", "64:ff9b:1::", "::ffff:0:"] {
                assert!(of(&format!("{prefix}{address}")).is_some(), "{prefix}{address}");
            }
            let IpAddr::V4(embedded) = address.parse().expect("address") else { panic!("IPv4") };
            let [high, low] = [u32::from(embedded) >> 16, u32::from(embedded) & 0xffff];
            assert!(of(&format!("2002:{high:x}:{low:x}::1")).is_some(), "6to4 of {address}");
            assert!(of(&format!("2001:0:{high:x}:{low:x}::1")).is_some(), "Teredo of {address}");
        }
        for address in [
            "::",
            "::1",
            "::2",
            "::ffff:8.8.8.8",
            "::8.8.8.8",
            "fc00::",
            "fdff:ffff::1",
            "fd00:ec2::254",
            "fe80::1",
            "febf:ffff::1",
            "fec0::1",
            "feff::1",
            "ff00::",
            "ff02::1",
            "ffff::1",
            "100::1",
            "2001::1",
            "2001:2::1",
            "2001:10::1",
            "2001:1ff::1",
            "2001:db8::1",
            "2001:db8:ffff::1",
            "2002::1",
            "3fff::1",
            "3fff:fff::1",
            "4000::1",
            "1fff::1",
            "5f00::1",
            "64:ff9b:1::1",
            "64:ff9b:0:0:0:1::1",
        ] {
            assert!(of(address).is_some(), "{address}");
        }
        assert_eq!(of("169.254.169.254"), Some("a link-local address"));
        assert_eq!(of("64:ff9b::169.254.169.254"), Some("a link-local address"));
        assert_eq!(of("::ffff:127.0.0.1"), Some("an IPv4 address in IPv6 form"));
        assert_eq!(of("::1"), Some("a loopback address"));
    }
}
