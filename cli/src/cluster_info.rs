//! `flotilla cluster-info`: where the control plane is.

use crate::GlobalOptions;
use crate::client::Cluster;
use crate::output;

/// Runs the verb; asks for the version so that an unreachable server is told of.
pub(crate) async fn run(global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    cluster.get("/version").await?;
    output::line(format!("Kubernetes control plane is running at {}", cluster.url));
    let nodes = cluster.get("/api/v1/nodes").await?;
    let nodes = nodes["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let ready = nodes.iter().filter(|node| {
        let conditions = node["status"]["conditions"].as_array();
        conditions
            .into_iter()
            .flatten()
            .any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    output::line(format!("Nodes: {}, {} ready", nodes.len(), ready.count()));
    Ok(())
}
