//! Output that goes on: `status --watch` and `events -f`, the same for both binaries.

use std::io::IsTerminal as _;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;
use ted_core::node::EventFilter;

use crate::api::{Api, Operation};
use crate::error::{ApiError, code};
use crate::events::{AGAIN, EventsList, NUMBER, to_line};
use crate::output::{self, Format, Paint, Reader, Render, Text};
use crate::session::Session;

/// How often a watched status is asked for anew.
const EVERY: Duration = Duration::from_secs(1);

/// Shows the answer to `request` anew every second until the daemon ends or the user stops it: in place on a terminal,
/// one below the other elsewhere, one JSON document a line with `--json`.
///
/// # Errors
/// As [`Session::call`].
pub async fn status<A, O>(session: &Session<A>, request: &O, format: Format) -> Result<(), ApiError>
where
    A: Api,
    O: Operation,
    O::Answer: Serialize + Render,
{
    let in_place = format == Format::Text && std::io::stdout().is_terminal();
    loop {
        let answer = session.call(request).await?;
        let mut shown = match format {
            Format::Json => json_line(&answer)?,
            Format::Text => {
                let mut text = Text::new(Paint::for_stdout());
                answer.render(&mut text);
                text.into_string()
            }
        };
        if in_place {
            // Home, and clear to the end: the screen does not flicker as it would if it were cleared first.
            shown = format!("\x1b[H{}\x1b[J", shown.replace('\n', "\x1b[K\n"));
        }
        if output::write_more(shown.as_bytes())? == Reader::Gone {
            return Ok(());
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Prints the events that are on record, one a line.
///
/// # Errors
/// As [`Session::call`].
pub async fn events<A: Api>(session: &Session<A>, filter: EventFilter, format: Format) -> Result<(), ApiError> {
    for event in session.call(&EventsList(filter)).await?.events {
        if print_event(&event, format)? == Reader::Gone {
            break;
        }
    }
    Ok(())
}

/// Prints events that are on record and those that follow, each once, until nobody reads them any more: also those of a
/// daemon that was started again, and those that happened meanwhile.
///
/// # Errors
/// As [`Session::daemon`] at the beginning; [`Session::call`] for a filter that the daemon cannot take.
pub async fn follow<A: Api>(data_dir: &Path, mut filter: EventFilter, format: Format) -> Result<(), ApiError> {
    let shows_progress = filter == EventFilter { since: filter.since, limit: filter.limit, ..EventFilter::default() };
    let mut session: Session<A> = Session::daemon(data_dir).await?;
    loop {
        // What happens while the record is read comes on the stream, so the stream is opened first.
        if let Ok(mut live) = session.events().await {
            let mut is_new = true;
            loop {
                if is_new && print_following(&session, &mut filter, format).await? == Reader::Gone {
                    return Ok(());
                }
                let Ok(Some(event)) = live.next().await else { break };
                let number = event.get(NUMBER).and_then(serde_json::Value::as_u64);
                let is_progress = number.is_none() && event.get("total_bytes").is_some();
                is_new = !is_progress && number.is_none_or(|number| filter.after.is_none_or(|last| number > last));
                if is_progress && shows_progress && print_event(&event, format)? == Reader::Gone {
                    return Ok(());
                }
            }
        }
        tracing::warn!("the daemon has ended; waiting until it runs again");
        session = loop {
            tokio::time::sleep(AGAIN).await;
            match Session::daemon(data_dir).await {
                Ok(session) => break session,
                Err(error) if matches!(error.code.as_str(), code::NO_DAEMON | code::SOCKET) => {}
                Err(error) => return Err(error),
            }
        };
    }
}

/// Prints what is on record and was not printed yet.
async fn print_following<A: Api>(
    session: &Session<A>,
    filter: &mut EventFilter,
    format: Format,
) -> Result<Reader, ApiError> {
    let found = match session.call(&EventsList(filter.clone())).await {
        Ok(found) => found,
        // The stream ends too, and then the daemon is waited for.
        Err(error) if error.code == code::SOCKET || error.code == code::BAD_ANSWER => return Ok(Reader::There),
        Err(error) => return Err(error),
    };
    (filter.after, filter.since, filter.limit) = (Some(found.last), None, None);
    for event in &found.events {
        if print_event(event, format)? == Reader::Gone {
            return Ok(Reader::Gone);
        }
    }
    Ok(Reader::There)
}

fn print_event(event: &serde_json::Value, format: Format) -> Result<Reader, ApiError> {
    let line = match format {
        Format::Json => json_line(event)?,
        Format::Text => to_line(event) + "\n",
    };
    output::write_more(line.as_bytes())
}

fn json_line<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value)
        .map(|line| line + "\n")
        .map_err(|error| ApiError::new(code::BAD_ANSWER, format!("the answer cannot be written as JSON: {error}")))
}
