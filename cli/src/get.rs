//! `flotilla get`: shows objects as the server's tables, or whole.

mod arguments;
mod follow;

use anyhow::Context as _;
use serde_json::Value;

use crate::GlobalOptions;
use crate::client::{Cluster, RequestError, with_query};
use crate::discovery::Discovery;
use crate::manifest;
use crate::output::error::{AlreadyReported, explain};
use crate::output::jsonpath::Path;
use crate::output::object::{self, Format};
use crate::output::table::{Printer, Style, Table};
use crate::output::{self, name};
use crate::selection::{Selection, Target, select};

pub(crate) use arguments::Arguments;

/// How many objects one request brings; long lists arrive in parts.
const PAGE: &str = "500";

/// Runs the verb.
pub(crate) async fn run(arguments: Arguments, global: &GlobalOptions) -> anyhow::Result<()> {
    let cluster = Cluster::connect(global).await?;
    if let Some(path) = &arguments.raw {
        output::text(&cluster.get_text(path).await?);
        return Ok(());
    }
    let format = Format::parse(arguments.output.as_deref())?;
    let sort_by = arguments
        .sort_by
        .as_deref()
        .map(Path::parse_relaxed)
        .transpose()?;
    let discovery = Discovery::load(&cluster).await?;
    let get = Get {
        cluster,
        arguments,
        format,
        sort_by,
    };
    if get.arguments.files.files.is_empty() {
        let selection = select(&discovery, &get.arguments.words)?;
        return get.show(&selection).await;
    }
    let mut targets: Vec<Target> = Vec::new();
    let mut namespace = None;
    for manifest in manifest::load(&get.arguments.files, &discovery).await? {
        namespace = manifest.document.namespace().map(str::to_owned).or(namespace);
        targets.push(Target {
            names: vec![manifest.document.name().to_owned()],
            resource: manifest.resource,
        });
    }
    let selection = Selection {
        several_kinds: targets.len() > 1,
        single: targets.len() == 1,
        targets,
    };
    let mut get = get;
    get.cluster.namespace = global
        .namespace
        .clone()
        .or(namespace)
        .unwrap_or(get.cluster.namespace);
    get.show(&selection).await
}

struct Get {
    cluster: Cluster,
    arguments: Arguments,
    format: Format,
    sort_by: Option<Path>,
}

/// What was found, and what could not be had.
struct Found<T> {
    found: Vec<T>,
    errors: Vec<RequestError>,
}

impl Get {
    async fn show(&self, selection: &Selection) -> anyhow::Result<()> {
        if self.arguments.watches() {
            return follow::follow(self, selection).await;
        }
        let errors = if self.format.is_table() {
            self.show_tables(selection).await?
        } else {
            self.show_objects(selection).await?
        };
        for error in &errors {
            output::error_line(explain_one(error));
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(AlreadyReported.into())
        }
    }

    async fn show_tables(&self, selection: &Selection) -> anyhow::Result<Vec<RequestError>> {
        let mut errors = Vec::new();
        let mut blocks = Vec::new();
        for target in &selection.targets {
            let mut fetched = self.tables(target).await;
            errors.append(&mut fetched.errors);
            let mut table = join(fetched.found);
            if let Some(path) = &self.sort_by {
                table
                    .rows
                    .sort_by(|a, b| compare(&path.find(&a.object), &path.find(&b.object)));
            }
            if !table.rows.is_empty() {
                blocks.push(Printer::new(self.style(target, selection.several_kinds)).print(table));
            }
        }
        let separator = if self.arguments.no_headers { "" } else { "\n" };
        output::text(&blocks.join(separator));
        if blocks.is_empty() && errors.is_empty() && !self.arguments.ignore_not_found {
            output::error_line(self.nothing_found(selection));
        }
        Ok(errors)
    }

    async fn show_objects(&self, selection: &Selection) -> anyhow::Result<Vec<RequestError>> {
        let mut objects = Vec::new();
        let mut errors = Vec::new();
        for target in &selection.targets {
            let mut fetched = self.objects(target).await;
            errors.append(&mut fetched.errors);
            objects.append(&mut fetched.found);
        }
        if let Some(path) = &self.sort_by {
            objects.sort_by(|a, b| compare(&path.find(a), &path.find(b)));
        }
        if !self.arguments.show_managed_fields && matches!(self.format, Format::Json | Format::Yaml) {
            objects.iter_mut().for_each(drop_managed_fields);
        }
        let whole = match (selection.single, objects.as_slice()) {
            (true, [object]) => object.clone(),
            (true, _) => return Ok(errors),
            (false, objects) => object::list(objects),
        };
        output::text(&object::render(&self.format, &whole, !self.arguments.no_headers)?);
        Ok(errors)
    }

    async fn tables(&self, target: &Target) -> Found<Table> {
        let whole_objects = self.sort_by.as_ref().map(|_| "Object");
        self.fetch(
            target,
            |value: Value| Some(vec![as_table(value)]),
            whole_objects,
            true,
        )
        .await
    }

    async fn objects(&self, target: &Target) -> Found<Value> {
        let resource = &target.resource;
        let unwrap = |mut value: Value| match value["items"].take() {
            // Items of a list do not say their kind.
            Value::Array(items) => Some(
                items
                    .into_iter()
                    .map(|item| typed(item, &resource.api_version(), &resource.kind))
                    .collect(),
            ),
            _ => None,
        };
        self.fetch(target, unwrap, None, false).await
    }

    /// Gets the named objects one by one, or the list page by page.
    async fn fetch<T: Answer>(
        &self,
        target: &Target,
        unwrap: impl Fn(Value) -> Option<Vec<T>>,
        include: Option<&str>,
        table: bool,
    ) -> Found<T> {
        let mut out = Found {
            found: Vec::new(),
            errors: Vec::new(),
        };
        if !target.names.is_empty() {
            for name in &target.names {
                let path = with_query(
                    &target.resource.object(&self.cluster.namespace, name),
                    &[("includeObject", include)],
                );
                match self.get(&path, table).await {
                    Ok(value) => out.found.push(T::from_value(value)),
                    Err(error) if error.is_not_found() && self.arguments.ignore_not_found => {}
                    Err(error) => out.errors.push(error),
                }
            }
            return out;
        }
        let mut next: Option<String> = None;
        loop {
            let path = with_query(
                &target.resource.collection(self.namespace()),
                &[
                    ("limit", Some(PAGE)),
                    ("continue", next.as_deref()),
                    ("labelSelector", self.arguments.selector.as_deref()),
                    ("fieldSelector", self.arguments.field_selector.as_deref()),
                    ("includeObject", include),
                ],
            );
            match self.get(&path, table).await {
                Ok(value) => {
                    next = value["metadata"]["continue"]
                        .as_str()
                        .filter(|token| !token.is_empty())
                        .map(str::to_owned);
                    out.found.extend(unwrap(value).into_iter().flatten());
                }
                Err(error) => {
                    out.errors.push(error);
                    return out;
                }
            }
            if next.is_none() {
                return out;
            }
        }
    }

    async fn get(&self, path: &str, table: bool) -> Result<Value, RequestError> {
        if table {
            self.cluster.get_table(path).await
        } else {
            self.cluster.get(path).await
        }
    }

    /// None for all namespaces.
    fn namespace(&self) -> Option<&str> {
        (!self.arguments.all_namespaces).then_some(self.cluster.namespace.as_str())
    }

    fn style(&self, target: &Target, several_kinds: bool) -> Style {
        Style {
            wide: matches!(self.format, Format::Wide),
            no_headers: self.arguments.no_headers,
            with_namespace: self.arguments.all_namespaces && target.resource.namespaced,
            kind_prefix: several_kinds.then(|| name::qualified_singular(&target.resource)),
            show_labels: self.arguments.show_labels,
            label_columns: self
                .arguments
                .label_columns
                .iter()
                .flat_map(|text| text.split(','))
                .map(str::to_owned)
                .collect(),
        }
    }

    fn nothing_found(&self, selection: &Selection) -> String {
        let namespaced = selection.targets.iter().any(|target| target.resource.namespaced);
        match self.namespace() {
            Some(namespace) if namespaced => format!("No resources found in {namespace} namespace."),
            _ => "No resources found".to_owned(),
        }
    }
}

/// What a single object's answer becomes.
trait Answer {
    fn from_value(value: Value) -> Self;
}

impl Answer for Table {
    fn from_value(value: Value) -> Table {
        as_table(value)
    }
}

impl Answer for Value {
    fn from_value(value: Value) -> Value {
        value
    }
}

/// Reads a table; a server that makes none gets one of names and ages.
fn as_table(value: Value) -> Table {
    if value["kind"] == "Table" {
        return serde_json::from_value(value).unwrap_or_default();
    }
    let now = jiff::Timestamp::now();
    let objects = match &value["items"] {
        Value::Array(items) => items.clone(),
        _ => vec![value],
    };
    let row = |object: Value| {
        let age = output::age::since(&object["metadata"]["creationTimestamp"], now);
        serde_json::json!({"cells": [object["metadata"]["name"], age], "object": object})
    };
    let rows: Vec<Value> = objects.into_iter().map(row).collect();
    let table = serde_json::json!({"columnDefinitions": [{"name": "Name"}, {"name": "Age"}], "rows": rows});
    serde_json::from_value(table).unwrap_or_default()
}

fn join(tables: Vec<Table>) -> Table {
    let mut tables = tables.into_iter();
    let mut joined = tables.next().unwrap_or_default();
    for table in tables {
        joined.rows.extend(table.rows);
    }
    joined
}

fn typed(mut object: Value, api_version: &str, kind: &str) -> Value {
    if object["kind"].is_null() {
        object["apiVersion"] = api_version.into();
        object["kind"] = kind.into();
    }
    object
}

fn drop_managed_fields(object: &mut Value) {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
}

/// Numbers by size, text (and times, whose text sorts as they do) by letters; what is absent is first.
fn compare(a: &[&Value], b: &[&Value]) -> std::cmp::Ordering {
    match (a.first(), b.first()) {
        (Some(Value::Number(a)), Some(Value::Number(b))) => a
            .as_f64()
            .partial_cmp(&b.as_f64())
            .unwrap_or(std::cmp::Ordering::Equal),
        (a, b) => {
            let text = |value: Option<&&Value>| {
                value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned))
            };
            text(a).cmp(&text(b))
        }
    }
}

fn explain_one(error: &RequestError) -> String {
    match error {
        RequestError::Server(status) => explain(&anyhow::Error::from(RequestError::Server(status.clone()))),
        other => other.to_string(),
    }
}

/// Names all objects of the kind that the labels let through.
pub(crate) async fn find_names(
    cluster: &Cluster,
    target: &mut Target,
    labels: Option<&str>,
) -> anyhow::Result<()> {
    let objects = fetch_all(cluster, target, labels).await?;
    let names = objects
        .iter()
        .filter_map(|object| object["metadata"]["name"].as_str());
    target.names.extend(names.map(str::to_owned));
    Ok(())
}

/// Reads what a `TYPE NAME` word pair names, for verbs that need exactly that.
pub(crate) async fn fetch_all(
    cluster: &Cluster,
    target: &Target,
    labels: Option<&str>,
) -> anyhow::Result<Vec<Value>> {
    let resource = &target.resource;
    if !target.names.is_empty() {
        let gets = target
            .names
            .iter()
            .map(|name| async move { cluster.get(&resource.object(&cluster.namespace, name)).await });
        return Ok(futures::future::try_join_all(gets).await?);
    }
    let path = with_query(
        &resource.collection(Some(&cluster.namespace)),
        &[("labelSelector", labels)],
    );
    let mut list = cluster
        .get(&path)
        .await
        .with_context(|| format!("cannot list {}", resource.plural))?;
    let items = match list["items"].take() {
        Value::Array(items) => items,
        _ => Vec::new(),
    };
    Ok(items
        .into_iter()
        .map(|item| typed(item, &resource.api_version(), &resource.kind))
        .collect())
}
