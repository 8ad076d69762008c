//! The API of a node: named operations with a JSON body each way, and a stream of events. The daemon offers it on its
//! control socket; where none runs, a command talks to the same thing in its own process.

use std::future::Future;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::broadcast;

use crate::error::{ApiError, code};

/// A node that operations can be sent to.
pub trait Api: Clone + Send + Sync + 'static {
    /// Carries out `operation` (`noun/verb`) with `body`.
    ///
    /// # Errors
    /// [`code::UNKNOWN_OPERATION`], [`code::BAD_REQUEST`], or what the operation itself fails with.
    fn call(&self, operation: &str, body: Value) -> impl Future<Output = Result<Value, ApiError>> + Send;

    /// The events from now on; see [`crate::events`] for their shape. A receiver that is too slow loses the oldest.
    fn events(&self) -> broadcast::Receiver<Value>;
}

/// A request of one operation: it is the JSON body, and it knows where it goes and what comes back.
pub trait Operation: Serialize + DeserializeOwned + Send + Sync {
    /// `noun/verb`, as in `POST /v1/noun/verb`.
    const NAME: &'static str;
    /// What a success answers.
    type Answer: Serialize + DeserializeOwned + Send;
}

/// Makes each request type an [`Operation`]: `operations! { Type => "noun/verb" -> Answer, … }`.
#[macro_export]
macro_rules! operations {
    ($($request:ty => $name:literal -> $answer:ty),+ $(,)?) => {
        $(impl $crate::api::Operation for $request {
            const NAME: &'static str = $name;
            type Answer = $answer;
        })+
    };
}

/// The answer to operations that only succeed or fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize)]
pub struct Done {}

/// The request that `body` holds.
///
/// # Errors
/// [`code::BAD_REQUEST`] with the place in the body.
pub fn request<O: Operation>(body: Value) -> Result<O, ApiError> {
    let body = if body.is_null() { Value::Object(serde_json::Map::new()) } else { body };
    serde_json::from_value(body)
        .map_err(|error| ApiError::new(code::BAD_REQUEST, format!("{} cannot take this request: {error}", O::NAME)))
}

/// The JSON that `answer` becomes.
///
/// # Errors
/// [`code::BAD_ANSWER`] when it holds what JSON cannot say, such as a path that is not UTF-8.
pub fn answer<T: Serialize>(answer: &T) -> Result<Value, ApiError> {
    serde_json::to_value(answer)
        .map_err(|error| ApiError::new(code::BAD_ANSWER, format!("the answer cannot be written as JSON: {error}")))
}

/// Carries out one operation: reads the request, runs `operate`, writes the answer. For the `match` of an [`Api`].
///
/// # Errors
/// What [`request`], `operate` or [`answer`] fails with.
pub async fn handle<O, F, R>(body: Value, operate: F) -> Result<Value, ApiError>
where
    O: Operation,
    F: FnOnce(O) -> R + Send,
    R: Future<Output = Result<O::Answer, ApiError>> + Send,
{
    let done = operate(request::<O>(body)?).await?;
    answer(&done)
}

/// The error for an operation that this node does not have.
#[must_use]
pub fn unknown_operation(operation: &str) -> ApiError {
    ApiError::new(code::UNKNOWN_OPERATION, format!("there is no operation `{operation}` here"))
}
