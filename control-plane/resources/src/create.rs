//! Creating objects.

use std::sync::Arc;

use flotilla_api::{Kind, Object, Reason, Status, add_default_tolerations, ingresses, registry};
use flotilla_store::{Key, Operation, Outcome, Require, Stored};
use k8s_openapi::{
    api::core::v1::{Namespace, Pod},
    api::networking::v1::{Ingress, IngressClass},
    api::scheduling::v1::PriorityClass,
    apimachinery::pkg::apis::meta::v1::Time,
};
use rand::seq::IndexedRandom;

use crate::{
    Resources, WriteOptions,
    propose::{fenced, store_draft},
    resources::{key, key_of},
};

/// Letters of generated names: no vowels, so that no words come out; no look-alikes. As in Kubernetes.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// A generated base is cut so that the name stays a DNS label of 63 characters.
const GENERATED_BASE_MAX: usize = 63 - SUFFIX_LENGTH;
/// So many suffixes are tried before the name is called taken.
const GENERATE_ATTEMPTS: usize = 8;
/// So often the namespace may change while an object is created in it.
const NAMESPACE_ATTEMPTS: usize = 8;
/// So often an address or port is chosen anew because another server was faster to take it.
const CLAIM_ATTEMPTS: usize = 8;

impl Resources {
    /// Stores a new object. Fills in name (from `generateName`), uid, creation time and defaults; validates;
    /// its namespace must exist and not be on its way out.
    pub async fn create(
        &self,
        kind: &'static Kind,
        namespace: &str,
        mut object: Box<dyn Object>,
        options: &WriteOptions,
    ) -> Result<Arc<Stored>, Status> {
        self.admit_new(kind, namespace, &mut *object)?;
        if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
            self.admit_account(kind, namespace, pod).await?;
        }
        let generated = object
            .meta()
            .name
            .is_none()
            .then(|| object.meta().generate_name.clone())
            .flatten();
        for attempt in 1.. {
            if let Some(base) = &generated {
                object.meta_mut().name = Some(generated_name(base));
            }
            kind.validate_create(&*object)?;
            match self.store_claiming(kind, namespace, &*object, options).await {
                Err(status)
                    if status.reason == Reason::AlreadyExists
                        && generated.is_some()
                        && attempt < GENERATE_ATTEMPTS => {}
                other => return other,
            }
        }
        unreachable!("the loop returns")
    }

    /// What admission does to every new object before it is validated.
    fn admit_new(&self, kind: &'static Kind, namespace: &str, object: &mut dyn Object) -> Result<(), Status> {
        let meta = object.meta_mut();
        if meta
            .resource_version
            .as_deref()
            .is_some_and(|version| !version.is_empty() && version != "0")
        {
            return Err(Status::bad_request(
                "resourceVersion should not be set on objects to be created",
            ));
        }
        settle_namespace(kind, namespace, meta.namespace.as_deref())?;
        meta.namespace = kind.namespaced.then(|| namespace.to_owned());
        meta.resource_version = None;
        meta.managed_fields = None;
        meta.deletion_timestamp = None;
        meta.deletion_grace_period_seconds = None;
        meta.name = meta.name.take().filter(|name| !name.is_empty());
        meta.uid = Some(uuid::Uuid::new_v4().to_string());
        meta.creation_timestamp = Some(now());
        kind.set_defaults(object);
        kind.prepare_create(object);
        if let Some(pod) = object.as_any_mut().downcast_mut::<Pod>() {
            add_default_tolerations(pod, self.options.toleration_seconds);
            self.admit_priority(pod)?;
        }
        if let Some(ingress) = object.as_any_mut().downcast_mut::<Ingress>() {
            self.admit_ingress(ingress);
        }
        if let Some(class) = object.as_any().downcast_ref::<PriorityClass>() {
            self.admit_priority_class(class)?;
        }
        Ok(())
    }

    /// Gives a new ingress that names no class the default one.
    fn admit_ingress(&self, ingress: &mut Ingress) {
        if ingresses::class_name(ingress).is_some() {
            return;
        }
        let (classes, _) = self.list_typed::<IngressClass>(None);
        let default = ingresses::default_class(classes.iter().map(|class| &**class));
        if let (Some(default), Some(spec)) = (default, &mut ingress.spec) {
            spec.ingress_class_name = Some(default.to_owned());
        }
    }

    /// Stores the object with what it claims for itself alone; chooses anew when others were faster.
    async fn store_claiming(
        &self,
        kind: &'static Kind,
        namespace: &str,
        object: &dyn Object,
        options: &WriteOptions,
    ) -> Result<Arc<Stored>, Status> {
        for attempt in 0..CLAIM_ATTEMPTS {
            let mut object = object.clone_box();
            let claims = match self.claim(kind, None, &mut *object) {
                // What this replica knows may be old.
                Err(_) if attempt == 0 => {
                    self.read().await?;
                    continue;
                }
                claims => claims?,
            };
            match self.store_new(kind, namespace, &*object, claims, options).await? {
                Some(stored) => return Ok(stored),
                None => drop(self.read().await?),
            }
        }
        let name = object.meta().name.as_deref().unwrap_or_default();
        Err(Status::modified(kind, name))
    }

    /// Nothing when somebody else has just claimed the same.
    async fn store_new(
        &self,
        kind: &'static Kind,
        namespace: &str,
        object: &dyn Object,
        claims: Vec<Operation>,
        options: &WriteOptions,
    ) -> Result<Option<Arc<Stored>>, Status> {
        let key = key_of(kind, object);
        let draft = store_draft(object);
        let mut home = kind.namespaced.then(|| self.home(namespace));
        for _ in 0..NAMESPACE_ATTEMPTS {
            let check = home.as_ref().map(|home| home.check()).transpose()?;
            if options.dry_run {
                return self.imagine_new(kind, key, &draft, home).await.map(Some);
            }
            let put = Operation::Put {
                key: key.clone(),
                draft: draft.clone(),
                require: Require::Absent,
            };
            let checks = check.iter().len();
            let operations = check.into_iter().chain([put]).chain(claims.iter().cloned());
            match self.propose(operations.collect()).await? {
                Outcome::Committed { objects, .. } => {
                    let stored = objects.into_iter().nth(checks).flatten();
                    let missing = || Status::internal("the store answered without the object");
                    return stored.ok_or_else(missing).map(Some);
                }
                Outcome::Conflict { operation, found } if operation < checks => {
                    let Some(home) = &mut home else { break };
                    home.found = found.ok_or_else(|| home.missing())?.into();
                }
                Outcome::Conflict { operation, .. } if operation > checks => return Ok(None),
                Outcome::Conflict { .. } => return Err(Status::already_exists(kind, &key.name)),
                Outcome::Fenced { term } => return Err(fenced(term)),
            }
        }
        Err(Status::modified(kind, &key.name))
    }

    async fn imagine_new(
        &self,
        kind: &'static Kind,
        key: Key,
        draft: &flotilla_store::Draft,
        home: Option<Home>,
    ) -> Result<Arc<Stored>, Status> {
        let snapshot = self.read().await?;
        if let Some(mut home) = home {
            home.found = Some(snapshot.get(&home.key).cloned().ok_or_else(|| home.missing())?);
            home.check()?;
        }
        match snapshot.get(&key) {
            Some(_) => Err(Status::already_exists(kind, &key.name)),
            None => Ok(Arc::new(Stored::imagined(key, draft))),
        }
    }

    fn home(&self, namespace: &str) -> Home {
        let kind = registry().of::<Namespace>();
        let key = key(kind, "", namespace);
        Home {
            kind,
            found: self.replica.snapshot().get(&key).cloned(),
            key,
        }
    }
}

/// The namespace of an object that is being created, as it was last seen.
struct Home {
    kind: &'static Kind,
    key: Key,
    found: Option<Arc<Stored>>,
}

impl Home {
    /// What must hold of the namespace when the object is stored. One that was not seen here may still exist.
    fn check(&self) -> Result<Operation, Status> {
        let require = match &self.found {
            None => Require::Modified(flotilla_store::Revision(0)),
            Some(found) => {
                if is_terminating(found) {
                    return Err(Status::forbidden(
                        self.kind,
                        &self.key.name,
                        &format!(
                            "unable to create new content in namespace {} because it is being terminated",
                            self.key.name
                        ),
                    ));
                }
                Require::Modified(found.modified)
            }
        };
        Ok(Operation::Check {
            key: self.key.clone(),
            require,
        })
    }

    fn missing(&self) -> Status {
        Status::not_found(self.kind, &self.key.name)
    }
}

fn is_terminating(namespace: &Stored) -> bool {
    #[derive(serde::Deserialize)]
    struct Partial {
        metadata: PartialMeta,
    }
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct PartialMeta {
        deletion_timestamp: Option<serde::de::IgnoredAny>,
    }
    serde_json::from_slice::<Partial>(&namespace.json)
        .is_ok_and(|found| found.metadata.deletion_timestamp.is_some())
}

/// Whether the namespace in the body fits that of the request.
pub(crate) fn settle_namespace(kind: &Kind, requested: &str, in_body: Option<&str>) -> Result<(), Status> {
    match in_body {
        Some(namespace) if kind.namespaced && !namespace.is_empty() && namespace != requested => {
            Err(Status::bad_request(format!(
                "the namespace of the provided object does not match the namespace sent on the request: \
                 the body says {namespace:?}, the request {requested:?}"
            )))
        }
        _ => Ok(()),
    }
}

/// Now, in whole seconds as Kubernetes stores times.
pub(crate) fn now() -> Time {
    let second = jiff::Timestamp::now().as_second();
    Time(jiff::Timestamp::from_second(second).expect("now is in range"))
}

fn generated_name(base: &str) -> String {
    let mut cut = base.len().min(GENERATED_BASE_MAX);
    while !base.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}{}", &base[..cut], random_suffix())
}

/// Five letters that make a name unique.
pub(crate) fn random_suffix() -> String {
    let mut rng = rand::rng();
    let letters = (0..SUFFIX_LENGTH).filter_map(|_| SUFFIX_LETTERS.choose(&mut rng));
    letters.map(|letter| char::from(*letter)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_stay_labels() {
        assert_eq!(generated_name("web-").len(), 9);
        assert!(generated_name("web-").starts_with("web-"));
        assert_eq!(generated_name(&"x".repeat(100)).len(), 63);
        assert_eq!(generated_name(&"é".repeat(50)).chars().count(), 29 + 5);
    }
}
