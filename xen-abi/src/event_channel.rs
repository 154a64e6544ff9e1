//! `event_channel_op` and both layouts of events in shared memory (`event_channel.h`).

use crate::ids::{DomId, Port, VcpuId};
use crate::layout::{constants, structures};

constants! {
    pub const EVTCHNOP_BIND_INTERDOMAIN: u32 = 0;
    pub const EVTCHNOP_BIND_VIRQ: u32 = 1;
    pub const EVTCHNOP_BIND_PIRQ: u32 = 2;
    pub const EVTCHNOP_CLOSE: u32 = 3;
    pub const EVTCHNOP_SEND: u32 = 4;
    pub const EVTCHNOP_STATUS: u32 = 5;
    pub const EVTCHNOP_ALLOC_UNBOUND: u32 = 6;
    pub const EVTCHNOP_BIND_IPI: u32 = 7;
    pub const EVTCHNOP_BIND_VCPU: u32 = 8;
    pub const EVTCHNOP_UNMASK: u32 = 9;
    pub const EVTCHNOP_RESET: u32 = 10;
    pub const EVTCHNOP_INIT_CONTROL: u32 = 11;
    pub const EVTCHNOP_EXPAND_ARRAY: u32 = 12;
    pub const EVTCHNOP_SET_PRIORITY: u32 = 13;

    /// [`EvtchnBindPirq::flags`].
    pub const BIND_PIRQ__WILL_SHARE: u32 = 1;

    /// [`EvtchnStatus::status`].
    pub const EVTCHNSTAT_CLOSED: u32 = 0;
    pub const EVTCHNSTAT_UNBOUND: u32 = 1;
    pub const EVTCHNSTAT_INTERDOMAIN: u32 = 2;
    pub const EVTCHNSTAT_PIRQ: u32 = 3;
    pub const EVTCHNSTAT_VIRQ: u32 = 4;
    pub const EVTCHNSTAT_IPI: u32 = 5;

    /// Ports of the two-level layout.
    pub const EVTCHN_2L_NR_CHANNELS: u32 = 4096;

    /// FIFO priorities: a lower number is served first.
    pub const EVTCHN_FIFO_PRIORITY_MAX: u32 = 0;
    pub const EVTCHN_FIFO_PRIORITY_DEFAULT: u32 = 7;
    pub const EVTCHN_FIFO_PRIORITY_MIN: u32 = 15;
    pub const EVTCHN_FIFO_MAX_QUEUES: usize = 16;
    /// Bit numbers of an event word; the low bits link to the next port.
    pub const EVTCHN_FIFO_PENDING: u32 = 31;
    pub const EVTCHN_FIFO_MASKED: u32 = 30;
    pub const EVTCHN_FIFO_LINKED: u32 = 29;
    pub const EVTCHN_FIFO_BUSY: u32 = 28;
    pub const EVTCHN_FIFO_LINK_BITS: u32 = 17;
    pub const EVTCHN_FIFO_LINK_MASK: u32 = (1 << EVTCHN_FIFO_LINK_BITS) - 1;
    /// Ports of the FIFO layout.
    pub const EVTCHN_FIFO_NR_CHANNELS: u32 = 1 << EVTCHN_FIFO_LINK_BITS;
}

structures! {
    pub struct EvtchnAllocUnbound = "struct evtchn_alloc_unbound" {
        pub dom: DomId,
        /// Who may bind to it.
        pub remote_dom: DomId,
        /// Out.
        pub port: Port,
    }
    pub struct EvtchnBindInterdomain = "struct evtchn_bind_interdomain" {
        pub remote_dom: DomId,
        pub _pad: u16,
        pub remote_port: Port,
        /// Out.
        pub local_port: Port,
    }
    pub struct EvtchnBindVirq = "struct evtchn_bind_virq" {
        /// `VIRQ_*`.
        pub virq: u32,
        pub vcpu: VcpuId,
        /// Out.
        pub port: Port,
    }
    pub struct EvtchnBindPirq = "struct evtchn_bind_pirq" {
        pub pirq: u32,
        /// [`BIND_PIRQ__WILL_SHARE`].
        pub flags: u32,
        /// Out.
        pub port: Port,
    }
    pub struct EvtchnBindIpi = "struct evtchn_bind_ipi" {
        pub vcpu: VcpuId,
        /// Out.
        pub port: Port,
    }
    pub struct EvtchnClose = "struct evtchn_close" {
        pub port: Port,
    }
    pub struct EvtchnSend = "struct evtchn_send" {
        pub port: Port,
    }
    pub struct EvtchnStatus = "struct evtchn_status" {
        pub dom: DomId,
        pub _pad: u16,
        pub port: Port,
        /// Out: `EVTCHNSTAT_*`.
        pub status: u32,
        /// Out: whom it notifies.
        pub vcpu: VcpuId,
        /// Out: domain of an unbound or interdomain port (low 16 bits), `pirq` or `virq`.
        pub u: u32 => "u.pirq",
        /// Out: the remote port of an interdomain port.
        pub interdomain_port: Port => "u.interdomain.port",
    }
    pub struct EvtchnBindVcpu = "struct evtchn_bind_vcpu" {
        pub port: Port,
        pub vcpu: VcpuId,
    }
    pub struct EvtchnUnmask = "struct evtchn_unmask" {
        pub port: Port,
    }
    pub struct EvtchnReset = "struct evtchn_reset" {
        pub dom: DomId,
    }
    /// Registers a vCPU's FIFO control block.
    pub struct EvtchnInitControl = "struct evtchn_init_control" {
        pub control_gfn: u64,
        /// Bytes within the frame.
        pub offset: u32,
        pub vcpu: VcpuId,
        /// Out: [`EVTCHN_FIFO_LINK_BITS`].
        pub link_bits: u8,
        pub _pad: [u8; 7],
    }
    /// Adds a page of 1024 event words.
    pub struct EvtchnExpandArray = "struct evtchn_expand_array" {
        pub array_gfn: u64,
    }
    pub struct EvtchnSetPriority = "struct evtchn_set_priority" {
        pub port: Port,
        /// `EVTCHN_FIFO_PRIORITY_*`.
        pub priority: u32,
    }
    /// Argument of the older `event_channel_op_compat`.
    pub struct EvtchnOp = "struct evtchn_op" {
        /// `EVTCHNOP_*`.
        pub cmd: u32,
        /// The operation's own structure.
        pub u: [u32; 6],
    }
    /// A vCPU's FIFO control block, in guest memory.
    pub struct EvtchnFifoControlBlock = "struct evtchn_fifo_control_block" {
        /// Bit n: queue n has events.
        pub ready: u32,
        pub _rsvd: u32,
        /// First port of each queue.
        pub head: [u32; EVTCHN_FIFO_MAX_QUEUES],
    }
}
