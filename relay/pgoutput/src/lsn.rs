//! A position in the WAL.

use std::fmt;
use std::str::FromStr;

/// A byte position in PostgreSQL's WAL (log sequence number).
///
/// Shown as PostgreSQL shows it (`0/16B3748`), also parsed from that form.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(u64);

impl Lsn {
    /// No position: PostgreSQL's `InvalidXLogRecPtr`. As a start position it means "where the slot stands".
    pub const ZERO: Self = Self(0);

    /// From the 64-bit number of the protocol.
    #[must_use]
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// As the 64-bit number of the protocol.
    #[must_use]
    pub const fn as_u64(self) -> u64 {
        self.0
    }

    /// Bytes of WAL from `earlier` to this position; zero when `earlier` is not earlier.
    #[must_use]
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl fmt::Debug for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no LSN.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an LSN; it should look like 0/16B3748")]
pub struct ParseLsnError(String);

impl FromStr for Lsn {
    type Err = ParseLsnError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parse = || {
            let (high, low) = text.split_once('/')?;
            let half = |digits: &str| {
                let hex = (1..=8).contains(&digits.len())
                    && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
                hex.then(|| u64::from_str_radix(digits, 16).ok()).flatten()
            };
            Some(Self(half(high)? << 32 | half(low)?))
        };
        parse().ok_or_else(|| ParseLsnError(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_lsn_is_shown_and_read_as_postgresql_does() {
        for (text, position) in
            [("0/0", 0), ("0/16B3748", 0x16B_3748), ("1A/FFFFFFFF", 0x1A_FFFF_FFFF)]
        {
            assert_eq!(text.parse(), Ok(Lsn::new(position)));
            assert_eq!(Lsn::new(position).to_string(), text);
        }
    }

    #[test]
    fn what_is_no_lsn_is_refused() {
        for text in ["", "/", "0", "0/", "/0", "G/0", "0/+1", "100000000/0", "0/0/0"] {
            assert!(text.parse::<Lsn>().is_err(), "{text}");
        }
    }
}
