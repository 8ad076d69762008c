//! Work on numbered items by several threads, with results in order.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::build::BuildError;

/// What `work` gives for each of `0..count`, in order, by a thread for each of `rooms`, which it works in. The error that
/// is met first ends it.
pub(super) fn map<R: Send, T: Send>(
    rooms: &mut [R],
    count: usize,
    cancel: &AtomicBool,
    work: impl Fn(&mut R, usize) -> Result<T, BuildError> + Sync,
) -> Result<Vec<T>, BuildError> {
    let (next, stopped) = (AtomicUsize::new(0), AtomicBool::new(false));
    let slots: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::default()).collect();
    let error = Mutex::new(None);
    let run = |room: &mut R| {
        while !stopped.load(Ordering::Relaxed) {
            let item = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = slots.get(item) else { break };
            let result = if cancel.load(Ordering::Relaxed) { Err(BuildError::Cancelled) } else { work(room, item) };
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
        let Some((own, others)) = rooms.split_first_mut() else { return };
        for room in others.iter_mut().take(count.saturating_sub(1)) {
            scope.spawn(|| run(room));
        }
        run(own);
    });
    if let Some(error) = error.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    Ok(slots.into_iter().filter_map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect())
}
