//! The node on a machine that has nothing but cgroup v2, with Debian's kernel: this one has v1, and its containers are
//! tested there by the tests of each crate.

use std::fs;
use std::path::Path;
use std::time::Duration;

use flotilla_vm_tests::{Image, run, tree};

const PRELUDE: &str = include_str!("guest/prelude.sh");
/// Emulation is some ten times slower than the machine itself.
const LIMIT: Duration = Duration::from_secs(600);

#[test]
fn the_runtimes_own_tests_pass() {
    let image = Image::new(&format!("{PRELUDE}{}", include_str!("guest/runtime.sh")));
    let tests = tree().join("target/vm/tests");
    let mut programs = 0;
    for entry in fs::read_dir(&tests).expect("deploy/vm/tests has run") {
        let entry = entry.expect("a folder can be read");
        if entry.file_name() != "helper" {
            let name = entry.file_name().into_string().expect("a name is UTF-8");
            image.add(&entry.path(), &format!("/tests/{name}"));
            programs += 1;
        }
    }
    let helper = fs::read_to_string(tests.join("helper")).expect("deploy/vm/tests has run");
    image.add(Path::new(&helper), &helper);
    let console = run(&image, "", LIMIT);
    assert!(programs > 3 && console.held().len() > 30, "{}", console.text());
    assert!(console.broken().is_empty(), "{}", console.text());
}

#[test]
fn pods_of_a_whole_node_are_limited_and_survive_it() {
    let image = Image::new(&format!("{PRELUDE}{}", include_str!("guest/server.sh")));
    let binary = tree().join("target/x86_64-unknown-linux-gnu/release/flotilla");
    image.add(&binary, "/bin/flotilla");
    image.add_with_libraries(Path::new("/usr/sbin/nft"), "/bin/nft");
    image.add(&tree().join("target/images/busybox.tar"), "/images/busybox.tar");
    image.write("/pods.yaml", include_str!("guest/pods.yaml"));
    let console = run(&image, "", LIMIT);
    assert!(console.held().len() > 10, "{}", console.text());
    assert!(console.broken().is_empty(), "{}", console.text());
}
