//! Sentences about restarts of workloads.

use std::fmt::Display;

use itwin_api::credential::RolloutRestartTarget;

/// What comes between the message about the last attempt and the one about workloads. A process that starts takes the
/// latter from the status by it.
pub const ABOUT_RESTARTS: &str = "; restarts of workloads: ";

/// The length of what the API server says that is quoted, in characters.
const QUOTED_MAX: usize = 300;

/// Why a workload could not be restarted.
#[derive(Clone, Copy)]
pub enum Obstacle<'a> {
    /// It does not exist.
    Missing,
    /// The cluster has no such kind of object.
    KindMissing,
    /// The API server refuses it, and says why.
    Forbidden(&'a dyn Display),
    /// Admission denied it, or failed; with what to do.
    Admission(&'a dyn Display, &'static str),
    /// A call failed.
    Failed(&'a dyn Display),
}

/// `Deployment name`.
#[must_use]
pub fn name(target: &RolloutRestartTarget) -> String {
    format!("{} {}", target.kind.as_str(), target.name)
}

/// A workload could not be restarted.
#[must_use]
pub fn not_restarted(target: &RolloutRestartTarget, obstacle: Obstacle<'_>) -> String {
    let name = name(target);
    match obstacle {
        Obstacle::Missing => format!("{name} does not exist"),
        Obstacle::KindMissing => format!(
            "{name} cannot exist, since the cluster serves no {} in apiVersion argoproj.io/v1alpha1: install Argo \
             Rollouts or remove the target",
            target.kind.as_str()
        ),
        Obstacle::Forbidden(why) => format!(
            "{name} may not be restarted ({}): an administrator can allow it with the chart's value \
             rolloutRestart.enabled",
            quoted(why)
        ),
        Obstacle::Admission(error, advice) => {
            format!("{name} could not be restarted ({}): {advice}", quoted(error))
        }
        Obstacle::Failed(error) => format!("{name} could not be restarted ({})", quoted(error)),
    }
}

/// All were restarted, and the Secret does not record it.
#[must_use]
pub fn not_recorded(secret: &str, error: &dyn Display) -> String {
    format!("all were made, but Secret {secret} could not be annotated with that ({})", quoted(error))
}

fn quoted(what: &dyn Display) -> String {
    what.to_string().chars().take(QUOTED_MAX).collect()
}

#[cfg(test)]
mod tests {
    use itwin_api::credential::WorkloadKind;

    use super::*;

    #[test]
    fn what_the_api_server_says_is_quoted_up_to_a_limit() {
        let target = RolloutRestartTarget { kind: WorkloadKind::Deployment, name: "web".to_owned() };
        let why = "é".repeat(10_000);
        for message in [
            not_restarted(&target, Obstacle::Forbidden(&why)),
            not_restarted(&target, Obstacle::Failed(&why)),
            not_recorded("token", &why),
        ] {
            assert!(message.contains(&"é".repeat(QUOTED_MAX)) && message.len() < 1000, "{message}");
        }
    }
}
