//! `flotilla member`: the servers of the cluster, and how one is taken out.

use anyhow::bail;
use clap::Subcommand;
use serde_json::{Value, json};

use crate::GlobalOptions;
use crate::client::{Cluster, escape};
use crate::output;
use crate::output::object::{self, Format};
use crate::output::table::{Printer, Style, Table};

const MEMBERS: &str = "/apis/flotilla.dev/v1alpha1/members";

/// Flags of `member`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Show the servers: who leads, how far each one's log is, when it was last heard of
    #[command(visible_alias = "ls")]
    List(ListArguments),
    /// Take a server out of the cluster for good; the leader hands over first
    #[command(visible_alias = "rm")]
    Remove(RemoveArguments),
}

#[derive(Debug, clap::Args)]
struct ListArguments {
    /// wide, json, yaml, name, jsonpath=…, custom-columns=…
    #[arg(short, long, value_name = "FORMAT")]
    output: Option<String>,
    /// Leave out the line of column names
    #[arg(long)]
    no_headers: bool,
}

#[derive(Debug, clap::Args)]
struct RemoveArguments {
    /// The server's name, or its ID
    #[arg(value_name = "NAME|ID")]
    server: String,
    /// Also when those that are left and answer are no majority: the cluster takes no writes then
    #[arg(long)]
    force: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    match arguments.what {
        What::List(arguments) => list(&cluster, &arguments).await,
        What::Remove(arguments) => remove(&cluster, &arguments).await,
    }
}

async fn list(cluster: &Cluster, arguments: &ListArguments) -> anyhow::Result<()> {
    let format = Format::parse(arguments.output.as_deref())?;
    if !format.is_table() {
        let list = cluster.get(MEMBERS).await?;
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let text = object::render(&format, &object::list(&items), !arguments.no_headers)?;
        output::text(&text);
        return Ok(());
    }
    let table: Table = serde_json::from_value(cluster.get_table(MEMBERS).await?)?;
    let style = Style {
        wide: matches!(format, Format::Wide),
        no_headers: arguments.no_headers,
        ..Style::default()
    };
    output::text(&Printer::new(style).print(table));
    Ok(())
}

async fn remove(cluster: &Cluster, arguments: &RemoveArguments) -> anyhow::Result<()> {
    let list = cluster.get(MEMBERS).await?;
    let members = list["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let (name, id) = find(members, &arguments.server)?;
    let mut options = json!({"preconditions": {"uid": id}});
    if arguments.force {
        options["gracePeriodSeconds"] = 0.into();
    }
    cluster
        .delete(&format!("{MEMBERS}/{}", escape(&name)), &options)
        .await?;
    output::line(format!("member \"{name}\" removed"));
    Ok(())
}

/// Name and ID of the member that a word means.
fn find(members: &[Value], word: &str) -> anyhow::Result<(String, String)> {
    let text = |member: &Value, field: &str| {
        let field = member["metadata"][field].as_str();
        field.unwrap_or_default().to_owned()
    };
    let known = members
        .iter()
        .map(|member| (text(member, "name"), text(member, "uid")));
    let known: Vec<(String, String)> = known.collect();
    // A name may look like another one's ID; whoever types it means the name.
    let named = known.iter().find(|(name, _)| name == word);
    match named.or_else(|| known.iter().find(|(_, id)| id == word)) {
        Some(found) => Ok(found.clone()),
        None => {
            let names: Vec<&str> = known.iter().map(|(name, _)| name.as_str()).collect();
            bail!(
                "no server of this cluster has the name or ID \"{word}\"; there are: {}",
                names.join(", ")
            )
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(word: &str, expected: Expect) {
        let member = |name: &str, id: &str| json!({"metadata": {"name": name, "uid": id}});
        let members = [member("server-1", "17"), member("17", "4"), member("other", "5")];
        let said = match find(&members, word) {
            Ok((name, id)) => format!("{name} with ID {id}"),
            Err(error) => error.to_string(),
        };
        expected.assert_eq(&said);
    }

    #[test]
    fn a_server_is_named_by_name_or_id() {
        check("server-1", expect!["server-1 with ID 17"]);
        check("17", expect!["17 with ID 4"]);
        check("5", expect!["other with ID 5"]);
        check(
            "x",
            expect![[r#"no server of this cluster has the name or ID "x"; there are: server-1, 17, other"#]],
        );
    }
}
