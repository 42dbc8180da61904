//! How the values of a type are treated.

use super::catalog::{TypeForm, TypeRegistry};
use super::modes::ValueModes;

/// A kind of column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Boolean,
    Int16,
    Int32,
    Int64,
    Float32,
    Float64,
    /// Text and everything that is passed on as text without a schema name.
    Text,

    /// Text with a schema name and its version.
    Named(&'static str),
    /// `name`: Debezium makes a schema of it, but no value.
    Name,
    Enum(Vec<String>),
    Bytea,
    /// More than one bit; the length is a parameter of the schema.
    Bits(i32),
    /// One bit.
    Bit,
    Numeric {
        precision: i32,
        scale: i32,
    },
    /// `numeric` without a precision.
    VariableNumeric,
    Money,
    Date,
    Time(i32),
    TimeTz,
    Timestamp(i32),
    TimestampTz(i32),
    Interval,
    Hstore,
    Point,
    Box,
    Segment,
    Path,
    Polygon,
    Circle,
    Line,
    Array(Box<Kind>),
    /// An array that Debezium makes the schema of this kind of, but no value.
    Valueless(Box<Kind>),
    /// A type without a rule, passed on as the bytes of its text.
    Opaque,
}

/// Names of schemas of text.
const JSON: &str = "io.debezium.data.Json";
const UUID: &str = "io.debezium.data.Uuid";
const XML: &str = "io.debezium.data.Xml";
const TSVECTOR: &str = "io.debezium.data.Tsvector";
const LTREE: &str = "io.debezium.data.Ltree";

/// Precision of times where none is given.
const TIME_PRECISION_DEFAULT: i32 = 6;

/// Deepest nesting of domains.
const DOMAINS_MAX: usize = 32;

impl Kind {
    /// The kind of a type; none for types that Debezium leaves out.
    pub(super) fn of(
        types: &TypeRegistry,
        oid: u32,
        modifier: i32,
        modes: &ValueModes,
    ) -> Option<Self> {
        let kind = Self::find(types, oid, modifier, 0);
        kind.or_else(|| {
            (modes.include_unknown && !is_left_out_array(oid)).then(|| Self::unknown(types, oid))
        })
    }

    /// The kind of a type without a rule.
    fn unknown(types: &TypeRegistry, oid: u32) -> Self {
        let form = types.get(oid).map(|known| &known.form);
        if matches!(form, Some(TypeForm::Array { .. })) || is_array_without_rule(oid) {
            return Self::Array(Box::new(Self::Opaque));
        }
        Self::Opaque
    }

    fn find(types: &TypeRegistry, oid: u32, modifier: i32, depth: usize) -> Option<Self> {
        if let Some(kind) = built_in(oid, modifier) {
            return Some(kind);
        }
        if oid == BIT_ARRAY {
            return built_in(BIT, modifier).map(|kind| Self::Valueless(Box::new(kind)));
        }
        if let Some(element) = built_in_element(oid) {
            return built_in(element, modifier).map(Self::array_of);
        }
        let known = types.get(oid)?;
        match &known.form {
            TypeForm::Enum(labels) => Some(Self::Enum(labels.clone())),
            TypeForm::Domain { base, modifier: own } if depth < DOMAINS_MAX => {
                let modifier = if modifier == -1 { *own } else { modifier };
                Self::find(types, *base, modifier, depth + 1)
            }
            // Debezium does not see through a domain here.
            TypeForm::Array { element } if types.is_domain(*element) => None,
            TypeForm::Array { element } => {
                match Self::find(types, *element, modifier, depth + 1)? {
                    Self::Array(_) | Self::Valueless(_) => None,
                    kind => Some(Self::array_of(kind)),
                }
            }
            TypeForm::Base => extension(&known.name),
            TypeForm::NameOnly => Some(extension(&known.name).unwrap_or(Self::Text)),
            TypeForm::Domain { .. } | TypeForm::Other => None,
        }
    }

    fn array_of(element: Self) -> Self {
        let is_shape = matches!(
            element,
            Self::Box | Self::Segment | Self::Path | Self::Polygon | Self::Circle | Self::Line
        );
        let array = Self::Array(Box::new(element));
        if is_shape { Self::Valueless(Box::new(array)) } else { array }
    }

    /// Whether an element of this kind must not be null in the schema of an array.
    pub(super) fn is_required_in_array(&self) -> bool {
        matches!(self, Self::Enum(_) | Self::Opaque | Self::Named(TSVECTOR))
    }

    /// Whether masks and truncations apply: the character types of JDBC.
    pub(super) const fn is_character(&self) -> bool {
        matches!(self, Self::Text | Self::Name)
    }
}

/// Types of extensions that Debezium knows.
fn extension(name: &str) -> Option<Kind> {
    Some(match name {
        "citext" | "isbn" => Kind::Text,
        "ltree" => Kind::Named(LTREE),
        "hstore" => Kind::Hstore,
        _ => return None,
    })
}

/// OIDs of `bit` and its array.
const BIT: u32 = 1560;
const BIT_ARRAY: u32 = 1561;

/// Types that come with PostgreSQL; numbers are OIDs of `pg_type.dat`.
fn built_in(oid: u32, modifier: i32) -> Option<Kind> {
    let precision = if modifier < 0 { TIME_PRECISION_DEFAULT } else { modifier };
    Some(match oid {
        16 => Kind::Boolean,
        17 => Kind::Bytea,
        // "char", text, bpchar, varchar; cidr, inet, macaddr, macaddr8; the ranges.
        18 | 25 | 1042 | 1043 | 650 | 869 | 829 | 774 | 3904 | 3906 | 3908 | 3910 | 3912 | 3926 => {
            Kind::Text
        }
        19 => Kind::Name,
        21 => Kind::Int16,
        23 => Kind::Int32,
        20 | 26 => Kind::Int64,
        700 => Kind::Float32,
        701 => Kind::Float64,
        114 | 3802 => Kind::Named(JSON),
        142 => Kind::Named(XML),
        2950 => Kind::Named(UUID),
        3614 => Kind::Named(TSVECTOR),
        790 => Kind::Money,
        1082 => Kind::Date,
        1083 => Kind::Time(precision),
        1266 => Kind::TimeTz,
        1114 => Kind::Timestamp(precision),
        1184 => Kind::TimestampTz(precision),
        1186 => Kind::Interval,
        BIT | 1562 => match modifier {
            1 => Kind::Bit,
            length if length > 1 => Kind::Bits(length),
            _ => Kind::Bits(i32::MAX),
        },
        1700 if modifier < 0 => Kind::VariableNumeric,
        1700 => {
            let packed = modifier.wrapping_sub(4);
            Kind::Numeric { precision: packed >> 16 & 0xffff, scale: packed & 0xffff }
        }
        600 => Kind::Point,
        601 => Kind::Segment,
        602 => Kind::Path,
        603 => Kind::Box,
        604 => Kind::Polygon,
        628 => Kind::Line,
        718 => Kind::Circle,
        _ => return None,
    })
}

/// Element types of the arrays that come with PostgreSQL and have a rule.
const fn built_in_element(array: u32) -> Option<u32> {
    Some(match array {
        1000 => 16,
        1001 => 17,
        1002 => 18,
        1005 => 21,
        1007 => 23,
        1016 => 20,
        1028 => 26,
        1009 => 25,
        1014 => 1042,
        1015 => 1043,
        1021 => 700,
        1022 => 701,
        1182 => 1082,
        1183 => 1083,
        1270 => 1266,
        1115 => 1114,
        1185 => 1184,
        1231 => 1700,
        199 => 114,
        3807 => 3802,
        2951 => 2950,
        651 => 650,
        1041 => 869,
        1040 => 829,
        775 => 774,
        3905 => 3904,
        3907 => 3906,
        3909 => 3908,
        3911 => 3910,
        3913 => 3912,
        3927 => 3926,
        3643 => 3614,
        1018 => 601,
        1019 => 602,
        1020 => 603,
        1027 => 604,
        629 => 628,
        719 => 718,
        _ => return None,
    })
}

/// Arrays that Debezium leaves out even when unknown types are included: money, name, interval, varbit, xml, point,
/// refcursor.
const fn is_left_out_array(oid: u32) -> bool {
    matches!(oid, 791 | 1003 | 1187 | 1563 | 143 | 1017 | 2201)
}

/// Arrays that come with PostgreSQL whose elements have no rule: tid, xid, cid, the types of catalogue entries, pg_lsn,
/// tsquery, txid_snapshot, jsonpath, xid8 and the multiranges.
const fn is_array_without_rule(oid: u32) -> bool {
    matches!(
        oid,
        271 | 1008
            | 1010..=1012
            | 2207..=2211
            | 2949
            | 3221
            | 3645
            | 3735
            | 3770
            | 4073
            | 4090
            | 4097
            | 4192
            | 5039
            | 6150..=6157
    )
}
