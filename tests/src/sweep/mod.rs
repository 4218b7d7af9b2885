//! Runs that are disturbed thousands of times, by chance with a printed seed or one by one: killed at
//! any moment, failed at any system call. What must be so afterwards is looked at from outside.
//!
//! | module | job |
//! |---|---|
//! | [`field`] | the lab of a sweep, and what must be so when a run is over |
//! | [`pulse`] | who writes all the time, and when a write came through again |
//! | [`kills`] | signals at random moments, to agent, guard and sentinel |
//! | [`storm`] | signals by the dozen, while btrfs is frozen and thawed |
//! | [`nth`] | the Nth system call fails, once or from then on |
//! | [`calls`] | which calls can fail, and how |
//! | [`discipline`] | which calls come while something is frozen |
//! | [`tally`], [`outcomes`] | what came of it, as tables |

pub mod calls;
pub mod discipline;
pub mod field;
pub mod kills;
pub mod nth;
pub mod outcomes;
pub mod pulse;
pub mod storm;
pub mod tally;
