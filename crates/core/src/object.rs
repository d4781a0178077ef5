//! Names and versions of Kubernetes objects.

use std::{fmt, sync::Arc};

/// Namespace and name of an object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The object of this namespace and name.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// A version of an object: its UID and resourceVersion, as `<uid>/<resourceVersion>`. Another one means that something in
/// the object changed. An annotation holds it as text, in which a user may write anything: it is only compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ObjectVersion(Arc<str>);

impl ObjectVersion {
    /// The version of an object with this UID and resourceVersion.
    #[must_use]
    pub fn new(uid: &str, resource_version: &str) -> Self {
        Self(format!("{uid}/{resource_version}").into())
    }

    /// UID of the object.
    #[must_use]
    pub fn uid(&self) -> &str {
        self.0.split_once('/').map_or("", |(uid, _)| uid)
    }

    /// Its resourceVersion, for guarded writes.
    #[must_use]
    pub fn resource_version(&self) -> &str {
        self.0.split_once('/').map_or("", |(_, version)| version)
    }
}

/// A version as an annotation holds it.
impl From<Arc<str>> for ObjectVersion {
    fn from(text: Arc<str>) -> Self {
        Self(text)
    }
}

/// A version as an annotation holds it.
impl From<&str> for ObjectVersion {
    fn from(text: &str) -> Self {
        Self(text.into())
    }
}

impl fmt::Display for ObjectVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_split_as_it_was_joined_and_any_text_can_be_compared() {
        let version = ObjectVersion::new("uid", "7");
        assert_eq!((version.uid(), version.resource_version()), ("uid", "7"));
        assert_eq!(version.to_string(), "uid/7");
        assert_eq!(version, ObjectVersion::from("uid/7"));
        let forged = ObjectVersion::from("anything");
        assert_eq!((forged.uid(), forged.resource_version()), ("", ""));
        assert_ne!(forged, version);
    }
}
