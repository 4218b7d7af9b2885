//! What people freeze with today, and what nobody can go below: the bench measures them beside
//! stillpoint, in the same run.

pub mod ioctls;
pub mod qemu_ga;
pub mod shell;

pub use qemu_ga::QemuGa;
