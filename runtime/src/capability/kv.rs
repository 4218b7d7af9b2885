//! Small durable state. The contract names it; this version grants none, and the contract's
//! `denied` carries no words, so they go to the operator as a hint.

/// What the operator is told when a hook asked for durable state.
pub(crate) const DENIED: &str = "this version of stillpoint serves no durable state to hooks";
