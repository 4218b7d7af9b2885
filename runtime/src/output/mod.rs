//! What commands print: a tree of steps with times for people, one JSON document for programs.

pub mod human;
pub mod inspect;
pub mod json;
pub mod verified;
