//! The source offset that a connector's next task begins with.

use std::sync::Arc;

use super::Supervisor;
use crate::source_offset::SourceOffset;

impl Supervisor {
    /// The source offset that the next task begins with; an error that says what to do where there can be none.
    pub(super) fn stored_offset(&self, key: &str) -> Result<Option<SourceOffset>, String> {
        let offsets = self.storage.offsets();
        let Some(stored) = offsets.get(&self.name, key) else { return Ok(None) };
        let offset = SourceOffset::from_json(stored).map_err(|error| {
            format!(
                "the stored source offset {stored} cannot be read: {error}; stop the connector, correct or delete the \
                 offset (PATCH or DELETE /connectors/<name>/offsets), and resume it"
            )
        })?;
        if offset.is_within_snapshot() {
            return Err(format!(
                "the stored source offset {stored} is of an initial snapshot that did not end; let the worker that began \
                 it end it, or stop the connector, delete its offsets and its replication slot, and resume it: the \
                 snapshot is then taken anew"
            ));
        }
        Ok(Some(offset))
    }

    /// Reads it anew. What cannot be read now was read when the task began, or stops it at its next start.
    pub(super) fn stored_now(
        &self,
        key: &str,
    ) -> Box<dyn Fn() -> Option<SourceOffset> + Send + Sync> {
        let (storage, name, key) = (Arc::clone(&self.storage), self.name.clone(), key.to_owned());
        Box::new(move || {
            let offsets = storage.offsets();
            offsets.get(&name, &key).and_then(|stored| SourceOffset::from_json(stored).ok())
        })
    }
}
