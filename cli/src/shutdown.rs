//! When a daemon has to end.

use tokio::signal::unix::{SignalKind, signal};

/// Completes on SIGTERM or SIGINT (Ctrl-C).
///
/// # Errors
/// When the signals cannot be listened to.
pub fn requested() -> std::io::Result<impl Future<Output = ()> + Send> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("ending: SIGTERM"),
            _ = interrupt.recv() => tracing::info!("ending: interrupted"),
        }
    })
}
