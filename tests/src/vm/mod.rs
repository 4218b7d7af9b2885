//! Virtual machines for what no container shows: systemd, a root file system that is frozen, LVM and
//! md, disks that hang or fail below a file system, power cuts. Everything in them may be frozen;
//! nothing of the machine that runs the tests is.
//!
//! | module | job |
//! |---|---|
//! | [`image`] | what a machine boots, from Debian's packages and this build |
//! | [`machine`] | QEMU: boot, power cut, pause |
//! | [`qmp`] | QEMU's own protocol |
//! | [`guest`] | commands in the machine, over a virtio serial port |
//! | [`agent`] | the other end of that |
//! | [`bench`] | stillpoint and the emulated cloud in the machine, and what a user would look at |
//! | [`cases`] | the tests, by name |

pub mod agent;
pub mod bench;
pub mod cases;
pub mod guest;
pub mod image;
pub mod machine;
pub mod qmp;
