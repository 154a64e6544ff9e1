//! Domain configuration: xl.cfg's syntax ([`syntax`]), its keys ([`keys`]), and what they add up to ([`DomainConfig`]).

mod container;
pub mod disk;
pub mod domain;
pub mod error;
pub mod keys;
mod kind;
pub mod syntax;
mod tsc;
pub mod uuid;

pub use domain::{Action, Cpus, DomainConfig, Parsed};
pub use error::{ConfigError, Place};
pub use kind::DomainType;
pub use tsc::TscMode;
pub use uuid::Uuid;
