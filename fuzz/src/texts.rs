//! Single values of any text: `Retry-After`, durations, URLs and label selectors.

use chrono::{DateTime, TimeDelta};
use http::{HeaderMap, HeaderValue, header::RETRY_AFTER};
use itwin_api::{authority::AuthoritySpec, duration};
use itwin_credential_operator::config::authority::AuthorityConfig;
use itwin_oauth::transport::retry_after;
use serde_json::json;

use super::{is_bounded, on_small_stack};

/// One run of the target.
pub fn run(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    on_small_stack(|| {
        if let Ok(value) = HeaderValue::from_bytes(data) {
            let now = DateTime::from_timestamp(1_800_000_000, 0).expect("in range");
            let wait = retry_after(&HeaderMap::from_iter([(RETRY_AFTER, value)]), now);
            assert!(wait.is_none_or(|wait| wait >= TimeDelta::zero()));
        }
        if let Err(why) = duration::parse(&text) {
            is_bounded(&why);
        }
        let expression = json!({"key": text, "operator": "In", "values": [text]});
        for change in [
            json!({"issuer": text}),
            json!({"tokenEndpoint": text}),
            json!({"jwksUri": text}),
            json!({"caBundle": text}),
            json!({"allowedNamespaces": {"matchLabels": {"key": text}, "matchExpressions": [expression]}}),
        ] {
            let mut spec = json!({"issuer": "https://ims.example.com"});
            spec.as_object_mut().expect("a spec").extend(change.as_object().expect("fields").clone());
            let spec: AuthoritySpec = serde_json::from_value(spec).expect("a spec");
            if let Err(why) = AuthorityConfig::new(&spec) {
                is_bounded(&why);
            }
        }
    });
}
