//! What Linux says a process has used: processor time and memory, from `/proc` (see proc(5)).

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};

/// Clock ticks per second in `/proc`: the kernel's `USER_HZ`, 100 on every architecture our programs are built for.
const TICKS_PER_SECOND: u32 = 100;

/// User and system time of a process so far, all its threads together.
///
/// # Errors
/// When there is no such process.
pub(super) fn processor_time(pid: u32) -> Result<Duration> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    parse_processor_time(&text).with_context(|| format!("/proc/{pid}/stat"))
}

fn parse_processor_time(stat: &str) -> Option<Duration> {
    // A name may hold spaces and parentheses; utime and stime are fields 14 and 15, the first after the name is 3.
    let (_, after) = stat.rsplit_once(')')?;
    let mut fields = after.split_whitespace().skip(11);
    let ticks = fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
    Some(Duration::from_secs(1) * ticks / TICKS_PER_SECOND)
}

/// Time on a processor of each thread that lives, summed up by the threads' names.
pub(super) fn processor_time_by_thread(pid: u32) -> BTreeMap<String, Duration> {
    let mut times = BTreeMap::new();
    for task in fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten() {
        let read = |file: &str| fs::read_to_string(task.path().join(file)).ok();
        let nanoseconds =
            read("schedstat").and_then(|text| text.split_whitespace().next()?.parse::<u64>().ok());
        if let (Some(name), Some(nanoseconds)) = (read("comm"), nanoseconds) {
            *times.entry(name.trim_end().to_owned()).or_default() +=
                Duration::from_nanos(nanoseconds);
        }
    }
    times
}

/// Time that all processors of the machine together were busy since boot.
pub(super) fn machine_processor_time() -> Duration {
    let text = fs::read_to_string("/proc/stat").unwrap_or_default();
    parse_machine_processor_time(&text).unwrap_or_default()
}

/// `cpu  user nice system idle iowait irq softirq steal ...`: all but idle and iowait.
fn parse_machine_processor_time(stat: &str) -> Option<Duration> {
    let fields: Vec<u64> =
        stat.lines().next()?.split_whitespace().skip(1).map_while(|f| f.parse().ok()).collect();
    let waiting: u64 = fields.get(3..5)?.iter().sum();
    let all: u64 = fields.iter().take(8).sum();
    Some(Duration::from_millis((all - waiting) * 1000 / u64::from(TICKS_PER_SECOND)))
}

/// Memory of a process in bytes: `VmRSS` (resident now) or `VmHWM` (resident at most, since its start).
///
/// # Errors
/// When there is no such process.
pub(super) fn memory(pid: u32, field: &str) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status"))
        .with_context(|| format!("process {pid} is gone"))?;
    kibibytes(&text, field)
        .map(|k| k * 1024)
        .with_context(|| format!("{field} in /proc/{pid}/status"))
}

/// The number of a line `Name:   123 kB`.
pub(super) fn kibibytes(text: &str, field: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn user_and_system_time_are_added_up_behind_an_odd_name() {
        let stat = "7 (a) (b)) S 1 7 7 0 -1 4194560 1 2 3 4 150 25 7 8 20 0 1 0 12345 1000";
        assert_eq!(parse_processor_time(stat), Some(Duration::from_millis(1750)));
        assert_eq!(parse_processor_time("7 (a) S 1"), None);
    }

    #[test]
    fn a_machine_that_idles_or_waits_for_disks_is_not_busy() {
        let stat = "cpu  100 10 50 9999 777 1 2 3 4 5\ncpu0 1 2 3";
        assert_eq!(parse_machine_processor_time(stat), Some(Duration::from_millis(1660)));
    }

    #[test]
    fn a_field_is_found_by_its_whole_name() {
        let status = "VmHWMx:\t 1 kB\nVmHWM:\t    2048 kB\nVmRSS:\t 1024 kB\n";
        assert_eq!(kibibytes(status, "VmHWM"), Some(2048));
        assert_eq!(kibibytes(status, "VmSwap"), None);
    }

    #[test]
    fn this_process_has_memory_and_threads() {
        let own = std::process::id();
        assert!(memory(own, "VmHWM").unwrap() >= memory(own, "VmRSS").unwrap() / 2);
        assert!(!processor_time_by_thread(own).is_empty());
        assert!(machine_processor_time() >= processor_time(own).unwrap());
    }
}
