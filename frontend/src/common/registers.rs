//! Registers that are sets of bits: types of flags with all 64 bits of the register, for env and saved states as they are.

/// Types of 64 bits each, of which every one is kept whether it has a name or not.
macro_rules! registers {
    ($($(#[$doc:meta])* $name:ident { $($bits:tt)* })*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        #[derive(::bytemuck::Pod, ::bytemuck::Zeroable, ::serde::Serialize, ::serde::Deserialize)]
        #[repr(transparent)]
        #[serde(transparent)]
        pub struct $name(u64);

        ::bitflags::bitflags! {
            impl $name: u64 {
                $($bits)*
                const _ = !0;
            }
        }

        impl $name {
            /// All of `sets` together.
            pub const fn of(mut sets: &[$name]) -> $name {
                let mut all = $name::empty();
                while let [first, rest @ ..] = sets {
                    all = all.union(*first);
                    sets = rest;
                }
                all
            }
        }

        impl From<$name> for u64 {
            fn from(register: $name) -> u64 {
                register.bits()
            }
        }
    )*};
}

pub(crate) use registers;
