//! Leaves the log of a partition as a broker leaves it that forgot the end of a transaction.

use std::fs;

use anyhow::{Context as _, Result, ensure};

use super::Kafka;

/// In front of each batch: its first offset (8 bytes) and the length of what follows (4).
const BATCH_HEAD: usize = 12;
/// Where a batch has its attributes, and the bit for one that holds a marker.
const ATTRIBUTES: usize = 21;
const CONTROL: u16 = 0x20;

impl Kafka {
    /// Takes the last batch of a partition away, which must be the marker of a commit or an abort. Only after
    /// [`Kafka::kill`]: then the broker reads its logs again at its next start.
    ///
    /// # Errors
    /// When something else stands at the end.
    pub fn take_last_marker(&self, topic: &str, partition: i32) -> Result<()> {
        ensure!(self.pid().is_none(), "the broker runs");
        let data = self.home.join("data");
        let folder = data.join(format!("{topic}-{partition}"));
        let log = folder.join("00000000000000000000.log");
        let bytes = fs::read(&log).with_context(|| format!("read {}", log.display()))?;
        let mut last = 0;
        loop {
            let head = bytes.get(last..last + BATCH_HEAD).context("a batch")?;
            let length = u32::from_be_bytes([head[8], head[9], head[10], head[11]]);
            let next = last + BATCH_HEAD + usize::try_from(length)?;
            if next >= bytes.len() {
                break;
            }
            last = next;
        }
        let attributes =
            bytes.get(last + ATTRIBUTES..last + ATTRIBUTES + 2).context("attributes")?;
        let attributes = u16::from_be_bytes([attributes[0], attributes[1]]);
        ensure!(attributes & CONTROL != 0, "{topic}-{partition} does not end with a marker");
        fs::File::options().write(true).open(&log)?.set_len(u64::try_from(last)?)?;
        // What the broker has derived from the log, and the note up to where it need not be read again.
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            let derived = ["snapshot", "index", "timeindex", "txnindex"];
            if path.extension().is_some_and(|is| derived.iter().any(|one| is == *one)) {
                fs::remove_file(path)?;
            }
        }
        match fs::remove_file(data.join("recovery-point-offset-checkpoint")) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
            _ => Ok(()),
        }
    }
}
