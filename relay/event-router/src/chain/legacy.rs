//! The transform that the outbox example of 2019 brought along: topic `<aggregatetype>Events`, value
//! `{eventType, ts_ms, payload}`, header `eventId`.

use std::sync::Arc;

use crate::change::{Change, Operation};
use crate::data::{DataError, Schema, Struct, Type, Value};
use crate::event::{Header, RouteError, RoutedEvent};

/// Options that the columns stand for in messages: this transform had none.
const OPTION: &str = "transforms.*.type (the transform of 2019)";

/// Routes a change; none for deletes. Any other change than an insert was an error.
pub(super) fn route_like_2019<'a>(
    change: Change<'_, 'a>,
) -> Result<Option<RoutedEvent<'a>>, RouteError> {
    let table = format!("{}.{}", change.table.schema, change.table.name);
    let after = match (change.operation, change.after) {
        (Operation::Delete, _) => return Ok(None),
        (Operation::Create, Some(after)) => after,
        (Operation::Update, _) => return Err(RouteError::UnexpectedUpdate { table }),
        _ => return Err(RouteError::NoRow { table }),
    };
    let column = |name: &str| {
        let index = change.table.index_of(name);
        let column = index.and_then(|index| Some((index, change.table.columns.get(index)?)));
        let (index, column) = column.ok_or_else(|| RouteError::MissingColumn {
            option: OPTION,
            column: name.to_owned(),
            table: table.clone(),
        })?;
        Ok::<_, RouteError>((Arc::clone(&column.schema), after.value(index)?))
    };
    let (_, aggregate_type) = column("aggregatetype")?;
    let (_, aggregate_id) = column("aggregateid")?;
    let (_, id) = column("id")?;
    let (type_schema, event_type) = column("type")?;
    let (payload_schema, payload) = column("payload")?;
    let ts_ms_schema = Arc::new(Schema::new(Type::Int64).with_optional(true));
    let schema = Arc::new(
        Schema::new(Type::Struct)
            .with_field("eventType", type_schema)
            .with_field("ts_ms", ts_ms_schema)
            .with_field("payload", payload_schema),
    );
    let values = vec![event_type, Value::Int64(change.event_ts_ms), payload];
    let text_schema = || Some(Arc::new(Schema::new(Type::String)));
    if !matches!(aggregate_type, Value::String(_)) {
        return Err(DataError("Field 'aggregatetype' is not of type STRING".to_owned()).into());
    }
    let mut headers = change.headers;
    headers.push(Header { name: "eventId".into(), schema: text_schema(), value: id });
    Ok(Some(RoutedEvent {
        topic: format!("{}Events", aggregate_type.to_java_text()),
        partition: None,
        key_schema: text_schema(),
        key: aggregate_id,
        value_schema: Some(Arc::clone(&schema)),
        value: Value::Struct(Box::new(Struct::from_parts(schema, values))),
        headers,
        timestamp: None,
    }))
}
