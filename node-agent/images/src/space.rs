//! Which images go when the disk is full: kubelet's rules. Pure.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// When images are removed, and when that is enough.
#[derive(Debug, Clone, Copy)]
pub struct SpacePolicy {
    /// At this use of the disk images are removed,
    pub high_percent: u64,
    /// until no more than this is used.
    pub low_percent: u64,
    /// An image is left alone for this long after it was last wanted.
    pub age_min: Duration,
}

impl Default for SpacePolicy {
    fn default() -> Self {
        Self {
            high_percent: 85,
            low_percent: 80,
            age_min: Duration::from_secs(120),
        }
    }
}

/// How full a disk is.
#[derive(Debug, Clone, Copy)]
pub struct Usage {
    /// Bytes in all.
    pub capacity: u64,
    /// Bytes that can still be written.
    pub available: u64,
}

/// An image as the decision sees it.
#[derive(Debug, Clone)]
pub(crate) struct Candidate {
    pub(crate) id: String,
    /// Its layers and their sizes.
    pub(crate) layers: Vec<(String, u64)>,
    /// Pinned, imported, or in use.
    pub(crate) is_kept: bool,
    pub(crate) last_used: SystemTime,
}

/// What is to go, and what that frees.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Removal {
    pub(crate) ids: Vec<String>,
    pub(crate) bytes: u64,
    /// What was to be freed.
    pub(crate) wanted: u64,
}

/// The images to remove, those first that have not been wanted for the longest time.
pub(crate) fn removal(images: &[Candidate], usage: Usage, policy: &SpacePolicy, now: SystemTime) -> Removal {
    let used = usage.capacity.saturating_sub(usage.available);
    if usage.capacity == 0 || used < usage.capacity / 100 * policy.high_percent {
        return Removal::default();
    }
    let mut removal = Removal {
        wanted: used.saturating_sub(usage.capacity / 100 * policy.low_percent),
        ..Removal::default()
    };
    let mut users: HashMap<&str, usize> = HashMap::new();
    for (layer, _) in images.iter().flat_map(|image| &image.layers) {
        *users.entry(layer).or_default() += 1;
    }
    let age = |image: &Candidate| now.duration_since(image.last_used).unwrap_or_default();
    let mut free: Vec<&Candidate> = images
        .iter()
        .filter(|image| !image.is_kept && age(image) >= policy.age_min)
        .collect();
    free.sort_by_key(|image| image.last_used);
    for image in free {
        if removal.bytes >= removal.wanted {
            break;
        }
        for (layer, size) in &image.layers {
            let left = users.entry(layer).or_default();
            *left = left.saturating_sub(1);
            // What another image needs too stays.
            if *left == 0 {
                removal.bytes += size;
            }
        }
        removal.ids.push(image.id.clone());
    }
    removal
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `name age layers…`, `!` in front of what is kept; a layer `a` has 10 bytes. The disk has 1000 bytes.
    fn check(available: u64, images: &[&str], expected: &str) {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(10_000);
        let candidates: Vec<Candidate> = images
            .iter()
            .map(|line| {
                let words: Vec<&str> = line.trim_start_matches('!').split(' ').collect();
                Candidate {
                    id: words[0].to_owned(),
                    layers: words[2..].iter().map(|layer| ((*layer).to_owned(), 10)).collect(),
                    is_kept: line.starts_with('!'),
                    last_used: now - Duration::from_secs(words[1].parse().unwrap()),
                }
            })
            .collect();
        let usage = Usage {
            capacity: 1000,
            available,
        };
        let removal = removal(&candidates, usage, &SpacePolicy::default(), now);
        let found = format!(
            "{} frees {} of {}",
            removal.ids.join(" "),
            removal.bytes,
            removal.wanted
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn nothing_goes_below_the_high_mark() {
        check(151, &["a 500 x"], " frees 0 of 0");
    }

    #[test]
    fn the_longest_unused_go_until_the_low_mark() {
        let images = ["new 200 n", "old 900 o1 o2 o3", "older 1000 p q"];
        check(150, &images, "older old frees 50 of 50");
        check(180, &images, " frees 0 of 0");
        check(140, &images, "older old new frees 60 of 60");
        check(50, &images, "older old new frees 60 of 150");
    }

    #[test]
    fn what_is_kept_young_or_shared_stays() {
        check(
            150,
            &[
                "!pinned 900 a",
                "young 119 b",
                "shares 800 a c d e f",
                "other 700 g",
            ],
            "shares other frees 50 of 50",
        );
    }
}
