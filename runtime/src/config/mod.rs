//! Files in `/etc/stillpoint` → validated configuration; errors name file, line and column.

pub mod connections;
pub mod grants;
pub mod read;
