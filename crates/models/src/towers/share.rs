//! How a batch is shared out: to threads that each compute some items whole, or to all threads together item after item.

use std::sync::{Mutex, PoisonError};

use crossmodal_kernels::team::{Crew, Team};

use crate::error::Result;
use crate::progress::CancelToken;

/// Computes the groups `0..count` with `compute`, whose results come back in order. With `alone`, each group is computed by one
/// thread, several groups at a time; otherwise one after the other, each by all threads.
///
/// # Errors
/// The first error of `compute` in order of groups, or [`Error::Cancelled`] once `cancel` is raised: it is looked at before each group.
pub(super) fn share<T: Send>(
    count: usize,
    alone: bool,
    cancel: &CancelToken,
    compute: impl Fn(Crew<'_>, usize) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let session = Team::global().session();
    let crew = Crew::Team(&session);
    let compute = |crew, group| cancel.check().and_then(|()| compute(crew, group));
    if !alone {
        return (0..count).map(|group| compute(crew, group)).collect();
    }
    let results = Mutex::new((0..count).map(|_| None).collect::<Vec<Option<Result<T>>>>());
    crew.for_each(count, |group| {
        let result = compute(Crew::Solo, group);
        results.lock().unwrap_or_else(PoisonError::into_inner)[group] = Some(result);
    });
    results.into_inner().unwrap_or_else(PoisonError::into_inner).into_iter().flatten().collect()
}

/// Sizes of as few groups of `items` as possible, of nearly equal size and at most `most` each.
pub(super) fn equal_sizes(items: usize, most: usize) -> Vec<usize> {
    let groups = items.div_ceil(most.max(1));
    (0..groups).map(|group| (group + 1) * items / groups - group * items / groups).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Error;

    #[test]
    fn groups_are_nearly_equal() {
        assert_eq!(equal_sizes(10, 4), [3, 3, 4]);
        assert_eq!(equal_sizes(3, 0), [1, 1, 1]);
        for items in 0..100 {
            let sizes = equal_sizes(items, 7);
            assert_eq!((sizes.iter().sum::<usize>(), sizes.len()), (items, items.div_ceil(7)));
            assert!(sizes.iter().all(|size| (1..=7).contains(size)));
        }
    }

    #[test]
    fn results_come_in_order_and_the_first_error_wins() {
        for alone in [false, true] {
            let cancel = CancelToken::new();
            let squares = share(50, alone, &cancel, |_, group| Ok(group * group)).unwrap();
            assert_eq!(squares, (0..50).map(|i| i * i).collect::<Vec<_>>());
            let fail = |_: Crew<'_>, group: usize| {
                if group % 10 == 7 { Err(Error::Input(format!("group {group}"))) } else { Ok(group) }
            };
            assert!(share(50, alone, &cancel, fail).unwrap_err().to_string().contains("group 7"));
            cancel.cancel();
            assert!(matches!(share(5, alone, &cancel, |_, group| Ok(group)), Err(Error::Cancelled)));
        }
    }
}
