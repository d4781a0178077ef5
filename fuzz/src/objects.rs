//! Custom resources of any bytes, as a watch brings them: each is decoded, or has an error of bounded length, and what
//! is decoded is used without overflow.

use chrono::{DateTime, TimeDelta};
use itwin_api::{authority::ITwinAuthority, credential::ITwinServiceCredential, limits};
use itwin_core::{policy::Policy, schedule, template};
use itwin_credential_operator::{config::authority::AuthorityConfig, controller::guarded::Guarded};

use super::{is_bounded, on_small_stack};

/// One run of the target.
pub fn run(data: &[u8]) {
    on_small_stack(|| {
        match serde_json::from_slice::<Guarded<ITwinServiceCredential>>(data).map(Guarded::open) {
            Err(_) => {}
            Ok(Err(invalid)) => assert!(invalid.error.len() <= 1024),
            Ok(Ok(credential)) => {
                let kept = credential.metadata.annotations.iter().flatten();
                assert!(kept.into_iter().all(|(_, value)| value.chars().count() <= limits::RENEW_MAX));
                let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
                let _ = now - schedule::minimum_validity(&Policy::new(&credential.spec), TimeDelta::hours(1));
                if let Err(failure) = template::check(credential.spec.secret_template.as_ref()) {
                    is_bounded(&failure.message);
                }
            }
        }
        if let Ok(Ok(authority)) = serde_json::from_slice::<Guarded<ITwinAuthority>>(data).map(Guarded::open) {
            let _ = AuthorityConfig::new(&authority.spec);
        }
    });
}
