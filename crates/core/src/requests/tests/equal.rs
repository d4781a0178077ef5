//! Equal requests, which share one response.

use super::*;

#[test]
fn equal_requests_share_one_response_and_others_do_not() {
    let mut scene = Scene::new(8, 6000);
    let add = |scene: &mut Scene, key: &str, version: &str, content: &str| {
        let wanted =
            Request { client_version: Some(version.into()), content: content.into(), ..request("a", "client", None) };
        let now = scene.now();
        scene.queue.enqueue(key.into(), wanted, now);
    };
    for key in ["1", "2", "3"] {
        add(&mut scene, key, "7", "same");
    }
    add(&mut scene, "4", "7", "other scopes");
    add(&mut scene, "5", "8", "same");
    let now = scene.now();
    let mut admitted: Vec<String> = scene.queue.admit(now).admitted.into_iter().map(|(key, _)| key).collect();
    admitted.sort();
    assert_eq!(admitted, ["1", "4", "5"]);
    add(&mut scene, "6", "7", "same");
    assert!(scene.queue.admit(now).admitted.is_empty());
    let (_, mut sharing) = scene.settle("1", &Outcome::Succeeded);
    sharing.sort();
    assert_eq!(sharing, ["2", "3", "6"]);
    assert!(scene.queue.is_empty(), "they are served");
    add(&mut scene, "7", "7", "same");
    assert_eq!(scene.queue.admit(now).admitted.len(), 1, "no equal request is in flight");
}

#[test]
fn request_whose_client_secret_is_not_known_yet_waits_for_an_equal_one() {
    let mut scene = Scene::new(8, 6000);
    let now = scene.now();
    for (key, version) in [("1", None), ("2", None), ("3", Some("7")), ("4", Some("8"))] {
        let client_version = version.map(Into::into);
        let wanted = Request { client_version, content: "same".into(), ..request("a", "client", None) };
        scene.queue.enqueue(key.into(), wanted, now);
    }
    let admitted = |scene: &mut Scene| -> Vec<String> {
        scene.queue.admit(now).admitted.into_iter().map(|(key, _)| key).collect()
    };
    assert_eq!(admitted(&mut scene), ["1"]);
    let used = ObjectVersion::from("7");
    let (_, mut sharing) = scene.queue.settle(&"1".to_owned(), Some(&used), &Outcome::Succeeded, now);
    sharing.sort();
    assert_eq!(sharing, ["2", "3"]);
    assert_eq!(admitted(&mut scene), ["4"], "its client is another one");

    // what is not known may be served by each of two
    let mut scene = Scene::new(8, 6000);
    for (key, version) in [("7", Some("7")), ("8", Some("8"))] {
        let client_version = version.map(Into::into);
        let wanted = Request { client_version, content: "same".into(), ..request("a", "client", None) };
        scene.queue.enqueue(key.into(), wanted, now);
    }
    assert_eq!(admitted(&mut scene).len(), 2);
    let unknown = Request { client_version: None, content: "same".into(), ..request("a", "client", None) };
    scene.queue.enqueue("unknown".into(), unknown, now);
    scene.queue.settle(&"7".to_owned(), None, &failed(Reason::InvalidClient), now);
    assert_eq!(admitted(&mut scene), [""; 0], "the other one is still in flight");
    let (_, sharing) = scene.queue.settle(&"8".to_owned(), None, &Outcome::Succeeded, now);
    assert_eq!(sharing, ["unknown"]);
}

#[test]
fn request_gets_a_slot_of_its_own_after_an_equal_one_failed() {
    let mut scene = Scene::new(8, 6000);
    for key in ["1", "2"] {
        let now = scene.now();
        scene.queue.enqueue(key.into(), request("a", "client", None), now);
    }
    let now = scene.now();
    assert_eq!(scene.queue.admit(now).admitted.len(), 1);
    assert_eq!(scene.settle("1", &failed(Reason::InvalidScope)).1, Vec::<String>::new());
    assert_eq!(scene.queue.admit(now).admitted.len(), 1);
}
