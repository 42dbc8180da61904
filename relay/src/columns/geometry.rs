//! PostgreSQL's geometric types as Debezium's structs, with the shape in well-known binary.

use std::borrow::Cow;
use std::sync::Arc;

use event_router::data::{Schema, Struct, Value};

use super::kind::Kind;
use super::schema::{circle, geometry, line, point};

/// Shapes of well-known binary.
const WKB_POINT: u32 = 1;
const WKB_LINE_STRING: u32 = 2;
const WKB_POLYGON: u32 = 3;

type Point = (f64, f64);

/// The value of a geometric text.
pub(super) fn value(kind: &Kind, text: &str) -> Option<Value<'static>> {
    let numbers = numbers(text)?;
    let points: Vec<Point> = numbers.chunks_exact(2).map(|pair| (pair[0], pair[1])).collect();
    match kind {
        Kind::Point => match points.as_slice() {
            // The column decides whether the schema is optional; the struct takes either.
            [at] => Some(point_value(Arc::new(point().with_optional(true)), *at)),
            _ => None,
        },
        Kind::Box => match points.as_slice() {
            [(x1, y1), (x2, y2)] => {
                let ring = [(*x1, *y1), (*x1, *y2), (*x2, *y2), (*x2, *y1), (*x1, *y1)];
                Some(shape(polygon(&ring), &[("type", "box")]))
            }
            _ => None,
        },
        Kind::Segment => Some(shape(line_string(&points), &[("type", "lseg")])),
        Kind::Path => {
            let closed = if text.starts_with('(') { "true" } else { "false" };
            Some(shape(line_string(&points), &[("type", "path"), ("closed", closed)]))
        }
        Kind::Polygon => {
            let mut ring = points;
            if ring.len() >= 2 && ring.first() != ring.last() {
                ring.extend(ring.first().copied());
            }
            Some(shape(polygon(&ring), &[("type", "polygon")]))
        }
        Kind::Circle => match numbers.as_slice() {
            [x, y, radius] => {
                let center = point_value(Arc::new(point()), (*x, *y));
                Some(structure(circle(), vec![center, Value::Float64(*radius)]))
            }
            _ => None,
        },
        Kind::Line => match numbers.as_slice() {
            [a, b, c] => Some(structure(
                line(),
                vec![Value::Float64(*a), Value::Float64(*b), Value::Float64(*c)],
            )),
            _ => None,
        },
        _ => None,
    }
}

fn structure(schema: Schema, values: Vec<Value<'static>>) -> Value<'static> {
    Value::Struct(Box::new(Struct::from_parts(Arc::new(schema), values)))
}

fn point_value(schema: Arc<Schema>, (x, y): Point) -> Value<'static> {
    let mut wkb = header(WKB_POINT);
    push_point(&mut wkb, (x, y));
    let values =
        vec![Value::Float64(x), Value::Float64(y), Value::Bytes(Cow::Owned(wkb)), Value::Null];
    Value::Struct(Box::new(Struct::from_parts(schema, values)))
}

fn shape(wkb: Vec<u8>, extensions: &[(&'static str, &'static str)]) -> Value<'static> {
    let entries =
        extensions.iter().map(|(key, value)| (Value::text(key), Value::text(value))).collect();
    structure(geometry(), vec![Value::Bytes(Cow::Owned(wkb)), Value::Null, Value::Map(entries)])
}

/// Little endian, then the shape.
fn header(shape: u32) -> Vec<u8> {
    let mut wkb = vec![1];
    wkb.extend_from_slice(&shape.to_le_bytes());
    wkb
}

fn line_string(points: &[Point]) -> Vec<u8> {
    let mut wkb = header(WKB_LINE_STRING);
    push_points(&mut wkb, points);
    wkb
}

fn polygon(ring: &[Point]) -> Vec<u8> {
    let mut wkb = header(WKB_POLYGON);
    wkb.extend_from_slice(&1_u32.to_le_bytes());
    push_points(&mut wkb, ring);
    wkb
}

fn push_points(wkb: &mut Vec<u8>, points: &[Point]) {
    wkb.extend_from_slice(&u32::try_from(points.len()).unwrap_or(u32::MAX).to_le_bytes());
    points.iter().for_each(|point| push_point(wkb, *point));
}

fn push_point(wkb: &mut Vec<u8>, (x, y): Point) {
    wkb.extend_from_slice(&x.to_le_bytes());
    wkb.extend_from_slice(&y.to_le_bytes());
}

/// All numbers of a text, whatever the brackets between them.
fn numbers(text: &str) -> Option<Vec<f64>> {
    let is_bracket = |character: char| "()[]{}<>,".contains(character);
    text.split(is_bracket).filter(|part| !part.is_empty()).map(|part| part.parse().ok()).collect()
}
