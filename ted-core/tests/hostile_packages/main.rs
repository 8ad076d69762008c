//! The hostile corpus: packages of a Distributor whose signature is good and whose intentions are not. Each is refused
//! before the first write; a test looks at every file in and around the target before and after.
//!
//! (Hostile lists of entries are beside `extract`, hostile columns of deltas beside `package/delta`, and a flip of every
//! byte beside `package`.)

mod baselines;
mod bodies;
mod deltas;
mod forge;
mod place;
