//! Floor 2: config, image, build plan, devices, commands.
#![no_std]
#![forbid(unsafe_code)]
