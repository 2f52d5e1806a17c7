//! The life of namespaces: what each starts with, and how one is emptied before it goes.

mod contents;
mod status;

use std::sync::Arc;
use std::time::Duration;

use flotilla_api::{Reason, Status};
use flotilla_resources::Part;
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

use crate::context::{self, Context, revision_of, settle, unless_gone};
use crate::follow::Seen;
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

/// Namespaces that every cluster has.
const SYSTEM: [&str; 4] = ["default", "kube-system", "kube-public", "kube-node-lease"];
const FINALIZER: &str = "kubernetes";
const ROOT_CA: &str = "kube-root-ca.crt";
const SERVICE_ACCOUNT: &str = "default";
/// What is left in a namespace usually tells when it goes; this is for what does not.
const EMPTYING_RECHECK: Duration = Duration::from_secs(1);

/// Starts the controller. What it returns is to be told of every object that is followed.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) -> impl Fn(&Seen) + Send + Sync + 'static {
    let queue = Queue::new();
    SYSTEM.iter().for_each(|name| queue.add(ObjectKey::cluster(name)));
    let feed = queue.clone();
    ctx.namespaces
        .subscribe(move |event| feed.add(ObjectKey::of(&**event.object())));
    runner.start(NamespaceController { ctx: Arc::clone(ctx) }, queue.clone());
    let namespaces = ctx.namespaces.clone();
    move |seen| {
        let Seen::Gone { key, .. } = seen else { return };
        let given = matches!(
            (&*key.resource.resource, &*key.name),
            ("configmaps", ROOT_CA) | ("serviceaccounts", SERVICE_ACCOUNT)
        );
        let terminating = || {
            namespaces
                .get("", &key.namespace)
                .is_some_and(|namespace| is_terminating(&namespace))
        };
        if !key.namespace.is_empty() && (given || terminating()) {
            queue.add(ObjectKey::cluster(&key.namespace));
        }
    }
}

fn is_terminating(namespace: &Namespace) -> bool {
    namespace.metadata.deletion_timestamp.is_some()
}

struct NamespaceController {
    ctx: Arc<Context>,
}

impl Reconcile for NamespaceController {
    type Key = ObjectKey;
    const NAME: &'static str = "namespace-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        match self.ctx.namespaces.get("", &key.name) {
            None if SYSTEM.contains(&key.name.as_str()) => self.found(&key.name).await,
            None => Ok(Next::Wait),
            Some(namespace) if is_terminating(&namespace) => self.empty(&namespace).await,
            Some(namespace) => self.furnish(&namespace).await,
        }
    }
}

impl NamespaceController {
    /// Creates a namespace that every cluster has.
    async fn found(&self, name: &str) -> Result<Next, ReconcileError> {
        let metadata = ObjectMeta {
            name: Some(name.to_owned()),
            ..ObjectMeta::default()
        };
        let namespace = Namespace {
            metadata,
            ..Namespace::default()
        };
        let created = unless_taken(self.ctx.resources.create_typed(namespace).await)?;
        settle(
            &self.ctx.namespaces,
            created.as_ref().map_or(Revision(0), revision_of),
        )
        .await?;
        Ok(Next::Wait)
    }

    /// Gives the namespace what every namespace has.
    async fn furnish(&self, namespace: &Namespace) -> Result<Next, ReconcileError> {
        let home = namespace.metadata.name.clone();
        let named = |name: &str| ObjectMeta {
            name: Some(name.to_owned()),
            namespace: home.clone(),
            ..ObjectMeta::default()
        };
        let account = ServiceAccount {
            metadata: named(SERVICE_ACCOUNT),
            ..ServiceAccount::default()
        };
        let key = ObjectKey::of(&account);
        let present = unless_gone(
            self.ctx
                .resources
                .get_typed::<ServiceAccount>(&key.namespace, &key.name)
                .await,
        )?;
        if present.is_none() {
            unless_taken(self.ctx.resources.create_typed(account).await)?;
        }
        if !self.ctx.options.root_ca.is_empty() {
            self.publish_root_ca(named(ROOT_CA)).await?;
        }
        Ok(Next::Wait)
    }

    async fn publish_root_ca(&self, metadata: ObjectMeta) -> Result<(), Status> {
        let data = Some([("ca.crt".to_owned(), self.ctx.options.root_ca.clone())].into());
        let map = ConfigMap {
            metadata,
            data,
            ..ConfigMap::default()
        };
        let key = ObjectKey::of(&map);
        match unless_gone(
            self.ctx
                .resources
                .get_typed::<ConfigMap>(&key.namespace, &key.name)
                .await,
        )? {
            None => unless_taken(self.ctx.resources.create_typed(map).await).map(drop),
            Some(found) if found.data == map.data => Ok(()),
            Some(_) => {
                let change = |found: &mut ConfigMap| {
                    found.data.clone_from(&map.data);
                    true
                };
                self.ctx
                    .resources
                    .modify(&key.namespace, &key.name, Part::Whole, change)
                    .await
                    .map(drop)
            }
        }
    }

    /// Deletes what is in the namespace; once that is gone the namespace may go.
    async fn empty(&self, namespace: &Namespace) -> Result<Next, ReconcileError> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let finalizers = namespace
            .spec
            .as_ref()
            .and_then(|spec| spec.finalizers.as_deref())
            .unwrap_or_default();
        if !finalizers.iter().any(|finalizer| finalizer == FINALIZER) {
            return Ok(Next::Wait);
        }
        contents::delete_all(&self.ctx, name).await?;
        let left = contents::left(&self.ctx, name);
        self.publish(namespace, &left).await?;
        if !left.is_empty() {
            return Ok(Next::RecheckAfter(EMPTYING_RECHECK));
        }
        let finalize = |found: &mut Namespace| {
            let finalizers = found
                .spec
                .get_or_insert_default()
                .finalizers
                .get_or_insert_default();
            finalizers.retain(|finalizer| finalizer != FINALIZER);
            found.metadata.uid == namespace.metadata.uid
        };
        self.ctx
            .resources
            .modify::<Namespace>("", name, Part::Whole, finalize)
            .await?;
        Ok(Next::Wait)
    }

    async fn publish(&self, namespace: &Namespace, left: &contents::Left) -> Result<(), ReconcileError> {
        let name = namespace.metadata.name.as_deref().unwrap_or_default();
        let now = context::stamp(context::now());
        let tell = |found: &mut Namespace| {
            found.metadata.uid == namespace.metadata.uid
                && status::describe(found.status.get_or_insert_default(), left, now)
        };
        let told = self
            .ctx
            .resources
            .modify::<Namespace>("", name, Part::Status, tell)
            .await?;
        settle(
            &self.ctx.namespaces,
            told.as_ref().map_or(Revision(0), revision_of),
        )
        .await
    }
}

/// Turns "it exists" into nothing: what was to be made is there.
fn unless_taken<T>(outcome: Result<T, Status>) -> Result<Option<T>, Status> {
    match outcome {
        Ok(made) => Ok(Some(made)),
        Err(status) if status.reason == Reason::AlreadyExists => Ok(None),
        Err(status) => Err(status),
    }
}
