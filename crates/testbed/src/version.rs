//! The version of the API server, and what depends on it.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::Testbed;

/// The first minor version of Kubernetes 1 whose custom resources have selectable fields by default (KEP-4358).
const SELECTABLE_FIELDS: u32 = 31;

/// Whether custom resources can be selected by fields of their spec. An older API server drops `selectableFields` from
/// a CRD.
///
/// # Errors
/// Fails if the API server does not report its version.
pub async fn has_selectable_fields(testbed: &Testbed) -> Result<bool> {
    let text = testbed.kubectl(&["get", "--raw", "/version"]).await?;
    let version: Value = serde_json::from_str(&text)?;
    let version = version["gitVersion"].as_str().unwrap_or_default();
    Ok(minor(version).with_context(|| format!("the API server has the version {version:?}"))? >= SELECTABLE_FIELDS)
}

/// The minor version in a text such as `v1.37.2`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("v1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minor_version_is_read_from_a_version_with_and_without_a_suffix() {
        assert_eq!(minor("v1.30.14"), Some(30));
        assert_eq!(minor("v1.31.2+k3s1"), Some(31));
        assert_eq!(minor("v0.0.0-master+$Format:%H$"), None);
    }
}
