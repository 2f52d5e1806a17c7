//! `flotilla get -w`: what is there, then each change, until interrupted.

use anyhow::bail;
use futures::StreamExt as _;
use serde_json::Value;

use super::{Get, as_table};
use crate::client::with_query;
use crate::output;
use crate::output::object::{self, Format};
use crate::output::table::Printer;
use crate::selection::{Selection, Target};
use crate::watch::{Event, Filter, by_name, watch};

/// Follows one kind, all of it or one object.
pub(super) async fn follow(get: &Get, selection: &Selection) -> anyhow::Result<()> {
    let [target] = selection.targets.as_slice() else {
        bail!("you may only specify a single resource type with --watch");
    };
    if target.names.len() > 1 {
        bail!(
            "watch is only supported on individual resources and resource collections - more than 1 resource was found"
        );
    }
    let one = target.names.first().map(|name| by_name(name));
    let fields: Vec<&str> = one
        .as_deref()
        .into_iter()
        .chain(get.arguments.field_selector.as_deref())
        .collect();
    let fields = (!fields.is_empty()).then(|| fields.join(","));
    let filter = Filter {
        labels: get.arguments.selector.as_deref(),
        fields: fields.as_deref(),
        table: get.format.is_table(),
    };
    let mut shower = Shower {
        get,
        printer: Printer::new(get.style(target, false)),
        revision: String::new(),
    };
    shower.list(target, &filter).await?;
    loop {
        // A server ends each watch after some minutes; it goes on where it was.
        let collection = target.resource.collection(get.namespace());
        let mut events = watch(&get.cluster, &collection, &filter, &shower.revision).await?;
        while let Some(event) = events.next().await {
            shower.event(event?)?;
        }
    }
}

struct Shower<'a> {
    get: &'a Get,
    printer: Printer,
    /// Of the latest state that was shown.
    revision: String,
}

impl Shower<'_> {
    async fn list(&mut self, target: &Target, filter: &Filter<'_>) -> anyhow::Result<()> {
        if let Some(name) = target.names.first() {
            // A list without the object would show nothing where an error is due.
            self.get
                .cluster
                .get(&target.resource.object(&self.get.cluster.namespace, name))
                .await?;
        }
        let collection = target.resource.collection(self.get.namespace());
        let path = with_query(
            &collection,
            &[("labelSelector", filter.labels), ("fieldSelector", filter.fields)],
        );
        let mut list = self.get.get(&path, filter.table).await?;
        self.revision = list["metadata"]["resourceVersion"]
            .as_str()
            .unwrap_or("0")
            .to_owned();
        if self.get.arguments.watch_only {
            return Ok(());
        }
        if filter.table {
            output::text(&self.printer.print(as_table(list)));
            return Ok(());
        }
        if let Value::Array(items) = list["items"].take() {
            for item in items {
                self.object(super::typed(
                    item,
                    &target.resource.api_version(),
                    &target.resource.kind,
                ))?;
            }
        }
        Ok(())
    }

    fn event(&mut self, event: Event) -> anyhow::Result<()> {
        let revision = |object: &Value| {
            object["metadata"]["resourceVersion"]
                .as_str()
                .filter(|text| !text.is_empty())
                .map(str::to_owned)
        };
        let in_row = revision(&event.object["rows"][0]["object"]);
        self.revision = in_row
            .or(revision(&event.object))
            .unwrap_or(std::mem::take(&mut self.revision));
        if event.change == "BOOKMARK" {
            return Ok(());
        }
        if self.get.format.is_table() {
            output::text(&self.printer.print(as_table(event.object)));
            return Ok(());
        }
        self.object(event.object)
    }

    fn object(&self, mut object: Value) -> anyhow::Result<()> {
        super::drop_managed_fields(&mut object);
        if matches!(self.get.format, Format::Yaml) {
            output::line("---");
        }
        output::text(&object::render(&self.get.format, &object, false)?);
        Ok(())
    }
}
