//! What two vCPUs, each in its own thread and in any tier, do to one guest RAM: no atomic operation is lost, and no outcome is
//! seen that the guest's memory model forbids.

mod pair;
mod riscv;
mod x86;
