//! What is a host's own, a module for each host, and how the rest of the backend asks for it.
//!
//! An *extension* is a unit of a guest's that some hosts have too, such as x86's x87. The guest's helpers compute its operations
//! exactly ([`mimus_ir::Effects::EXTENSION`]); a host with the unit executes them by routines of its own while the state of the
//! unit is in the host's ([`mimus_softmmu::EnvHeader::extension_live`]). A row of [`EXTENSIONS`] is all that the code around it
//! knows of one. Guests declare by name what they have ([`HostIsa::for_guest`]), since a call's constant argument means something
//! between a guest and the rows that it has declared only.

pub(crate) mod x64;

use crate::host::HostIsa;

/// An extension that a host executes.
///
/// Its routines are called with the `PreserveAll` convention and change no register but those of the unit. Their arguments are env
/// and, by [`Operand`], an address or a value.
pub(crate) struct Extension {
    /// The name that guests declare.
    pub name: &'static str,
    /// Whether a host has it.
    pub available: fn(&HostIsa) -> bool,
    /// The routine for an operation, given by the constant argument of its call; `None` if the operation is left to the helper.
    pub form: fn(u32) -> Option<Form>,
    /// All routines, for envs with their header at this offset.
    pub routines: fn(i32) -> Vec<u8>,
    /// Offset of the routine that moves the unit's state to the image and leaves the unit as Rust's ABI wants it.
    pub save: i32,
    /// Offset of the routine that loads the state from the image.
    pub restore: i32,
}

/// What a routine takes and gives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Form {
    /// Its offset from the first one, in bytes.
    pub routine: i32,
    /// Its second argument.
    pub operand: Operand,
    /// Which bits of the slow value are the result; `None` if there is no result.
    pub result: Option<u64>,
}

/// The second argument of a routine.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Operand {
    /// None.
    None,
    /// The third argument of the call.
    Value,
    /// The host address of the guest memory that the first argument of the call is the address of.
    Memory { bytes: u32, write: bool },
    /// The host address of a copy of 16 bits of guest memory. Unless all bits of `set` are set there, the helper does it.
    Checked { set: u16 },
}

/// Every extension, in order of preference.
static EXTENSIONS: [&Extension; 1] = [&x64::x87::EXTENSION];

/// The extension of the guest that `host` makes code for which it executes itself.
pub(crate) fn extension(host: &HostIsa) -> Option<&'static Extension> {
    let declared = |extension: &&Extension| host.guest_extensions().contains(&extension.name);
    EXTENSIONS.into_iter().filter(declared).find(|extension| (extension.available)(host))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_extension_is_chosen_by_guest_and_host() {
        let native = HostIsa::native().unwrap();
        let chosen = |declared| extension(&native.clone().for_guest(declared)).map(|extension| extension.name);
        let here = cfg!(target_arch = "x86_64").then_some("x87");
        assert_eq!(chosen(&["a unit that no host has", "x87"]), here);
        assert_eq!((chosen(&[]), chosen(&["x86"])), (None, None), "a guest without it");
        assert!(extension(&native).is_none(), "no guest at all");
    }
}
