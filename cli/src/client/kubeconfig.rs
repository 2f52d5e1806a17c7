//! Which kubeconfig is used: `--kubeconfig`, `$KUBECONFIG`, `~/.kube/config`, else the local cluster's.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::GlobalOptions;

/// Where `flotilla local up` leaves the kubeconfig of the default cluster.
const LOCAL_CLUSTER: &str = "/var/lib/flotilla/local/default/kubeconfig";

/// Reads the kubeconfig and picks the context.
pub(super) async fn load(options: &GlobalOptions) -> anyhow::Result<kube::Config> {
    let kubeconfig = read(options.kubeconfig.as_deref())?;
    if let Some(context) = &options.context
        && !kubeconfig.contexts.iter().any(|known| &known.name == context)
    {
        bail!("context \"{context}\" does not exist in the kubeconfig");
    }
    let choice = KubeConfigOptions {
        context: options.context.clone(),
        ..KubeConfigOptions::default()
    };
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &choice)
        .await
        .context("the kubeconfig cannot be used")?;
    // A watch or a followed log may be silent for longer than any limit, and a command may take its input when it likes.
    config.read_timeout = None;
    config.write_timeout = None;
    Ok(config)
}

fn read(flag: Option<&Path>) -> anyhow::Result<Kubeconfig> {
    if let Some(path) = flag {
        return read_file(path);
    }
    if let Some(kubeconfig) = Kubeconfig::from_env().context("cannot read $KUBECONFIG")? {
        return Ok(kubeconfig);
    }
    let home = std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".kube/config"));
    let found = home
        .into_iter()
        .chain([PathBuf::from(LOCAL_CLUSTER)])
        .find(|path| path.exists());
    match found {
        Some(path) => read_file(&path),
        None => bail!(
            "no cluster is known: there is neither --kubeconfig, $KUBECONFIG, ~/.kube/config nor a local cluster\n\
             Start one with `flotilla local up`, or name a kubeconfig with --kubeconfig FILE."
        ),
    }
}

fn read_file(path: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(path).with_context(|| format!("cannot read the kubeconfig {}", path.display()))
}
