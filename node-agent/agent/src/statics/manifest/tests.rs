//! What files become, and what is wrong with others.

use super::*;

const WEB: &str = "{apiVersion: v1, kind: Pod, metadata: {name: web, labels: {app: web}}, spec: {containers: [{name: c, image: 'a:1'}]}}";

fn read_one(text: &str) -> Result<Pod, String> {
    let now = Timestamp::from_second(1_000_000_000).unwrap();
    static_pod(text.as_bytes(), "web.yaml", "node-1", now).map_err(|error| report(&error))
}

#[test]
fn a_file_becomes_a_pod_of_this_node() {
    let pod = read_one(WEB).unwrap();
    let meta = &pod.metadata;
    assert_eq!(meta.name.as_deref(), Some("web-node-1"));
    assert_eq!(meta.namespace.as_deref(), Some("default"));
    let hash = meta.uid.as_deref().unwrap();
    assert_eq!(hash.len(), HASH_DIGITS);
    let annotations = meta.annotations.as_ref().unwrap();
    assert_eq!(annotations[HASH], hash);
    assert_eq!(annotations[SOURCE], "file");
    assert_eq!(annotations[SEEN], "2001-09-09T01:46:40Z");
    assert_eq!(annotations[FILE], "web.yaml");
    let spec = pod.spec.as_ref().unwrap();
    assert_eq!(spec.node_name.as_deref(), Some("node-1"));
    assert_eq!(spec.restart_policy.as_deref(), Some("Always"));
    assert_eq!(spec.service_account_name, None);
    let tolerations = spec.tolerations.as_ref().unwrap();
    assert_eq!(tolerations.last().unwrap().effect.as_deref(), Some("NoExecute"));
}

#[test]
fn the_hash_follows_the_meaning_not_the_spelling() {
    let hash = |text: &str| read_one(text).unwrap().metadata.uid.unwrap();
    assert_eq!(hash(WEB), hash(&WEB.replace("name: web,", "name: 'web',")));
    assert_ne!(hash(WEB), hash(&WEB.replace("a:1", "a:2")));
    let own = WEB.replace("name: web,", "name: web, uid: ../../etc, resourceVersion: '7',");
    assert_eq!(hash(&own).len(), HASH_DIGITS, "a file cannot choose a uid");
}

#[test]
fn what_a_static_pod_cannot_be_is_named() {
    #[track_caller]
    fn check(text: &str, expected: &str) {
        assert_eq!(read_one(text).unwrap_err(), expected);
    }
    check(
        &WEB.replace("kind: Pod", "kind: Deployment"),
        "holds a Deployment of v1, not a Pod of v1",
    );
    check("[]", "holds a nothing of nothing, not a Pod of v1");
    check(
        &WEB.replace("name: web, ", ""),
        "metadata.name: Required value: a static pod needs a name",
    );
    check(
        &WEB.replace(
            "spec: {",
            "spec: {volumes: [{name: v, secret: {secretName: s}}], ",
        ),
        "static pod \"web\" can not reference secrets: spec.volumes[0].secret",
    );
    check(
        &WEB.replace("image: 'a:1'", "imagePullPolicy: Always"),
        "Pod \"web-node-1\" is invalid: spec.containers[0].image: Required value",
    );
    assert!(
        read_one("a: [")
            .unwrap_err()
            .starts_with("is not YAML with one document: "),
        "{}",
        read_one("a: [").unwrap_err()
    );
    let wrong = read_one(&WEB.replace("containers: [", "containers: [7, ")).unwrap_err();
    assert!(wrong.contains("spec.containers[0]"), "{wrong}");
}

#[test]
fn only_visible_files_with_the_right_ending_count() {
    let folder = tempfile::tempdir().unwrap();
    for file in ["b.yml", "a.yaml", "c.json", ".d.yaml", "e.txt", "f.yaml~"] {
        fs::write(folder.path().join(file), WEB).unwrap();
    }
    fs::create_dir(folder.path().join("g.yaml")).unwrap();
    fs::write(folder.path().join("h.yaml"), "nonsense").unwrap();
    let found = read_folder(folder.path(), "n", Timestamp::UNIX_EPOCH).unwrap();
    let files: Vec<&str> = found.keys().map(String::as_str).collect();
    assert_eq!(files, ["a.yaml", "b.yml", "c.json", "h.yaml"]);
    let problem = found["h.yaml"].as_ref().unwrap_err();
    let path = folder.path().join("h.yaml");
    assert_eq!(
        *problem,
        format!("{} holds a nothing of nothing, not a Pod of v1", path.display())
    );
    assert!(
        read_folder(&folder.path().join("none"), "n", Timestamp::UNIX_EPOCH)
            .unwrap()
            .is_empty()
    );
}
