//! Work on numbered items by several threads, with results in order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::build::BuildError;

/// What `work` gives for each of `0..count`, in order. The error that is met first ends it.
pub(super) fn map<T: Send>(
    threads: usize,
    count: usize,
    cancel: &AtomicBool,
    work: impl Fn(usize) -> Result<T, BuildError> + Sync,
) -> Result<Vec<T>, BuildError> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let slots: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::default()).collect();
    let error = Mutex::new(None);
    let run = || {
        while !stopped.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(item) else { break };
            let result = if cancel.load(Ordering::Relaxed) { Err(BuildError::Cancelled) } else { work(item) };
            match result {
                Ok(made) => *slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(made),
                Err(failed) => {
                    stopped.store(true, Ordering::Relaxed);
                    error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(failed);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(count) {
            scope.spawn(run);
        }
        run();
    });
    if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}
