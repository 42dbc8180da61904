//! Checked reads from a message: every length is compared with what is there before it is used.

/// Why bytes from the server could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends before a field does.
    #[error("message ends within {field}: {needed} bytes needed, {left} left")]
    Truncated {
        /// The field that was being read.
        field: &'static str,
        /// Bytes that it needs.
        needed: usize,
        /// Bytes that were left.
        left: usize,
    },
    /// A text that is not UTF-8. The connection asks for `client_encoding=UTF8`.
    #[error("{field} is not UTF-8")]
    NotUtf8 {
        /// The field that was being read.
        field: &'static str,
    },
    /// A length below zero.
    #[error("{field} has the negative length {length}")]
    NegativeLength {
        /// The field that was being read.
        field: &'static str,
        /// The length as sent.
        length: i64,
    },
    /// A tag byte that this protocol version does not have.
    #[error("unknown {field} {tag:#04x}")]
    UnknownTag {
        /// What the tag selects.
        field: &'static str,
        /// The byte as sent.
        tag: u8,
    },
    /// Bytes behind the end of the message.
    #[error("{left} bytes are left behind a {message} message")]
    TrailingBytes {
        /// The kind of message.
        message: &'static str,
        /// How many bytes are left.
        left: usize,
    },
}

/// Walks over a message from its first byte to its last.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) const fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) const fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn bytes(
        &mut self,
        count: usize,
        field: &'static str,
    ) -> Result<&'a [u8], DecodeError> {
        let Some((taken, rest)) = self.rest.split_at_checked(count) else {
            return Err(DecodeError::Truncated { field, needed: count, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((taken, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(DecodeError::Truncated { field, needed: N, left: self.rest.len() });
        };
        self.rest = rest;
        Ok(*taken)
    }

    pub(crate) fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        self.array::<1>(field).map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        self.array(field).map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        self.array(field).map(u32::from_be_bytes)
    }

    pub(crate) fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        self.array(field).map(i32::from_be_bytes)
    }

    pub(crate) fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        self.array(field).map(i64::from_be_bytes)
    }

    pub(crate) fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        self.array(field).map(u64::from_be_bytes)
    }

    /// A length as the protocol sends it: a signed 32-bit number.
    pub(crate) fn length(&mut self, field: &'static str) -> Result<usize, DecodeError> {
        let length = self.i32(field)?;
        usize::try_from(length)
            .map_err(|_| DecodeError::NegativeLength { field, length: length.into() })
    }

    /// A text that ends with a zero byte.
    pub(crate) fn text(&mut self, field: &'static str) -> Result<&'a str, DecodeError> {
        let Some(end) = self.rest.iter().position(|&byte| byte == 0) else {
            let left = self.rest.len();
            return Err(DecodeError::Truncated { field, needed: left + 1, left });
        };
        let (text, rest) = self.rest.split_at(end);
        self.rest = rest.get(1..).unwrap_or_default();
        std::str::from_utf8(text).map_err(|_| DecodeError::NotUtf8 { field })
    }

    pub(crate) const fn end(&self, message: &'static str) -> Result<(), DecodeError> {
        match self.rest.len() {
            0 => Ok(()),
            left => Err(DecodeError::TrailingBytes { message, left }),
        }
    }
}
