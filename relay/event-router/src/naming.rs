//! Names made safe for Avro, as Debezium's `field.name.adjustment.mode` and `schema.name.adjustment.mode` make them.

/// How names are adjusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum NameAdjustment {
    /// Names stay as they are.
    #[default]
    None,
    /// What Avro does not allow becomes an underscore.
    Avro,
    /// What Avro does not allow becomes `_uXXXX`, and an underscore is doubled.
    AvroUnicode,
}

impl NameAdjustment {
    /// Reads Debezium's value.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "none" => Some(Self::None),
            "avro" => Some(Self::Avro),
            "avro_unicode" => Some(Self::AvroUnicode),
            _ => None,
        }
    }

    /// A name of a schema; dots separate its parts and stay.
    #[must_use]
    pub fn schema_name(self, name: &str) -> String {
        self.adjust(name, |unit| is_plain(unit) || unit == DOT)
    }

    /// A name of a field.
    #[must_use]
    pub fn field_name(self, name: &str) -> String {
        self.adjust(name, is_plain)
    }

    fn adjust(self, name: &str, allowed: impl Fn(u16) -> bool) -> String {
        if self == Self::None {
            return name.to_owned();
        }
        let unicode = self == Self::AvroUnicode;
        let mut adjusted = String::with_capacity(name.len());
        for (index, unit) in name.encode_utf16().enumerate() {
            let is_digit = (DIGIT_ZERO..=DIGIT_NINE).contains(&unit);
            let first = index == 0;
            let is_allowed = allowed(unit)
                && !(first && (is_digit || unit == DOT))
                && !(unicode && unit == UNDERSCORE);
            if is_allowed {
                adjusted.extend(char::from_u32(u32::from(unit)));
            } else if unicode {
                adjusted.push_str("_u");
                // Debezium pads one and two digits with two zeros, three with none.
                adjusted.push_str(if unit <= 0xff { "00" } else { "" });
                adjusted.push_str(&format!("{unit:x}"));
            } else {
                adjusted.push('_');
                if first && is_digit {
                    adjusted.extend(char::from_u32(u32::from(unit)));
                }
            }
        }
        adjusted
    }
}

/// Name of a schema as Debezium makes it even without an adjustment: the parts of a topic's name that are not legal
/// in a topic become underscores.
#[must_use]
pub fn topic_safe(name: &str) -> String {
    /// Longest name of a topic that Kafka takes, in characters.
    const NAME_LENGTH_MAX: usize = 249;
    if name == "." || name == ".." {
        return "_".repeat(name.len());
    }
    name.encode_utf16()
        .take(NAME_LENGTH_MAX)
        .map(|unit| {
            let legal = is_plain(unit) || unit == DOT || unit == u16::from(b'-');
            if legal { char::from_u32(u32::from(unit)).unwrap_or('_') } else { '_' }
        })
        .collect()
}

const DOT: u16 = b'.' as u16;
const UNDERSCORE: u16 = b'_' as u16;
const DIGIT_ZERO: u16 = b'0' as u16;
const DIGIT_NINE: u16 = b'9' as u16;

fn is_plain(unit: u16) -> bool {
    u8::try_from(unit).is_ok_and(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_safe_for_avro() {
        assert_eq!(NameAdjustment::Avro.field_name("1st-col"), "_1st_col");
        assert_eq!(NameAdjustment::Avro.field_name("first.name"), "first_name");
        assert_eq!(
            NameAdjustment::Avro.schema_name("golden.public.My_Outbox-2"),
            "golden.public.My_Outbox_2"
        );
        assert_eq!(NameAdjustment::AvroUnicode.field_name("a-b_c"), "a_u002db_u005fc");
        assert_eq!(NameAdjustment::AvroUnicode.field_name("1é€"), "_u0031_u00e9_u20ac");
        assert_eq!(NameAdjustment::None.field_name("1-"), "1-");
    }

    #[test]
    fn table_names_are_made_legal_topic_names() {
        assert_eq!(topic_safe("golden.public.Бандероль"), "golden.public._________");
        assert_eq!(topic_safe("golden.public.My Outbox-2"), "golden.public.My_Outbox-2");
    }
}
