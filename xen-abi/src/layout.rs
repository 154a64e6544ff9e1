//! The two macros every module declares its numbers and structures with, and the tables they leave behind.
//!
//! Each item is written once; the macro emits the Rust item and one row of a table from which `tests/layout.rs` asks the C
//! compiler for the same size, offset or value in the installed headers.

/// One constant: its Rust name (the header's name in upper case) and value.
#[derive(Clone, Copy, Debug)]
pub struct Constant {
    /// Rust name.
    pub name: &'static str,
    /// C expression where it is not simply that name, else empty.
    pub c: &'static str,
    /// Value, widened.
    pub value: i128,
}

/// One structure with its place in the C headers.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// Rust name.
    pub name: &'static str,
    /// C type expression.
    pub c: &'static str,
    /// Size in bytes.
    pub size: usize,
    /// All fields, padding included (names starting with `_pad`).
    pub fields: &'static [Field],
}

/// One field of a [`Structure`].
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Rust name.
    pub name: &'static str,
    /// C member path where it differs from the Rust name, else empty.
    pub c: &'static str,
    /// Offset in bytes.
    pub offset: usize,
    /// Size in bytes.
    pub size: usize,
}

/// Declares public constants carrying the header's names in upper case: `pub const NAME: Type = value => "C expression";`.
macro_rules! constants {
    ($( $(#[$meta:meta])* pub const $name:ident: $ty:ty = $value:expr $(=> $c:literal)?; )*) => {
        $( #[allow(missing_docs)] $(#[$meta])* pub const $name: $ty = $value; )*
        #[doc(hidden)]
        pub const __CONSTANTS: &[$crate::layout::Constant] = &[
            $( $crate::layout::Constant { name: stringify!($name), c: concat!($($c)?), value: $name as i128 }, )*
        ];
    };
}
pub(crate) use constants;

/// Declares `#[repr(C)]` structures: `pub struct Name = "C type" { pub field: Type => "c.member", ... }`.
macro_rules! structures {
    ($( $(#[$meta:meta])* pub struct $name:ident = $c:literal {
        $( $(#[$fmeta:meta])* pub $field:ident: $ty:ty $(=> $cfield:literal)?, )*
    } )*) => {
        $(
            $(#[$meta])*
            #[doc = ""]
            #[doc = concat!("C: `", $c, "`.")]
            #[allow(missing_docs)]
            #[repr(C)]
            #[derive(
                Clone, Copy, Debug, PartialEq, Eq,
                zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout,
            )]
            pub struct $name { $( $(#[$fmeta])* pub $field: $ty, )* }

            impl Default for $name {
                /// All bytes zero.
                fn default() -> Self { zerocopy::FromZeros::new_zeroed() }
            }
        )*
        #[doc(hidden)]
        pub const __STRUCTURES: &[$crate::layout::Structure] = &[
            $( $crate::layout::Structure {
                name: stringify!($name),
                c: $c,
                size: core::mem::size_of::<$name>(),
                fields: &[ $( $crate::layout::Field {
                    name: stringify!($field),
                    c: concat!($($cfield)?),
                    offset: core::mem::offset_of!($name, $field),
                    size: core::mem::size_of::<$ty>(),
                }, )* ],
            }, )*
        ];
    };
}
pub(crate) use structures;
