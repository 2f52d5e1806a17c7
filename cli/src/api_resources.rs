//! `flotilla api-resources`: the kinds that the server has.

use crate::GlobalOptions;
use crate::client::Cluster;
use crate::discovery::{Discovery, Resource};
use crate::output;
use crate::output::name::qualified_plural;
use crate::output::tabwriter::{TABLE, align};

/// Flags of `api-resources`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// wide (also verbs and categories) or name
    #[arg(short, long, value_name = "FORMAT", value_parser = ["wide", "name"])]
    output: Option<String>,
    /// Only of this group
    #[arg(long, value_name = "GROUP")]
    api_group: Option<String>,
    /// Only kinds that live in namespaces, or only those that do not
    #[arg(long, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    namespaced: Option<bool>,
    /// Only kinds that allow all of these verbs
    #[arg(long, value_delimiter = ',')]
    verbs: Vec<String>,
    /// Leave out the line of column names
    #[arg(long)]
    no_headers: bool,
}

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    let discovery = Discovery::load(&cluster).await?;
    let mut resources: Vec<&Resource> = discovery
        .all()
        .iter()
        .filter(|resource| {
            resource.preferred
                && arguments
                    .namespaced
                    .is_none_or(|wanted| wanted == resource.namespaced)
                && arguments
                    .api_group
                    .as_ref()
                    .is_none_or(|group| group == &resource.group)
                && arguments.verbs.iter().all(|verb| resource.allows(verb))
        })
        .collect();
    resources.sort_by_key(|resource| (resource.group.as_str(), resource.plural.as_str()));
    if arguments.output.as_deref() == Some("name") {
        let names = resources.iter().map(|resource| qualified_plural(resource) + "\n");
        output::text(&names.collect::<String>());
        return Ok(());
    }
    output::text(&table(
        &resources,
        arguments.output.is_some(),
        !arguments.no_headers,
    ));
    Ok(())
}

fn table(resources: &[&Resource], wide: bool, headers: bool) -> String {
    let mut text = String::new();
    if headers {
        text.push_str("NAME\tSHORTNAMES\tAPIVERSION\tNAMESPACED\tKIND");
        text.push_str(if wide { "\tVERBS\tCATEGORIES\n" } else { "\n" });
    }
    for resource in resources {
        let Resource {
            plural,
            kind,
            namespaced,
            ..
        } = resource;
        let short_names = resource.short_names.join(",");
        text.push_str(&format!(
            "{plural}\t{short_names}\t{}\t{namespaced}\t{kind}",
            resource.api_version()
        ));
        if wide {
            text.push_str(&format!(
                "\t{}\t{}",
                resource.verbs.join(","),
                resource.categories.join(",")
            ));
        }
        text.push('\n');
    }
    align(TABLE, &text)
}
