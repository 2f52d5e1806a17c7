//! The objects that `flotilla create KIND NAME` makes.

use anyhow::{Context as _, bail};
use clap::Subcommand;
use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

/// What can be created by flags.
#[derive(Debug, Subcommand)]
pub(super) enum Kind {
    /// A namespace
    #[command(visible_alias = "ns")]
    Namespace { name: String },
    /// A service account
    #[command(visible_alias = "sa")]
    Serviceaccount { name: String },
    /// A Deployment
    #[command(visible_alias = "deploy")]
    Deployment {
        name: String,
        /// Its images, one container each
        #[arg(long, required = true, value_delimiter = ',')]
        image: Vec<String>,
        #[arg(long, default_value_t = 1)]
        replicas: u32,
        /// A port that the container serves
        #[arg(long)]
        port: Option<u16>,
        /// The command that runs in place of the image's, after --
        #[arg(last = true)]
        command: Vec<String>,
    },
    /// A ConfigMap
    #[command(visible_alias = "cm")]
    Configmap {
        name: String,
        #[command(flatten)]
        data: Data,
    },
    /// A Secret
    Secret {
        #[command(subcommand)]
        kind: SecretKind,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum SecretKind {
    /// Of any content
    Generic {
        name: String,
        #[command(flatten)]
        data: Data,
        /// Its type
        #[arg(long = "type", default_value = "Opaque")]
        kind: String,
    },
}

/// Where the content comes from.
#[derive(Debug, clap::Args)]
pub(super) struct Data {
    /// KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE")]
    from_literal: Vec<String>,
    /// A file, a folder of files, or KEY=FILE
    #[arg(long, value_name = "[KEY=]FILE")]
    from_file: Vec<String>,
    /// A file of lines KEY=VALUE
    #[arg(long, value_name = "FILE")]
    from_env_file: Vec<String>,
}

/// An object, and where it goes.
pub(super) struct Generated {
    pub(super) object: Value,
    pub(super) prefix: &'static str,
    pub(super) plural: &'static str,
    pub(super) namespaced: bool,
    /// For messages.
    pub(super) word: &'static str,
}

/// Makes the object.
pub(super) fn generate(kind: &Kind) -> anyhow::Result<Generated> {
    let core = |object, plural, word| Generated {
        object,
        prefix: "/api/v1",
        plural,
        namespaced: plural != "namespaces",
        word,
    };
    let metadata = |name: &str| json!({"name": name});
    Ok(match kind {
        Kind::Namespace { name } => core(
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata(name)}),
            "namespaces",
            "namespace",
        ),
        Kind::Serviceaccount { name } => core(
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata(name)}),
            "serviceaccounts",
            "serviceaccount",
        ),
        Kind::Deployment {
            name,
            image,
            replicas,
            port,
            command,
        } => Generated {
            object: deployment(name, image, *replicas, *port, command)?,
            prefix: "/apis/apps/v1",
            plural: "deployments",
            namespaced: true,
            word: "deployment",
        },
        Kind::Configmap { name, data } => core(config_map(name, &data.read()?), "configmaps", "configmap"),
        Kind::Secret {
            kind: SecretKind::Generic { name, data, kind },
        } => core(secret(name, data.read()?, kind)?, "secrets", "secret"),
    })
}

fn deployment(
    name: &str,
    images: &[String],
    replicas: u32,
    port: Option<u16>,
    command: &[String],
) -> anyhow::Result<Value> {
    if images.len() > 1 && !command.is_empty() {
        bail!("cannot specify multiple --image options and command");
    }
    let container = |image: &String| {
        let file = image.rsplit('/').next().unwrap_or(image);
        let word = file
            .split(['@', ':'])
            .next()
            .unwrap_or(file)
            .replace(['_', '.'], "-")
            .to_lowercase();
        let mut container = json!({"name": word, "image": image});
        if let Some(port) = port {
            container["ports"] = json!([{"containerPort": port}]);
        }
        if !command.is_empty() {
            container["command"] = json!(command);
        }
        container
    };
    let containers: Vec<Value> = images.iter().map(container).collect();
    let labels = json!({"app": name});
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }))
}

fn config_map(name: &str, data: &[(String, Vec<u8>)]) -> Value {
    let mut object = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});
    for (key, bytes) in data {
        match std::str::from_utf8(bytes) {
            Ok(text) => object["data"][key] = text.into(),
            Err(_) => object["binaryData"][key] = json!(ByteString(bytes.clone())),
        }
    }
    object
}

fn secret(name: &str, data: Vec<(String, Vec<u8>)>, kind: &str) -> anyhow::Result<Value> {
    let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "type": kind});
    if !data.is_empty() {
        let encoded = data
            .into_iter()
            .map(|(key, bytes)| Ok((key, serde_json::to_value(ByteString(bytes))?)));
        object["data"] = Value::Object(encoded.collect::<anyhow::Result<Map<_, _>>>()?);
    }
    Ok(object)
}

impl Data {
    fn read(&self) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
        let mut data: Vec<(String, Vec<u8>)> = Vec::new();
        for literal in &self.from_literal {
            let (key, value) = literal
                .split_once('=')
                .with_context(|| format!("invalid literal source {literal}, expected key=value"))?;
            data.push((key.to_owned(), value.as_bytes().to_vec()));
        }
        for source in &self.from_file {
            data.extend(from_file(source)?);
        }
        for path in &self.from_env_file {
            let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
            for line in text
                .lines()
                .map(str::trim)
                .filter(|line| !line.is_empty() && !line.starts_with('#'))
            {
                let (key, value) = line
                    .split_once('=')
                    .with_context(|| format!("{path}: {line:?} is not KEY=VALUE"))?;
                data.push((key.to_owned(), value.as_bytes().to_vec()));
            }
        }
        for (index, (key, _)) in data.iter().enumerate() {
            if data[..index].iter().any(|(earlier, _)| earlier == key) {
                bail!("cannot add key \"{key}\", another key by that name already exists");
            }
        }
        Ok(data)
    }
}

fn from_file(source: &str) -> anyhow::Result<Vec<(String, Vec<u8>)>> {
    let read = |path: &std::path::Path| {
        std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))
    };
    let file_name = |path: &std::path::Path| {
        path.file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default()
    };
    if let Some((key, path)) = source.split_once('=') {
        return Ok(vec![(key.to_owned(), read(path.as_ref())?)]);
    }
    let path = std::path::Path::new(source);
    if !path.is_dir() {
        return Ok(vec![(file_name(path), read(path)?)]);
    }
    let mut files: Vec<_> = std::fs::read_dir(path)
        .with_context(|| format!("cannot read {source}"))?
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| path.is_file())
        .collect();
    files.sort();
    files
        .iter()
        .map(|path| Ok((file_name(path), read(path)?)))
        .collect()
}
