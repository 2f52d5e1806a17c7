//! Real software in images made of Debian packages (`deploy/images/build`).

use std::time::Duration;

use flotilla_cluster_tests::{Cluster, eventually};

const LIMIT: Duration = Duration::from_secs(60);

/// Waits until a pod has ended; its phase.
fn end_of(cluster: &Cluster, pod: &str) -> String {
    eventually(&format!("{pod} has ended"), LIMIT, || {
        let phase = cluster.get(&["pod", pod])["status"]["phase"].as_str()?.to_owned();
        matches!(phase.as_str(), "Succeeded" | "Failed").then_some(phase)
    })
}

fn address(cluster: &Cluster, pod: &str) -> String {
    let found = cluster.ready_pods(&format!("app={pod}"), 1, LIMIT);
    found[0]["status"]["podIP"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

fn server(name: &str, image: &str, more: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: {name}}}}}\n\
         spec: {{containers: [{{name: main, image: '{image}'{more}}}]}}\n---\n"
    )
}

fn client(name: &str, image: &str, script: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}}}\nspec:\n  restartPolicy: Never\n  containers:\n  \
         - {{name: main, image: '{image}', command: [sh, -c, '{script}']}}\n"
    )
}

#[test]
fn nginx_redis_and_postgresql_serve() {
    let cluster = Cluster::up(1, 0);
    for image in ["busybox", "nginx", "redis", "postgres"] {
        cluster.import_image(image);
    }
    let password = ", env: [{name: POSTGRES_PASSWORD, value: secret}, {name: POSTGRES_DB, value: shop}]";
    cluster.apply(&format!(
        "{}{}{}{}",
        server("one", "flotilla.test/nginx:1", ""),
        server("two", "flotilla.test/nginx:2", ""),
        server(
            "redis",
            "flotilla.test/redis:1",
            ", args: [--appendonly, \"yes\"]"
        ),
        server("postgres", "flotilla.test/postgres:1", password),
    ));
    let [one, two, redis, postgres] = ["one", "two", "redis", "postgres"].map(|pod| address(&cluster, pod));
    let get = |ip: &str, version: u8| {
        format!("until wget -q -O - http://{ip}/ | grep -q \"version {version}\"; do sleep 0.1; done")
    };
    let sql = format!("psql -h {postgres} -U postgres shop -t -c \"select 6 * 7\" | grep -q 42");
    cluster.apply(&format!(
        "{}---\n{}---\n{}",
        client(
            "web",
            "flotilla.test/busybox",
            &format!("set -e; {}; {}", get(&one, 1), get(&two, 2))
        ),
        client(
            "cache",
            "flotilla.test/redis:1",
            &format!("set -e; until redis-cli -h {redis} set a b; do sleep 0.1; done; redis-cli -h {redis} get a | grep -q b")
        ),
        client(
            "shop",
            "flotilla.test/postgres:1",
            &format!("until pg_isready -h {postgres}; do sleep 0.1; done; export PGPASSWORD=wrong; ! {sql} && export PGPASSWORD=secret && {sql}")
        ),
    ));
    for pod in ["web", "cache", "shop"] {
        let phase = end_of(&cluster, pod);
        assert_eq!(phase, "Succeeded", "{pod}: {}", cluster.flotilla(&["logs", pod]));
    }
    let log = eventually("nginx has written to its log", LIMIT, || {
        Some(cluster.flotilla(&["logs", "one"])).filter(|log| log.contains("GET / HTTP"))
    });
    assert!(log.contains(" 200 "), "{log}");
    assert!(
        cluster
            .flotilla(&["logs", "postgres"])
            .contains("ready to accept connections")
    );
}
