//! What users observe of the operator, on a real API server with a real authorization server. Each test has its own
//! namespace, ITwinAuthority and operator process.

mod admission;
mod authority;
mod client_secrets;
mod command_line;
mod conflict;
mod contention;
mod control;
mod crash;
mod drift;
mod failover;
mod failures;
mod fights;
mod issue;
mod krew;
mod listings;
mod ownership;
mod permissions;
mod plugin;
mod plugin_completion;
mod plugin_flags;
mod plugin_lint;
mod plugin_objects;
mod plugin_rotation;
mod plugin_terminal;
mod regressions;
mod renewal;
mod restarts;
mod sources;
mod surroundings;
mod template;
mod truth;
mod waiting;
mod webhooks;
mod workloads;
mod writes;
