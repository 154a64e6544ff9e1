//! Memory: where everything lies, the hypervisor's own page tables, the heap, guests' page tables and memory.

pub mod boot_frames;
pub mod direct_map;
#[cfg(target_os = "none")]
pub mod frame_table;
#[cfg(target_os = "none")]
pub mod guest_copy;
#[cfg(target_os = "none")]
pub mod guest_words;
pub mod heap;
#[cfg(target_os = "none")]
pub mod hypervisor_map;
pub mod layout;
#[cfg(target_os = "none")]
pub mod nested;
#[cfg(target_os = "none")]
pub mod pv_pte;
#[cfg(target_os = "none")]
pub(crate) mod setup;
pub mod shared;
#[cfg(target_os = "none")]
pub mod tlb;
#[cfg(target_os = "none")]
pub mod window;

#[cfg(target_os = "none")]
pub use setup::end_of_ram;
