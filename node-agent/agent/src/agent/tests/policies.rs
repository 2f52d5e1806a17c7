//! Pods start with their network policies in the kernel.

use std::net::Ipv4Addr;

use super::*;

#[tokio::test]
async fn no_container_starts_before_the_kernel_knows_its_policies() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        bench.machine.knows_policies(false);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        let said = talk.until(|line| line.contains("FailedCreatePodSandBox")).await;
        assert!(
            last(&said).contains("the network policies are not known yet"),
            "{said:?}"
        );
        assert!(!bench.machine.log().iter().any(|entry| entry.starts_with("start")));
        bench.machine.knows_policies(true);
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_restarted_agent_knows_its_pods_before_it_touches_the_rules() {
    limited(async {
        let (bench, mut server) = (Bench::new(), TestServer::start().await);
        let agent = bench.agent(&[&server]).await;
        let mut talk = server.talk().await;
        talk.lead(&[&web()]).await;
        talk.until(|line| line == RUNNING).await;
        agent.stop().await;
        let tracker = TaskTracker::new();
        let mut assembly = Assembly::new(&bench.options(&[&server]), bench.machine.clone(), tracker).unwrap();
        assembly.restore().await;
        let mut known = None;
        bench
            .machine
            .policies()
            .change(|model| known = model.local_address("uid-web"));
        assert_eq!(known, Some(Ipv4Addr::new(10, 42, 1, 2)));
        assembly.drain().await;
    })
    .await;
}
