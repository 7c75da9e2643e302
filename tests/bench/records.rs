//! Tidegate's session records: what it says of its own buffers.
//!
//! Owns reading them from its log, which is JSON, one object a line. It knows nothing of processes.

use serde_json::Value;

/// The largest number of bytes each session held for its client, session by session, from the
/// records of those that ended.
pub fn peaks_for_clients(log: &str) -> Vec<u64> {
    log.lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter(|record| record["message"] == "session ended")
        .filter_map(|record| record["peak_buffered_from_upstream"].as_u64())
        .collect()
}
