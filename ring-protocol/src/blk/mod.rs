//! Block devices (`io/blkif.h`): requests as they lie in the ring ([`wire`]), the two ends of a queue ([`back`],
//! [`front`]), and how they come together over xenstore ([`connect`]).

pub mod back;
pub mod connect;
pub mod front;
pub mod wire;
