//! Not a test by itself: a guest that means harm, for the suite of that name. `seed=`, `calls=` and `vcpus=` stand on its
//! command line.
#![cfg_attr(target_os = "none", no_std, no_main)]

guest_pv::entry!(guests::hostile::run);
