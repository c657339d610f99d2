//! The fabric: the handles that a device owns to reach the rest of the machine.
//!
//! A device is a state machine and its handles, together a [`Wired`]. The state machine is plain data; the handles are what a
//! board has wired it to. Whoever accesses the device settles what it drives, and nothing else: no access looks at other devices.

mod block;
mod char_port;
mod irq;
mod lock;
mod net_port;
mod switch;
mod timer;
mod wired;

pub(crate) use block::{BlockClient, Data, Finished};
pub use block::{BlockJob, DmaTarget, JobBuffer};
pub(crate) use char_port::CharPort;
pub use char_port::CharSink;
pub use irq::{IrqInputs, IrqLine, IrqSink};
pub(crate) use lock::lock;
pub(crate) use net_port::NetPort;
pub(crate) use switch::IrqSwitch;
pub(crate) use timer::Timer;
pub use timer::TimerQueue;
pub(crate) use wired::{Drives, Wired};
