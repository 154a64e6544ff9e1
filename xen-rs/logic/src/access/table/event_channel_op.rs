//! `event_channel_op`: which operations there are, and whose they are.

use xen_abi::event_channel::*;

operations! {
    /// An operation on event channels.
    EventChannelOp = "event_channel_op" in "event_channel.h", others: Anyone ENOSYS;
    served {
        BindInterdomain = EVTCHNOP_BIND_INTERDOMAIN, Offered;
        BindVirq = EVTCHNOP_BIND_VIRQ, Anyone;
        BindPirq = EVTCHNOP_BIND_PIRQ, Anyone, "only an interrupt that was mapped for the domain";
        Close = EVTCHNOP_CLOSE, Anyone;
        Send = EVTCHNOP_SEND, Offered;
        Status = EVTCHNOP_STATUS, TargetOrControl;
        AllocUnbound = EVTCHNOP_ALLOC_UNBOUND, TargetOrControl;
        BindIpi = EVTCHNOP_BIND_IPI, Anyone;
        BindVcpu = EVTCHNOP_BIND_VCPU, Anyone;
        Unmask = EVTCHNOP_UNMASK, Anyone;
        Reset = EVTCHNOP_RESET, TargetOrControl;
        InitControl = EVTCHNOP_INIT_CONTROL, Anyone;
        ExpandArray = EVTCHNOP_EXPAND_ARRAY, Anyone;
        SetPriority = EVTCHNOP_SET_PRIORITY, Anyone, "`ENOSYS` while the 2-level layout is in use, as in Xen";
    }
    refused {}
}
