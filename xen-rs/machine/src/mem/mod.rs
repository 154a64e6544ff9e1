//! Memory: where everything lies, page tables, the heap.

#[cfg(target_os = "none")]
pub mod heap;
pub mod layout;
