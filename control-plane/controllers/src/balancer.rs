//! Gives services of type LoadBalancer their addresses: from a pool that nodes announce by ARP, or the nodes' own.
//!
//! Services of another class (`loadBalancerClass`) are left to whoever looks after it.

pub(crate) mod plan;
mod pool;

use std::sync::Arc;

use flotilla_resources::{EventType, Part};
use flotilla_store::Revision;
use k8s_openapi::api::core::v1::{Node, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use tokio::sync::Mutex;

use crate::context::{Context, revision_of, settle};
use crate::runner::{Next, ObjectKey, Queue, Reconcile, ReconcileError, Runner};

use plan::{Decision, View};
pub use pool::{AddressPool, ParsePoolError};

const COMPONENT: &str = "service-controller";

/// Starts the controller.
pub(crate) fn start(ctx: &Arc<Context>, runner: &Runner) {
    let queue = Queue::new();
    let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
    ctx.services.subscribe(move |event| {
        let service = event.object();
        if plan::concerns(service) {
            feed.add(ObjectKey::of(&**service));
            // What it had may be what others wait for.
            if let Some(ctx) = known.upgrade() {
                waiting(&ctx).for_each(|key| feed.add(key));
            }
        }
    });
    if ctx.options.load_balancer_pool.is_empty() {
        let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
        ctx.nodes.subscribe(move |_| {
            if let Some(ctx) = known.upgrade() {
                balanced(&ctx).for_each(|key| feed.add(key));
            }
        });
        let (feed, known) = (queue.clone(), Arc::downgrade(ctx));
        ctx.endpoint_slices.subscribe(move |event| {
            if let (Some(ctx), Some(key)) = (known.upgrade(), crate::endpoints::service_of(event.object()))
                && ctx
                    .services
                    .get(&key.namespace, &key.name)
                    .is_some_and(|service| plan::keeps_clients(&service))
            {
                feed.add(key);
            }
        });
    }
    let controller = BalancerController {
        ctx: Arc::clone(ctx),
        one_at_a_time: Mutex::default(),
    };
    runner.start(controller, queue);
}

fn balanced(ctx: &Context) -> impl Iterator<Item = ObjectKey> {
    let services = ctx.services.list(None).into_iter();
    services
        .filter(|service| plan::concerns(service))
        .map(|service| ObjectKey::of(&*service))
}

fn waiting(ctx: &Context) -> impl Iterator<Item = ObjectKey> {
    let services = ctx.services.list(None).into_iter();
    services
        .filter(|service| plan::waits(service))
        .map(|service| ObjectKey::of(&*service))
}

struct BalancerController {
    ctx: Arc<Context>,
    /// Held from looking for an address until the cache shows that it is given.
    one_at_a_time: Mutex<()>,
}

impl Reconcile for BalancerController {
    type Key = ObjectKey;
    const NAME: &'static str = "load-balancer-controller";

    async fn reconcile(&self, key: &ObjectKey) -> Result<Next, ReconcileError> {
        let _alone = self.one_at_a_time.lock().await;
        let Some(service) = self.ctx.services.get(&key.namespace, &key.name) else {
            return Ok(Next::Wait);
        };
        let (services, nodes) = (self.ctx.services.list(None), self.ctx.nodes.list(None));
        let slices = self.slices(key);
        let members = self.ctx.resources.replica().members();
        let view = View {
            pool: &self.ctx.options.load_balancer_pool,
            services: &services,
            nodes: &nodes,
            slices: &slices,
            api_ports: members
                .iter()
                .filter_map(|member| member.address.rsplit_once(':')?.1.parse().ok())
                .collect(),
        };
        match plan::decide(&service, &view) {
            Decision::Keep => {}
            Decision::Write(addresses) => self.write(key, &addresses).await?,
            Decision::Refuse(message) => {
                self.ctx.event(
                    COMPONENT,
                    &*service,
                    EventType::Warning,
                    "AllocationFailed",
                    message,
                );
                if !plan::ingress(&service).is_empty() {
                    self.write(key, &[]).await?;
                }
            }
        }
        Ok(Next::Wait)
    }
}

impl BalancerController {
    fn slices(&self, key: &ObjectKey) -> Vec<Arc<EndpointSlice>> {
        let mut slices = self.ctx.endpoint_slices.list(Some(&key.namespace));
        slices.retain(|slice| crate::endpoints::service_of(slice).as_ref() == Some(key));
        slices
    }

    async fn write(&self, key: &ObjectKey, addresses: &[std::net::Ipv4Addr]) -> Result<(), ReconcileError> {
        let change = |service: &mut Service| plan::set_ingress(service, addresses);
        let written = self
            .ctx
            .resources
            .modify(&key.namespace, &key.name, Part::Status, change)
            .await?;
        settle(
            &self.ctx.services,
            written.as_ref().map_or(Revision(0), revision_of),
        )
        .await
    }
}

/// Whether the node's own address may be given to services and ingresses.
pub(crate) fn serves(node: &Node) -> bool {
    const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers";
    let is_excluded = node
        .metadata
        .labels
        .as_ref()
        .is_some_and(|labels| labels.contains_key(EXCLUDED));
    !is_excluded && node.metadata.deletion_timestamp.is_none() && crate::node::is_ready(node)
}
