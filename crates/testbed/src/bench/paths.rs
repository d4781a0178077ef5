//! The namespace and the paths that the benchmark requests itself, as the operator requests them.

/// The namespace of all objects that are written without the operator: the first of the load.
pub const NAMESPACE: &str = "bench-0";
/// The Secrets of this namespace.
pub const SECRETS: &str = "/api/v1/namespaces/bench-0/secrets";
/// The credentials of this namespace.
pub const CREDENTIALS: &str = "/apis/credentials.itwin.dev/v1alpha1/namespaces/bench-0/itwinservicecredentials";
/// The events of this namespace.
pub const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/bench-0/events";
/// The Secrets of all namespaces.
pub const ALL_SECRETS: &str = "/api/v1/secrets";
/// The credentials of all namespaces.
pub const ALL_CREDENTIALS: &str = "/apis/credentials.itwin.dev/v1alpha1/itwinservicecredentials";
