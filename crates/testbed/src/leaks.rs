//! Checks after a run that no secret of the run is in any place that people or programs read.

use anyhow::{Result, ensure};

use crate::Testbed;

/// A secret shorter than this is a word, and would be found by chance.
const SHORTEST: usize = 12;

/// Searches every line that every operator logged, its last metrics, and every event and status in the cluster,
/// for every client secret, password and token signature that the authorization servers received or issued. Returns
/// where one was found, without the secret.
///
/// # Errors
/// Fails if it could not search: a scan of nothing proves nothing.
pub async fn scan(testbed: &Testbed) -> Result<Vec<String>> {
    let mut secrets = testbed.authority.secrets().await?;
    secrets.extend(testbed.faults.secrets().await?);
    secrets.extend(testbed.kept_secrets());
    secrets.retain(|secret| secret.len() >= SHORTEST);
    let mut places = vec![
        ("events".to_owned(), testbed.kubectl(&["get", "events", "-A", "-o", "json"]).await?),
        ("credentials".to_owned(), testbed.kubectl(&["get", "itcred", "-A", "-o", "json"]).await?),
        ("authorities".to_owned(), testbed.kubectl(&["get", "itauth", "-o", "json"]).await?),
    ];
    // tests with their own control plane have a folder each
    let mut folders = vec![testbed.directory.clone()];
    for entry in std::fs::read_dir(&testbed.directory)? {
        folders.extend(Some(entry?.path()).filter(|path| path.is_dir()));
    }
    for folder in folders {
        for entry in std::fs::read_dir(folder)? {
            let path = entry?.path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if name.starts_with("operator-") && path.is_file() {
                places.push((name, String::from_utf8_lossy(&std::fs::read(&path)?).into_owned()));
            }
        }
    }
    let lines: usize = places.iter().map(|(_, text)| text.lines().count()).sum();
    eprintln!("testbed: searched for {} secrets in {} places, {lines} lines", secrets.len(), places.len());
    ensure!(places.iter().any(|(name, _)| name.ends_with(".log")) || secrets.is_empty(), "there is no log to search");
    Ok(hits(&secrets, &places))
}

/// The places where secrets were found, and how many.
fn hits(secrets: &[String], places: &[(String, String)]) -> Vec<String> {
    let count = |text: &str| secrets.iter().filter(|secret| text.contains(secret.as_str())).count();
    let found = places.iter().map(|(place, text)| (place, count(text))).filter(|(_, count)| *count > 0);
    found.map(|(place, count)| format!("{place}: {count} secrets")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secret_in_one_place_is_found_there_and_not_repeated() {
        let places = [
            ("log".to_owned(), "a line\nwith top-secret-value in it".to_owned()),
            ("events".to_owned(), "{}".to_owned()),
        ];
        assert_eq!(hits(&["top-secret-value".to_owned(), "another-secret".to_owned()], &places), ["log: 1 secrets"]);
    }

    #[test]
    fn secrets_of_the_servers_are_long_enough_to_be_searched_for() {
        assert!(crate::control_plane::random_token().len() >= SHORTEST);
    }
}
