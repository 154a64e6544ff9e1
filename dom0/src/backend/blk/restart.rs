//! The back end starts anew while guests use their disks, as Linux's does when its module is loaded again, but their front
//! ends need not notice: no request is taken any more; when the last one under way is answered, all rings, pages and
//! volumes are let go of, and everything is taken up again from what xenstore says. Requests that came meanwhile stand in
//! the rings, which go on where their answers end.

use super::Blk;
use crate::backend::vbd::Connection;
use alloc::vec::Vec;
use xenstore::Store;

impl Blk {
    /// Begins to start anew.
    pub fn restart(&mut self) {
        self.restarting = true;
    }

    /// Whether it has not started anew yet.
    pub fn is_restarting(&self) -> bool {
        self.restarting
    }

    /// Starts anew once nothing is under way.
    pub(super) fn go_on_with_restart(&mut self, store: &mut Store) {
        let connections = self.devices.values().filter_map(|device| device.connection.as_ref());
        if !self.restarting || connections.into_iter().any(Connection::has_requests) {
            return;
        }
        self.restarting = false;
        self.all_changed = true;
        for key in self.devices.keys().copied().collect::<Vec<_>>() {
            self.forget(key, store);
        }
    }
}
