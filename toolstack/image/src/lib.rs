//! Floor 1: kernel images (ELF, bzImage), their Xen notes, and the start-of-day layout of a PV domain.
//! Used by the hypervisor (dom0) and by the toolstack (every other domain).
#![no_std]
#![forbid(unsafe_code)]
