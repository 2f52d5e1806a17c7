//! `flotilla version`: the versions of client and server.

use serde_json::{Value, json};

use crate::GlobalOptions;
use crate::client::Cluster;
use crate::output;
use crate::output::object::{Format, render};

/// Flags of `version`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Do not ask a server
    #[arg(long)]
    client: bool,
    /// json or yaml
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let format = Format::parse(arguments.output.as_deref())?;
    let client = format!("v{}", env!("CARGO_PKG_VERSION"));
    if format.is_table() {
        output::line(format!("Client Version: {client}"));
    }
    let server = match arguments.client {
        true => Value::Null,
        false => Cluster::connect(global).await?.get("/version").await?,
    };
    if !format.is_table() {
        let mut versions = json!({"clientVersion": {"gitVersion": client}});
        if !server.is_null() {
            versions["serverVersion"] = server;
        }
        output::text(&render(&format, &versions, true)?);
    } else if let Some(version) = server["gitVersion"].as_str() {
        output::line(format!("Server Version: {version}"));
    }
    Ok(())
}
