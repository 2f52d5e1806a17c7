//! Pod, container and image put together.

use super::*;
use crate::environment::References;

fn found(pod: &str, container: &str, image: &ImageDefaults) -> Result<Launch, LaunchError> {
    let pod: Pod = serde_json::from_str(pod).unwrap();
    let container: Container = serde_json::from_str(container).unwrap();
    let references = References::default();
    let allocatable = Default::default();
    let facts = Facts {
        pod: &pod,
        references: &references,
        addresses: &[],
        host_addresses: &[],
        allocatable: &allocatable,
        services: &[],
    };
    let launch = launch(&facts, &container, image)?;
    check_non_root(&pod, &container, launch.user.parse().unwrap_or(0))?;
    Ok(launch)
}

fn image() -> ImageDefaults {
    let list = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
    ImageDefaults {
        entrypoint: list("/enter -x"),
        cmd: list("serve"),
        env: [("PATH", "/bin"), ("MODE", "image")]
            .map(|(k, v)| (k.to_owned(), v.to_owned()))
            .to_vec(),
        working_dir: "/srv".to_owned(),
        user: String::new(),
    }
}

const POD: &str = r#"{"metadata":{"name":"web","namespace":"default","uid":"u"},"spec":{"containers":[]}}"#;

fn args(container: &str) -> String {
    found(POD, container, &image()).unwrap().args.join(" ")
}

#[test]
fn command_and_args_stand_over_entrypoint_and_cmd() {
    assert_eq!(args(r#"{"name":"w"}"#), "/enter -x serve");
    assert_eq!(args(r#"{"name":"w","args":["a"]}"#), "/enter -x a");
    assert_eq!(args(r#"{"name":"w","command":["c"]}"#), "c");
    assert_eq!(args(r#"{"name":"w","command":["c"],"args":["a"]}"#), "c a");
}

#[test]
fn command_and_args_see_the_environment() {
    let container = r#"{"name":"w","command":["$(MODE)","$$(MODE)","$(NONE)"],"args":["$(HOSTNAME)","$(A)"],
        "env":[{"name":"A","value":"1"}]}"#;
    assert_eq!(args(container), "image $(MODE) $(NONE) web 1");
}

#[test]
fn nothing_to_run_is_an_error() {
    let error = found(POD, r#"{"name":"w"}"#, &ImageDefaults::default()).unwrap_err();
    assert_eq!(error.to_string(), "no command specified");
}

#[test]
fn an_image_without_path_gets_the_usual_one() {
    let launch = found(POD, r#"{"name":"w","command":["c"]}"#, &ImageDefaults::default()).unwrap();
    assert_eq!(launch.env[0], ("PATH".to_owned(), DEFAULT_PATH.to_owned()));
    assert_eq!((launch.cwd.as_str(), launch.user.as_str()), ("/", ""));
}

#[test]
fn the_containers_ids_win_over_the_pods() {
    let pod = r#"{"spec":{"containers":[],"securityContext":{"runAsUser":1,"runAsGroup":2,"fsGroup":7,
        "supplementalGroups":[5,6]}}}"#;
    let launch = found(pod, r#"{"name":"w","securityContext":{"runAsUser":9}}"#, &image()).unwrap();
    assert_eq!((launch.user.as_str(), launch.group), ("9", Some(2)));
    assert_eq!(launch.supplemental_groups, [5, 6, 7]);
}

#[test]
fn root_is_refused_where_the_pod_forbids_it() {
    let pod = r#"{"metadata":{"name":"web","namespace":"default","uid":"u"},
        "spec":{"containers":[],"securityContext":{"runAsNonRoot":true}}}"#;
    let error = found(pod, r#"{"name":"w"}"#, &image()).unwrap_err().to_string();
    let expected =
        "container has runAsNonRoot and image will run as root (pod: \"web_default(u)\", container: w)";
    assert_eq!(error, expected);
    assert!(found(pod, r#"{"name":"w","securityContext":{"runAsUser":9}}"#, &image()).is_ok());
    assert!(
        found(
            pod,
            r#"{"name":"w","securityContext":{"runAsNonRoot":false}}"#,
            &image()
        )
        .is_ok()
    );
}

#[test]
fn capabilities_are_passed_on_and_privilege_is_all_of_them() {
    let sets = |context: &str| {
        let container = format!(r#"{{"name":"w","securityContext":{context}}}"#);
        let launch = found(POD, &container, &image()).unwrap();
        format!(
            "+{} -{}",
            launch.capabilities_added.join(","),
            launch.capabilities_dropped.join(",")
        )
    };
    assert_eq!(sets("{}"), "+ -");
    assert_eq!(
        sets(r#"{"capabilities":{"drop":["ALL"],"add":["NET_RAW"]}}"#),
        "+NET_RAW -ALL"
    );
    assert_eq!(
        sets(r#"{"privileged":true,"capabilities":{"drop":["ALL"]}}"#),
        "+ALL -"
    );
}

#[test]
fn escalation_and_read_only_root_follow_the_context() {
    let context = r#"{"allowPrivilegeEscalation":false,"readOnlyRootFilesystem":true}"#;
    let launch = found(
        POD,
        &format!(r#"{{"name":"w","securityContext":{context}}}"#),
        &image(),
    )
    .unwrap();
    assert!(launch.no_new_privileges && launch.read_only_root && !launch.privileged);
}

#[test]
fn the_kernel_may_be_told_the_whole_name() {
    let named = |spec: &str| {
        let json = format!(r#"{{"metadata":{{"name":"web","namespace":"shop"}},"spec":{spec}}}"#);
        kernel_hostname(&serde_json::from_str(&json).unwrap(), "cluster.local")
    };
    let whole = r#"{"containers":[],"subdomain":"db","setHostnameAsFQDN":true}"#;
    assert_eq!(named(whole).unwrap(), "web.db.shop.svc.cluster.local");
    assert_eq!(named(r#"{"containers":[],"subdomain":"db"}"#).unwrap(), "web");
    let long = whole.replace("db", &"d".repeat(60));
    assert!(
        named(&long)
            .unwrap_err()
            .contains("is too long (64 characters is the max, 87")
    );
    let named_over = r#"{"containers":[],"hostname":"a","hostnameOverride":"b.c"}"#;
    assert_eq!(named(named_over).unwrap(), "b.c");
}
