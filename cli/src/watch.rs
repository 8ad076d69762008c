//! Output that goes on: `status --watch` and `events -f`, the same for both binaries.

use std::io::IsTerminal as _;
use std::time::Duration;

use serde::Serialize;

use crate::api::{Api, Operation};
use crate::error::{ApiError, code};
use crate::events::to_line;
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

/// Prints events, one a line, as they come; just the next one unless `follow`.
///
/// # Errors
/// As [`Session::events`]; [`code::NO_DAEMON`] when the daemon ends.
pub async fn events<A: Api>(session: &Session<A>, follow: bool, format: Format) -> Result<(), ApiError> {
    let mut events = session.events().await?;
    while let Some(event) = events.next().await? {
        let line = match format {
            Format::Json => json_line(&event)?,
            Format::Text => to_line(&event) + "\n",
        };
        let reader = output::write_more(line.as_bytes())?;
        if !follow || reader == Reader::Gone {
            return Ok(());
        }
    }
    Err(ApiError::new(code::NO_DAEMON, "the daemon has ended"))
}

fn json_line<T: Serialize>(value: &T) -> Result<String, ApiError> {
    serde_json::to_string(value)
        .map(|line| line + "\n")
        .map_err(|error| ApiError::new(code::BAD_ANSWER, format!("the answer cannot be written as JSON: {error}")))
}
