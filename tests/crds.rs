//! The generated files are those that the types give.

#![allow(missing_docs)]

use std::path::Path;

#[test]
fn committed_crds_are_fresh() {
    let generated = itwin_credential_operator::api::crds().expect("YAML");
    for file in ["crds/credentials.itwin.dev.yaml", "charts/itwin-credential-operator/files/crds.yaml"] {
        let committed =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("the file is there");
        assert!(committed == generated, "{file} is stale: run `make generate`");
    }
}
