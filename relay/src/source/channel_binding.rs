//! What ties a password exchange to its TLS session: the hash of the server's certificate (RFC 5929,
//! `tls-server-end-point`). Who sits between us and the server has another certificate, and the exchange fails. Pure.

use sha2::{Digest as _, Sha256, Sha384, Sha512};

/// DER's tags of the two kinds of element that are looked at.
const SEQUENCE: u8 = 0x30;
const OBJECT_IDENTIFIER: u8 = 0x06;

/// 1.2.840.113549.1.1: signatures with RSA; the last number says with which hash.
const RSA: [u8; 8] = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01];
/// 1.2.840.10045.4.1: ECDSA with SHA-1.
const ECDSA_SHA1: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x01];
/// 1.2.840.10045.4.3: ECDSA with SHA-2; the last number says with which.
const ECDSA_SHA2: [u8; 7] = [0x2a, 0x86, 0x48, 0xce, 0x3d, 0x04, 0x03];

/// The hash of a certificate (DER). `None` where its signature has no hash that the RFC names (Ed25519, RSASSA-PSS): there
/// is no binding then.
pub(super) fn end_point(certificate: &[u8]) -> Option<Vec<u8>> {
    let (SEQUENCE, content, _) = element(certificate)? else { return None };
    let (SEQUENCE, _, after_body) = element(content)? else { return None };
    let (SEQUENCE, algorithm, _) = element(after_body)? else { return None };
    let (OBJECT_IDENTIFIER, identifier, _) = element(algorithm)? else { return None };
    let (last, before) = identifier.split_last()?;
    // MD5 and SHA-1 are replaced by SHA-256, says the RFC.
    let sha256 = || Some(Sha256::digest(certificate).to_vec());
    let sha384 = || Some(Sha384::digest(certificate).to_vec());
    let sha512 = || Some(Sha512::digest(certificate).to_vec());
    match (before, last) {
        (before, 4 | 5 | 11) if before == RSA => sha256(),
        (before, 12) if before == RSA => sha384(),
        (before, 13) if before == RSA => sha512(),
        (before, 2) if before == ECDSA_SHA2 => sha256(),
        (before, 3) if before == ECDSA_SHA2 => sha384(),
        (before, 4) if before == ECDSA_SHA2 => sha512(),
        _ if identifier == ECDSA_SHA1 => sha256(),
        _ => None,
    }
}

/// The first element of DER: its tag, its content, and what follows it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&[tag, first], rest) = der.split_first_chunk::<2>()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        // The length itself is so many bytes long; certificates stay far below four of them.
        0x81..=0x84 => {
            let (bytes, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
            let length = bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The outside of a certificate whose signature has this algorithm.
    fn certificate(algorithm: &[u8]) -> Vec<u8> {
        let wrap = |tag: u8, content: &[u8]| {
            let length = u8::try_from(content.len()).unwrap();
            [&[tag, length][..], content].concat()
        };
        let algorithm = wrap(SEQUENCE, &wrap(OBJECT_IDENTIFIER, algorithm));
        let body = wrap(SEQUENCE, b"names and keys");
        let signature = wrap(3, &[0, 1, 2]);
        wrap(SEQUENCE, &[body, algorithm, signature].concat())
    }

    #[test]
    fn the_hash_is_that_of_the_signature_but_never_a_weak_one() {
        let length = |prefix: &[u8], last: u8| {
            end_point(&certificate(&[prefix, &[last]].concat())).map(|hash| hash.len() * 8)
        };
        assert_eq!([4, 5, 11].map(|last| length(&RSA, last)), [Some(256); 3]);
        assert_eq!((length(&RSA, 12), length(&RSA, 13)), (Some(384), Some(512)));
        let ecdsa = [2, 3, 4].map(|last| length(&ECDSA_SHA2, last));
        assert_eq!(ecdsa, [Some(256), Some(384), Some(512)]);
        assert_eq!(end_point(&certificate(&ECDSA_SHA1)).map(|hash| hash.len()), Some(32));
        // RSASSA-PSS and Ed25519.
        assert_eq!(length(&RSA, 10), None);
        assert_eq!(end_point(&certificate(&[0x2b, 0x65, 0x70])), None);
    }

    #[test]
    fn bytes_that_are_no_certificate_have_no_hash() {
        let good = certificate(&[&RSA[..], &[11]].concat());
        for end in 0..good.len() {
            assert_eq!(end_point(&good[..end]), None);
        }
        for wrong in [&[0x30, 0x80][..], &[0x30, 0x84, 0xff, 0xff, 0xff, 0xff], b"-----BEGIN"] {
            assert_eq!(end_point(wrong), None);
        }
    }
}
