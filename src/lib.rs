//! A Kubernetes operator that keeps OAuth 2.0 access tokens of the iTwin Platform valid in Secrets.
pub mod act;
pub mod api;
pub mod clock;
pub mod cluster;
pub mod config;
pub mod controller;
pub mod decide;
pub mod metrics;
pub mod oauth;
pub mod observe;
pub mod report;
pub mod runtime;
pub mod sensitive;
