//! A parsed JSON document, as Jackson's tree model has it.

/// A node of the document.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Node {
    Null,
    Boolean(bool),
    Int(i32),
    Long(i64),
    /// An integer beyond 64 bits.
    BigInteger(String),
    Double(f64),
    Text(String),
    /// Text with half of a surrogate pair.
    Utf16(Vec<u16>),
    Array(Vec<Node>),
    /// Members in the order in which their names came first; the last value of a name counts.
    Object(Vec<(String, Node)>),
}

/// The kinds that an array must not mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Null,
    Boolean,
    Number,
    String,
    Array,
    Object,
}

impl Node {
    pub(super) const fn kind(&self) -> Kind {
        match self {
            Self::Null => Kind::Null,
            Self::Boolean(_) => Kind::Boolean,
            Self::Int(_) | Self::Long(_) | Self::BigInteger(_) | Self::Double(_) => Kind::Number,
            Self::Text(_) | Self::Utf16(_) => Kind::String,
            Self::Array(_) => Kind::Array,
            Self::Object(_) => Kind::Object,
        }
    }

    pub(super) fn member(&self, name: &str) -> Option<&Self> {
        match self {
            Self::Object(members) => {
                members.iter().find(|(member, _)| member == name).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}
