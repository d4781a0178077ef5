//! The reconcile loop: what enqueues a credential; observe, decide, act and report for it.

mod action_error;
mod actions;
mod admission;
mod attempt;
pub mod authorities;
pub mod authority;
mod ca_bundle;
pub mod context;
mod deletion;
mod fetch;
pub mod fetched;
pub mod guarded;
mod interim;
pub mod invalid_objects;
pub mod namespace_labels;
pub mod namespaces;
pub mod observation;
pub mod others;
mod recheck;
pub mod reconcile;
mod reconciler;
pub mod references;
pub mod registry;
mod report;
pub mod requests;
mod restarts;
mod revert;
mod secret_reads;
pub mod secret_watches;
mod status_writer;
mod token_write;
pub mod undescribed;
pub mod watches;

/// When an object is reconciled again, besides when something changes: after this, or only then.
pub type RequeueAfter = Option<std::time::Duration>;
