//! Domain configuration: xl.cfg's syntax ([`syntax`]), its keys ([`keys`]), and what they add up to ([`DomainConfig`]).

mod container;
pub mod disk;
pub mod domain;
pub mod error;
pub mod keys;
pub mod syntax;
mod tsc;
pub mod uuid;

pub use domain::{Action, Cpus, DomainConfig, DomainType, Parsed};
pub use error::{ConfigError, Place};
pub use tsc::TscMode;
pub use uuid::Uuid;
