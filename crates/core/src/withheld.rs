//! What of `spec.secretTemplate` is withheld from a Secret, since the API server refuses a write with it.
//!
//! A label that a policy denies must not keep a token from workloads. So a write that is refused is tried again without
//! the parts of the template that the Secret does not have yet, and what it has of them stays. What was withheld is
//! written later, as a revert with a growing backoff.

use std::borrow::Cow;

use itwin_api::credential::{ITwinServiceCredential, SecretTemplate};

use crate::call_failure::CallFailure;

/// The parts that are withheld.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Withheld {
    /// None.
    #[default]
    Nothing,
    /// Labels and annotations.
    Metadata,
    /// Keys of the data.
    Data,
    /// All of them.
    Both,
}

/// The parts that a write adds, changes or removes for the template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parts {
    /// Labels or annotations.
    pub metadata: bool,
    /// Keys of the data.
    pub data: bool,
}

impl Parts {
    /// The parts of a template, where labels and annotations, or keys, of an earlier one may be left on the Secret.
    #[must_use]
    pub fn new(template: Option<&SecretTemplate>, has_leftovers: bool, has_stale_keys: bool) -> Self {
        let any = |is_there: fn(&SecretTemplate) -> bool| template.is_some_and(is_there);
        Self {
            metadata: has_leftovers || any(|template| !template.labels.is_empty() || !template.annotations.is_empty()),
            data: has_stale_keys || any(|template| !template.data.is_empty()),
        }
    }
}

impl Withheld {
    /// Whether labels and annotations are withheld.
    #[must_use]
    pub fn has_metadata(self) -> bool {
        matches!(self, Self::Metadata | Self::Both)
    }

    /// Whether keys of the data are withheld.
    #[must_use]
    pub fn has_data(self) -> bool {
        matches!(self, Self::Data | Self::Both)
    }

    /// What to withhold after a write without these parts failed; `None` where that cannot help.
    #[must_use]
    pub fn after(self, why: CallFailure<'_>, parts: Parts) -> Option<Self> {
        if !may_be_about_a_part(why) {
            return None;
        }
        let later = match self {
            // each try takes as long as the webhook may: the token does not wait for the parts one by one
            Self::Nothing if took_long(why) => &[Self::Both, Self::Metadata, Self::Data][..],
            Self::Nothing => &[Self::Metadata, Self::Data, Self::Both],
            Self::Metadata => &[Self::Data, Self::Both],
            Self::Data => &[Self::Both],
            Self::Both => &[],
        };
        let exists =
            |withheld: &&Self| (parts.metadata || !withheld.has_metadata()) && (parts.data || !withheld.has_data());
        later.iter().find(exists).copied()
    }

    /// The credential with the template that is written: of the keys that are withheld those stay that the Secret has
    /// (`holds`), since they must hold the new token.
    #[must_use]
    pub fn applied(
        self,
        credential: &ITwinServiceCredential,
        holds: impl Fn(&str) -> bool,
    ) -> Cow<'_, ITwinServiceCredential> {
        if self == Self::Nothing || credential.spec.secret_template.is_none() {
            return Cow::Borrowed(credential);
        }
        let mut credential = credential.clone();
        if let Some(template) = &mut credential.spec.secret_template {
            if self.has_metadata() {
                template.labels.clear();
                template.annotations.clear();
            }
            if self.has_data() {
                template.data.retain(|key, _| holds(key));
            }
        }
        Cow::Owned(credential)
    }

    /// The parts, as messages name them.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Nothing => "nothing",
            Self::Metadata => "labels and annotations",
            Self::Data => "data",
            Self::Both => "labels, annotations and data",
        }
    }
}

/// Whether the API server may have refused only a part of what was written. A quota, RBAC and a server that fails are
/// about the write as a whole.
fn may_be_about_a_part(why: CallFailure<'_>) -> bool {
    match why {
        CallFailure::Forbidden(said) => {
            !said.is_missing_permission()
                && !["exceeded quota", "being terminated"].iter().any(|general| said.contains(general))
        }
        CallFailure::Refused(_) => true,
        // a webhook that does not answer may be called for one label only
        CallFailure::Unavailable(said) => said.contains("webhook"),
        // so may one that answers later than a call may take
        CallFailure::Timeout => true,
        CallFailure::NoAnswer => false,
    }
}

/// Whether the write failed only after the time that an admission webhook has.
fn took_long(why: CallFailure<'_>) -> bool {
    match why {
        CallFailure::Timeout => true,
        CallFailure::Unavailable(said) => {
            ["deadline exceeded", "Client.Timeout", " timeout"].iter().any(|sign| said.contains(sign))
        }
        CallFailure::Forbidden(_) | CallFailure::Refused(_) | CallFailure::NoAnswer => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::quote::Quote;

    #[test]
    fn each_part_of_the_template_is_withheld_before_both_are() {
        let said = Quote::new("denied request: no such label here");
        let sequence = |metadata, data| {
            let parts = Parts { metadata, data };
            let next = |withheld: &Withheld| withheld.after(CallFailure::Refused(&said), parts);
            std::iter::successors(next(&Withheld::Nothing), next).collect::<Vec<_>>()
        };
        assert_eq!(sequence(true, true), [Withheld::Metadata, Withheld::Data, Withheld::Both]);
        assert_eq!(sequence(true, false), [Withheld::Metadata]);
        assert_eq!(sequence(false, true), [Withheld::Data]);
        assert_eq!(sequence(false, false), []);
    }

    #[test]
    fn all_parts_are_withheld_after_a_write_that_waited_for_a_webhook() {
        let after = |why, metadata, data| Withheld::Nothing.after(why, Parts { metadata, data });
        let hangs =
            Quote::new("failed calling webhook \"a\": Post \"https://a/?timeout=3s\": context deadline exceeded");
        let down = Quote::new("failed calling webhook \"a\": Post \"https://a/?timeout=3s\": connection refused");
        for why in [CallFailure::Timeout, CallFailure::Unavailable(&hangs)] {
            assert_eq!(after(why, true, true), Some(Withheld::Both));
            assert_eq!(after(why, true, false), Some(Withheld::Metadata));
            assert_eq!(after(why, false, true), Some(Withheld::Data));
            assert_eq!(after(why, false, false), None);
            assert_eq!(Withheld::Both.after(why, Parts { metadata: true, data: true }), None);
        }
        assert_eq!(after(CallFailure::Unavailable(&down), true, true), Some(Withheld::Metadata));
    }

    #[test]
    fn only_an_answer_that_may_be_about_a_part_is_tried_without_it() {
        fn after(why: CallFailure<'_>) -> bool {
            Withheld::Nothing.after(why, Parts { metadata: true, data: false }).is_some()
        }
        let forbidden = |said: &str| after(CallFailure::Forbidden(&Quote::new(said)));
        assert!(forbidden("ValidatingAdmissionPolicy 'a' denied request"));
        assert!(!forbidden("exceeded quota: small"));
        assert!(!forbidden("User \"a\" cannot patch resource \"secrets\" in API group \"\""));
        assert!(!forbidden("unable to create new content because it is being terminated"));
        assert!(after(CallFailure::Refused(&Quote::new("metadata.labels: Invalid value"))));
        assert!(after(CallFailure::Unavailable(&Quote::new("failed calling webhook \"a\""))));
        assert!(!after(CallFailure::Unavailable(&Quote::new("etcdserver: no leader"))));
        assert!(!after(CallFailure::NoAnswer));
    }

    #[test]
    fn what_is_withheld_is_not_in_the_template_and_keys_that_the_secret_has_are() {
        let credential: ITwinServiceCredential = serde_json::from_value(json!({
            "apiVersion": "credentials.itwin.dev/v1alpha1",
            "kind": "ITwinServiceCredential",
            "metadata": {"name": "agent"},
            "spec": {
                "clientCredentialsRef": {"name": "client"},
                "secretTemplate": {"labels": {"a": "1"}, "annotations": {"b": "2"}, "data": {"old": "x", "new": "y"}},
            },
        }))
        .expect("a credential");
        let written = |withheld: Withheld| {
            let applied = withheld.applied(&credential, |key| key == "old");
            let template = applied.spec.secret_template.clone().unwrap_or_default();
            (template.labels.len() + template.annotations.len(), template.data.into_keys().collect::<Vec<_>>())
        };
        let all = vec!["new".to_owned(), "old".to_owned()];
        let old = vec!["old".to_owned()];
        assert_eq!(written(Withheld::Nothing), (2, all.clone()));
        assert_eq!(written(Withheld::Metadata), (0, all));
        assert_eq!(written(Withheld::Data), (2, old.clone()));
        assert_eq!(written(Withheld::Both), (0, old));
    }

    #[test]
    fn parts_are_those_of_the_template_and_what_an_earlier_one_left() {
        let template = |template: serde_json::Value| serde_json::from_value(template).expect("a template");
        let parts = |template: Option<SecretTemplate>| Parts::new(template.as_ref(), false, false);
        assert_eq!(parts(None), Parts { metadata: false, data: false });
        assert_eq!(parts(template(json!({"annotations": {"a": "1"}}))), Parts { metadata: true, data: false });
        assert_eq!(parts(template(json!({"data": {"a": "1"}}))), Parts { metadata: false, data: true });
        assert_eq!(Parts::new(None, true, true), Parts { metadata: true, data: true });
    }
}
