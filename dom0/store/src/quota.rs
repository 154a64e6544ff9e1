//! What a guest may use up. Domain 0 is not limited.

/// Limits for each guest; the defaults are xenstored's.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Nodes it owns.
    pub nodes: u64,
    /// Bytes of a node: value, names of its children, permissions and a header.
    pub node_bytes: usize,
    /// Watches it has set.
    pub watches: usize,
    /// Transactions it has open.
    pub transactions: usize,
    /// Nodes that one transaction looked at or changed.
    pub transaction_nodes: usize,
    /// Entries of a node's permissions.
    pub permissions: usize,
    /// Bytes of answers that wait for the guest to read them: above, its requests wait.
    pub waiting_bytes: usize,
    /// Bytes of answers and watch events that wait: above, further events are lost.
    pub waiting_bytes_hard: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            node_bytes: 2048,
            watches: 128,
            transactions: 10,
            transaction_nodes: 1024,
            permissions: 5,
            waiting_bytes: 16 << 10,
            waiting_bytes_hard: 256 << 10,
        }
    }
}
