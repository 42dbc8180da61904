//! What PostgreSQL's catalogue says of types and columns.

use std::collections::HashMap;

/// Query for the types that are not built in, one row each for [`TypeRegistry::learn`]: OID, name, kind (`typtype`),
/// category, OID of the base type of a domain, its modifier, OID of the element of an array, labels of an enum.
pub const TYPE_QUERY: &str = "\
select t.oid::int8::text, t.typname::text, t.typtype::text, t.typcategory::text, t.typbasetype::int8::text, \
       t.typtypmod::text, case when t.typlen = -1 and t.typelem <> 0 then t.typelem::int8::text end, \
       (select array_to_string(array_agg(e.enumlabel::text order by e.enumsortorder), E'\\x1f') \
          from pg_enum e where e.enumtypid = t.oid) \
  from pg_type t where t.oid >= 16384 and t.typtype <> 'p'";

/// Query for the columns of a table (its OID as a literal for `{}`), one row each for [`Catalog::learn`]: name,
/// whether it may be null, default expression, place in the primary key, in place of which the first unique index by
/// name stands.
pub const COLUMN_QUERY: &str = "\
select a.attname::text, (not a.attnotnull)::text, \
       case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end, \
       array_position(i.indkey::int2[], a.attnum)::text \
  from pg_attribute a \
  left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum \
  left join lateral (select i.indkey from pg_index i join pg_class c on c.oid = i.indexrelid \
                      where i.indrelid = a.attrelid and (i.indisprimary or i.indisunique and i.indexprs is null) \
                      order by not i.indisprimary, c.relname limit 1) i on true \
 where a.attrelid = {} and a.attnum > 0 and not a.attisdropped";

/// Separator of the labels in [`TYPE_QUERY`]'s last column.
const LABEL_SEPARATOR: char = '\u{1f}';

/// A type that is not built in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PgType {
    /// Name.
    pub name: String,
    /// What it is.
    pub form: TypeForm,
}

/// What a type is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TypeForm {
    /// A base type of an extension, known by its name.
    Base,
    /// An enum and its labels, in order.
    Enum(Vec<String>),
    /// A domain over another type, with a modifier (-1 for none).
    Domain {
        /// OID of the type below.
        base: u32,
        /// Its modifier.
        modifier: i32,
    },
    /// An array.
    Array {
        /// OID of the elements' type.
        element: u32,
    },
    /// A composite, a range, or anything else that Debezium has no rule for.
    Other,
    /// Only the name is known, from the stream: taken as text.
    NameOnly,
}

/// The types that are not built in.
#[derive(Debug, Clone, Default)]
pub struct TypeRegistry {
    types: HashMap<u32, PgType>,
}

impl TypeRegistry {
    /// Takes a row of [`TYPE_QUERY`].
    pub fn learn(&mut self, row: &[Option<String>]) {
        let text = |index: usize| row.get(index).and_then(Option::as_deref);
        let Some(oid) = text(0).and_then(|oid| oid.parse().ok()) else { return };
        let name = text(1).unwrap_or_default().to_owned();
        let number = |index: usize| text(index).and_then(|number| number.parse().ok());
        let form = match (text(2), text(3)) {
            (Some("e"), _) => {
                let labels = text(7).unwrap_or_default();
                TypeForm::Enum(labels.split(LABEL_SEPARATOR).map(str::to_owned).collect())
            }
            (Some("d"), _) => TypeForm::Domain {
                base: number(4).unwrap_or_default(),
                modifier: text(5).and_then(|number| number.parse().ok()).unwrap_or(-1),
            },
            (_, Some("A")) => TypeForm::Array { element: number(6).unwrap_or_default() },
            (Some("b"), _) => TypeForm::Base,
            _ => TypeForm::Other,
        };
        self.types.insert(oid, PgType { name, form });
    }

    /// Takes a name that the stream told, where nothing better is known.
    pub fn learn_name(&mut self, oid: u32, name: &str) {
        let known = PgType { name: name.to_owned(), form: TypeForm::NameOnly };
        self.types.entry(oid).or_insert(known);
    }

    /// Whether a type is known.
    #[must_use]
    pub fn knows(&self, oid: u32) -> bool {
        self.types.contains_key(&oid)
    }

    pub(super) fn is_domain(&self, oid: u32) -> bool {
        matches!(self.get(oid), Some(PgType { form: TypeForm::Domain { .. }, .. }))
    }

    pub(super) fn get(&self, oid: u32) -> Option<&PgType> {
        self.types.get(&oid)
    }

    /// Name of a type that is not built in.
    pub(super) fn name(&self, oid: u32) -> Option<&str> {
        self.types.get(&oid).map(|known| known.name.as_str())
    }
}

/// What the catalogue says of a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnFacts {
    /// Whether it may be null.
    pub optional: bool,
    /// Its default, as an SQL expression.
    pub default: Option<String>,
    /// Place in the primary key, if it is part of it.
    pub key: Option<usize>,
}

/// The columns of a table.
#[derive(Debug, Clone, Default)]
pub struct Catalog {
    columns: HashMap<String, ColumnFacts>,
}

impl Catalog {
    /// Takes a row of [`COLUMN_QUERY`].
    pub fn learn(&mut self, row: &[Option<String>]) {
        let text = |index: usize| row.get(index).and_then(Option::as_deref);
        let Some(name) = text(0) else { return };
        let is_true = |index: usize| matches!(text(index), Some("true" | "t"));
        let facts = ColumnFacts {
            optional: is_true(1),
            default: text(2).map(str::to_owned),
            key: text(3).and_then(|place| place.parse().ok()),
        };
        self.columns.insert(name.to_owned(), facts);
    }

    pub(super) fn column(&self, name: &str) -> Option<&ColumnFacts> {
        self.columns.get(name)
    }
}
