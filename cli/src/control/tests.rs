use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::{broadcast, oneshot};

use super::*;
use crate::api::{self, Api, Operation};
use crate::error::{ApiError, code};
use crate::session::Session;

#[derive(Debug, Serialize, Deserialize)]
struct Echo {
    text: String,
}

impl Operation for Echo {
    const NAME: &'static str = "test/echo";
    type Answer = String;
}

#[derive(Debug, Clone)]
struct Node {
    events: Arc<broadcast::Sender<Value>>,
}

impl Node {
    fn new() -> Self {
        Self { events: Arc::new(broadcast::Sender::new(16)) }
    }
}

impl Api for Node {
    async fn call(&self, operation: &str, body: Value) -> Result<Value, ApiError> {
        match operation {
            Echo::NAME => api::handle(body, |echo: Echo| async move { Ok(echo.text) }).await,
            "test/refuse" => Err(ApiError::new(code::ORIGIN_REFUSED, "no").with_remedy("bring the right one")),
            _ => Err(api::unknown_operation(operation)),
        }
    }

    fn events(&self) -> broadcast::Receiver<Value> {
        self.events.subscribe()
    }
}

struct Running {
    stop: oneshot::Sender<()>,
    served: tokio::task::JoinHandle<Result<(), ApiError>>,
}

impl Running {
    async fn start(data_dir: &Path, node: Node) -> Self {
        let socket = ControlSocket::bind(data_dir).await.expect("the socket binds");
        let (stop, stopped) = oneshot::channel();
        let served = tokio::spawn(socket.serve(node, async { drop(stopped.await) }));
        Self { stop, served }
    }

    async fn stop(self) {
        self.stop.send(()).expect("it still runs");
        self.served.await.expect("no panic").expect("it ends well");
    }
}

async fn control(data_dir: &Path) -> Control {
    Control::connect(data_dir).await.expect("no error").expect("a daemon runs")
}

#[tokio::test]
async fn operations_answer_and_fail_with_their_code_and_remedy() {
    let data = tempfile::tempdir().expect("a folder");
    let running = Running::start(data.path(), Node::new()).await;
    let control = control(data.path()).await;
    assert_eq!(control.call("test/echo", &json!({ "text": "hello" })).await, Ok(json!("hello")));

    let refused = control.call("test/refuse", &Value::Null).await.expect_err("it refuses");
    assert_eq!(refused.code, code::ORIGIN_REFUSED);
    assert_eq!(refused.remedy.as_deref(), Some("bring the right one"));
    for (operation, body, code) in [
        ("test/nothing", Value::Null, code::UNKNOWN_OPERATION),
        ("nothing", Value::Null, code::UNKNOWN_OPERATION),
        ("test/echo", json!({ "txt": 1 }), code::BAD_REQUEST),
        ("test/echo", json!({ "text": "x".repeat(REQUEST_BYTES_MAX) }), code::BAD_REQUEST),
    ] {
        assert_eq!(control.call(operation, &body).await.expect_err("it fails").code, code, "{operation}");
    }
    running.stop().await;
}

#[tokio::test]
async fn the_server_itself_bounds_requests() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let data = tempfile::tempdir().expect("a folder");
    let running = Running::start(data.path(), Node::new()).await;
    let mut stream = tokio::net::UnixStream::connect(data.path().join(SOCKET_NAME)).await.expect("it connects");
    let head = format!("POST /v1/test/echo HTTP/1.1\r\nHost: ted\r\nContent-Length: {}\r\n\r\n", REQUEST_BYTES_MAX + 1);
    stream.write_all(head.as_bytes()).await.expect("it is sent");
    // The server may answer and close before it has read everything.
    drop(stream.write_all(&vec![b' '; REQUEST_BYTES_MAX + 1]).await);
    let mut answer = vec![0; 12];
    stream.read_exact(&mut answer).await.expect("it answers");
    assert_eq!(String::from_utf8_lossy(&answer), "HTTP/1.1 400");
    drop(stream);
    running.stop().await;
}

#[tokio::test]
async fn events_arrive_in_order_and_end_with_the_daemon() {
    let data = tempfile::tempdir().expect("a folder");
    let node = Node::new();
    let running = Running::start(data.path(), node.clone()).await;
    let mut events = control(data.path()).await.events().await.expect("a stream");
    for number in 0..3 {
        node.events.send(json!({ "event": "test", "number": number })).expect("someone listens");
    }
    for number in 0..3 {
        assert_eq!(events.next().await.expect("an event").expect("more")["number"], number);
    }
    running.stop().await;
    assert_eq!(events.next().await, Ok(None), "the stream ends with the daemon");
}

#[tokio::test]
async fn the_socket_is_private_and_goes_with_the_daemon() {
    let data = tempfile::tempdir().expect("a folder");
    assert!(Control::connect(data.path()).await.expect("no error").is_none(), "no socket, no daemon");
    let running = Running::start(data.path(), Node::new()).await;
    let socket = data.path().join(SOCKET_NAME);
    let mode = std::fs::metadata(&socket).expect("it is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    running.stop().await;
    assert!(!socket.exists());
    assert_eq!(std::fs::read_dir(data.path()).expect("readable").count(), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_dead_daemons_socket_is_replaced_and_a_live_ones_is_not() {
    let data = tempfile::tempdir().expect("a folder");
    let socket = data.path().join(SOCKET_NAME);
    drop(std::os::unix::net::UnixListener::bind(&socket).expect("it binds"));
    assert!(socket.exists(), "the dead daemon left its socket");
    assert!(Control::connect(data.path()).await.expect("no error").is_none(), "nobody answers there");

    let running = Running::start(data.path(), Node::new()).await;
    let second = ControlSocket::bind(data.path()).await.expect_err("one daemon is enough");
    assert_eq!(second.code, code::SOCKET);
    assert!(second.message.contains("another daemon"), "{second}");
    control(data.path()).await;
    running.stop().await;
}

#[tokio::test]
async fn other_files_in_the_sockets_place_are_refused_by_the_client() {
    let data = tempfile::tempdir().expect("a folder");
    std::fs::write(data.path().join(SOCKET_NAME), "precious").expect("written");
    // Linux answers `connection refused` for a file that is no socket, as for a dead one.
    assert!(Control::connect(data.path()).await.expect("no error").is_none());
}

#[tokio::test]
async fn long_paths_work_too() {
    let data = tempfile::tempdir().expect("a folder");
    let deep: PathBuf = data.path().join("x".repeat(120));
    std::fs::create_dir(&deep).expect("made");
    let running = Running::start(&deep, Node::new()).await;
    assert_eq!(control(&deep).await.call("test/echo", &json!({ "text": "a" })).await, Ok(json!("a")));
    running.stop().await;
    assert!(!deep.join(SOCKET_NAME).exists());
}

#[tokio::test]
async fn commands_reach_the_daemon_or_open_the_state_themselves() {
    let data = tempfile::tempdir().expect("a folder");
    let hello = Echo { text: "hello".to_owned() };
    let local = Session::open(data.path(), async || Ok(Node::new())).await.expect("opened");
    assert!(!local.is_daemon());
    assert_eq!(local.call(&hello).await.as_deref(), Ok("hello"));
    let refused = Session::<Node>::open(data.path(), async || Err(ApiError::new(code::FILE, "broken"))).await;
    assert_eq!(refused.expect_err("the state is broken").code, code::FILE);
    let missing = Session::<Node>::daemon(data.path()).await.expect_err("no daemon");
    assert_eq!(missing.code, code::NO_DAEMON);

    let node = Node::new();
    let running = Running::start(data.path(), node.clone()).await;
    let daemon = Session::<Node>::open(data.path(), async || Err(ApiError::new(code::FILE, "not asked"))).await;
    let daemon = daemon.expect("the daemon answers");
    assert!(daemon.is_daemon());
    assert_eq!(daemon.call(&hello).await.as_deref(), Ok("hello"));
    let mut events = daemon.events().await.expect("a stream");
    node.events.send(json!({ "event": "one" })).expect("someone listens");
    assert_eq!(events.next().await, Ok(Some(json!({ "event": "one" }))));
    running.stop().await;
}
