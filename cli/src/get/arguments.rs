//! Flags of `get`.

use crate::manifest::FileOptions;

/// Flags of `get`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// TYPE, TYPE NAME…, TYPE/NAME…, TYPE,TYPE or all
    #[arg(value_name = "TYPE[/NAME]")]
    pub(super) words: Vec<String>,
    #[command(flatten)]
    pub(super) files: FileOptions,
    /// wide, json, yaml, name, jsonpath=…, jsonpath-file=…, custom-columns=…, custom-columns-file=…
    #[arg(short, long, value_name = "FORMAT")]
    pub(super) output: Option<String>,
    /// In all namespaces
    #[arg(short = 'A', long)]
    pub(super) all_namespaces: bool,
    /// Only objects with these labels: a=b,c!=d,e in (f,g),!h
    #[arg(short = 'l', long, value_name = "LABELS")]
    pub(super) selector: Option<String>,
    /// Only objects with these fields: status.phase=Running
    #[arg(long, value_name = "FIELDS")]
    pub(super) field_selector: Option<String>,
    /// Add a column of all labels
    #[arg(long)]
    pub(super) show_labels: bool,
    /// Add a column for each of these labels
    #[arg(short = 'L', long = "label-columns", value_name = "LABEL")]
    pub(super) label_columns: Vec<String>,
    /// Leave out the line of column names
    #[arg(long)]
    pub(super) no_headers: bool,
    /// Sort by the field at this path: .metadata.creationTimestamp
    #[arg(long, value_name = "PATH")]
    pub(super) sort_by: Option<String>,
    /// Go on with each change
    #[arg(short, long)]
    pub(super) watch: bool,
    /// Only show changes, not what is there already
    #[arg(long)]
    pub(super) watch_only: bool,
    /// An object that does not exist is no error
    #[arg(long)]
    pub(super) ignore_not_found: bool,
    /// Show the bookkeeping of server-side apply in json and yaml
    #[arg(long)]
    pub(super) show_managed_fields: bool,
    /// Print what the server answers at this path
    #[arg(long, value_name = "PATH", conflicts_with_all = ["words", "files", "output", "watch"])]
    pub(super) raw: Option<String>,
}

impl Arguments {
    pub(super) fn watches(&self) -> bool {
        self.watch || self.watch_only
    }
}
