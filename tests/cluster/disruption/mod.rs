//! The cluster fails under the operator: etcd and the API server die and come back, CRDs are missing or hold invalid
//! objects. Each test has its own control plane; the authorization servers are those of the testbed.

mod cluster;
mod crds;
mod large;
mod many;
mod memory;
mod outage;
