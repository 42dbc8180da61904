//! Infers the schema of a JSON document, with Debezium's surprises: the first element of an array decides, objects
//! of an array are merged at their first level only, and what has no schema is left out.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock};

use super::tree::{Kind, Node};
use super::{EmptyArrayBehavior, Expansion, NullBehavior};
use crate::data::{Field, Schema, Type};

static STRING: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Type::String));
static BOOLEAN: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Type::Boolean));
static INT32: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Type::Int32));
static INT64: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Type::Int64));
static FLOAT64: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Type::Float64));
static BYTES: LazyLock<Arc<Schema>> = LazyLock::new(|| optional(Type::Bytes));

fn optional(kind: Type) -> Arc<Schema> {
    Arc::new(Schema::new(kind).with_optional(true))
}

/// The schema of a node; none for a node that is left out. `path` names struct schemas.
pub(super) fn schema(
    expansion: &Expansion,
    path: Option<&str>,
    node: &Node,
) -> Result<Option<Arc<Schema>>, String> {
    Ok(match node {
        Node::Text(_) | Node::Utf16(_) => Some(Arc::clone(&STRING)),
        Node::Boolean(_) => Some(Arc::clone(&BOOLEAN)),
        Node::Int(_) => Some(Arc::clone(&INT32)),
        Node::Long(_) => Some(Arc::clone(&INT64)),
        Node::Double(_) | Node::BigInteger(_) => Some(Arc::clone(&FLOAT64)),
        Node::Null => match expansion.nulls {
            NullBehavior::Ignore => None,
            NullBehavior::OptionalBytes => Some(Arc::clone(&BYTES)),
        },
        Node::Array(elements) if elements.is_empty() => match expansion.empty_arrays {
            EmptyArrayBehavior::Ignore => None,
            EmptyArrayBehavior::OptionalString => Some(array_of(Arc::clone(&STRING))),
        },
        Node::Array(elements) => Some(array_of(element_schema(expansion, path, elements)?)),
        Node::Object(members) => Some(object(expansion, path, members)?),
    })
}

fn array_of(element: Arc<Schema>) -> Arc<Schema> {
    Arc::new(Schema::array(element).with_optional(true))
}

fn object(
    expansion: &Expansion,
    path: Option<&str>,
    members: &[(String, Node)],
) -> Result<Arc<Schema>, String> {
    let mut structure = Schema::new(Type::Struct).with_optional(true);
    structure.name = path.map(str::to_owned);
    let mut names = HashSet::new();
    for (member, value) in members {
        let name = expansion.names.field_name(member);
        let path = match path {
            Some(path) if !path.trim().is_empty() => format!("{path}.{name}"),
            _ => name.clone(),
        };
        let Some(schema) = schema(expansion, Some(&path), value)? else { continue };
        if names.contains(&name) {
            continue;
        }
        if name.is_empty() {
            return Err("a member has an empty name".to_owned());
        }
        names.insert(name.clone());
        structure.fields.push(Field { name, schema });
    }
    Ok(Arc::new(structure))
}

fn element_schema(
    expansion: &Expansion,
    path: Option<&str>,
    elements: &[Node],
) -> Result<Arc<Schema>, String> {
    let sample = sample(elements)?;
    if sample.kind() == Kind::Object {
        return merged_objects(expansion, path, elements);
    }
    let element = schema(expansion, None, sample)?;
    element.ok_or_else(|| "the elements of an array have no type that can be told".to_owned())
}

/// The first element that is not null; the others must be of its kind.
fn sample(elements: &[Node]) -> Result<&Node, String> {
    let Some(sample) = elements.iter().find(|element| element.kind() != Kind::Null) else {
        return Ok(&Node::Null);
    };
    for element in elements {
        if element.kind() != Kind::Null && element.kind() != sample.kind() {
            return Err("the elements of an array are of different types".to_owned());
        }
        if sample.kind() == Kind::Number
            && element.kind() == Kind::Number
            && number_type(sample) != number_type(element)
        {
            return Err("an array mixes 32 bit, 64 bit and fractional numbers".to_owned());
        }
    }
    Ok(sample)
}

const fn number_type(node: &Node) -> Type {
    match node {
        Node::Int(_) => Type::Int32,
        Node::Long(_) => Type::Int64,
        _ => Type::Float64,
    }
}

/// One schema for the objects of an array. Debezium merges the different schemas in the order of a hash set of
/// objects, which differs from run to run; here it is the order of the elements.
fn merged_objects(
    expansion: &Expansion,
    path: Option<&str>,
    elements: &[Node],
) -> Result<Arc<Schema>, String> {
    let mut different: Vec<Arc<Schema>> = Vec::new();
    for element in elements {
        let Node::Object(members) = element else { continue };
        let schema = object(expansion, path, members)?;
        if !different.contains(&schema) {
            different.push(schema);
        }
    }
    let merged = different.into_iter().reduce(|left, right| Arc::new(merge(&left, &right)));
    merged.ok_or_else(|| "the elements of an array have no type that can be told".to_owned())
}

/// Fields of both; a field that is only known as null takes the type of the other. The result is not optional, as
/// Connect's copy of a schema's basics leaves that out.
fn merge(left: &Schema, right: &Schema) -> Schema {
    let mut merged = Schema::new(Type::Struct);
    merged.name.clone_from(&left.name);
    merged.fields.clone_from(&left.fields);
    for field in &right.fields {
        match merged.fields.iter_mut().find(|known| known.name == field.name) {
            None => merged.fields.push(field.clone()),
            Some(known) => {
                if known.schema.kind == Type::Bytes && field.schema.kind != Type::Bytes {
                    *known = field.clone();
                }
            }
        }
    }
    merged
}
