//! Whose calls are answered.

use super::{AnswerError, PeerService};
use crate::storage::About;

impl PeerService {
    /// Refuses a caller of another cluster. `joins`: it asks to be taken in, and so may have none.
    pub fn check_caller(&self, cluster: Option<&str>, joins: bool) -> Result<(), AnswerError> {
        judge(self.core()?.about.load().as_deref(), cluster, joins)
    }
}

fn judge(own: Option<&About>, cluster: Option<&str>, joins: bool) -> Result<(), AnswerError> {
    // A replica that belongs to no cluster yet has its own ways of refusing; see `admitted`.
    let Some(own) = own else { return Ok(()) };
    match cluster {
        Some(cluster) if cluster == own.cluster => Ok(()),
        Some(cluster) if own.former.iter().any(|former| former == cluster) => {
            Err(AnswerError::LeftBehind(format!(
                "cluster {cluster} was reset, or restored from a snapshot, and is now {}: a server that still has the \
                 old data is no member of it",
                own.cluster
            )))
        }
        Some(cluster) => Err(AnswerError::Refused(format!(
            "the caller belongs to cluster {cluster}, this server to {}",
            own.cluster
        ))),
        None if joins => Ok(()),
        None => Err(AnswerError::Refused(
            "the caller does not say which cluster it belongs to".to_owned(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_members_of_the_same_cluster_are_answered() {
        let own = About {
            former: vec!["old".to_owned()],
            ..About::new("new")
        };
        assert_eq!(judge(None, Some("any"), false), Ok(()));
        assert_eq!(judge(Some(&own), Some("new"), false), Ok(()));
        assert_eq!(judge(Some(&own), None, true), Ok(()));
        assert!(matches!(
            judge(Some(&own), None, false),
            Err(AnswerError::Refused(_))
        ));
        assert!(matches!(
            judge(Some(&own), Some("other"), true),
            Err(AnswerError::Refused(_))
        ));
        assert!(matches!(
            judge(Some(&own), Some("old"), true),
            Err(AnswerError::LeftBehind(_))
        ));
    }
}
