//! Maps as Java prints them, for the messages that quote a configuration. Pure.

use super::storage::Properties;

/// `{b=2, a=1}`: what `HashMap.toString()` of a copy of the map gives, in the order of Java's hash buckets. Names that
/// share a bucket come in alphabetical order here, in that of the request there.
pub(super) fn hash_map(properties: &Properties) -> String {
    let entries = properties.len();
    // HashMap's copy constructor: the next power of two of the size over the load factor of 0.75.
    let buckets = (entries * 4 / 3 + 1).next_power_of_two();
    let mut ordered: Vec<_> = properties.iter().collect();
    ordered.sort_by_key(|(name, _)| bucket(name, buckets));
    let entry = |(name, value): &(&String, &Option<String>)| {
        format!("{name}={}", value.as_deref().unwrap_or("null"))
    };
    format!("{{{}}}", ordered.iter().map(entry).collect::<Vec<_>>().join(", "))
}

fn bucket(text: &str, buckets: usize) -> usize {
    let hash = text
        .encode_utf16()
        .fold(0_u32, |hash, unit| hash.wrapping_mul(31).wrapping_add(u32::from(unit)));
    let spread = hash ^ (hash >> 16);
    spread as usize & (buckets - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_is_that_of_java_s_buckets() {
        let names = "connector.class,tasks.max,database.hostname,database.port,database.password,\
                     database.dbname,topic.prefix,plugin.name,slot.name,publication.name,publication.autocreate.mode,\
                     snapshot.mode,schema.include.list,table.include.list,tombstones.on.delete,transforms,\
                     transforms.outbox.type,transforms.outbox.route.topic.replacement,\
                     transforms.outbox.table.fields.additional.placement,name";
        let all: Properties = names.split(',').map(|n| (n.to_owned(), Some("x".into()))).collect();
        let expected = "connector.class,publication.autocreate.mode,database.dbname,\
                        transforms.outbox.type,slot.name,tasks.max,\
                        transforms.outbox.table.fields.additional.placement,publication.name,transforms,\
                        schema.include.list,database.port,plugin.name,tombstones.on.delete,topic.prefix,\
                        database.hostname,transforms.outbox.route.topic.replacement,database.password,name,\
                        table.include.list,snapshot.mode";
        let expected: Vec<_> = expected.split(',').map(|name| format!("{name}=x")).collect();
        assert_eq!(hash_map(&all), format!("{{{}}}", expected.join(", ")));
    }

    #[test]
    fn nulls_are_written_as_such() {
        let map =
            Properties::from([("name".to_owned(), Some("7".to_owned())), ("a".to_owned(), None)]);
        assert_eq!(hash_map(&map), "{name=7, a=null}");
    }
}
