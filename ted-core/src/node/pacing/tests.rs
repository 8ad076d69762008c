//! The queue with its clock and its tasks, under paused time.

use super::*;
use crate::id::PackageId;
use crate::limits::Limits;
use crate::protocol::code;

const MB: u64 = 1_000_000;

/// A clock that goes with tokio's.
struct Paused(Instant);

impl Clock for Paused {
    fn now(&self) -> UnixMillis {
        // 2027-01-30T07:59:50Z
        UnixMillis::from_millis(1_801_295_990_000).plus(self.0.elapsed())
    }
}

fn clock() -> Arc<dyn Clock> {
    Arc::new(Paused(Instant::now()))
}

fn queue(medium: Option<&str>) -> Arc<SendQueue> {
    let medium = medium.map(|plan| plan.parse().unwrap());
    SendQueue::new(&SendRates { medium, ..SendRates::default() }, clock())
}

fn pace(queue: &Arc<SendQueue>, link: u8, gate: GateLook) -> Box<dyn Pace> {
    let send = SendKey { link: KeyHash::from_bytes([link; 32]), package: PackageId::from_bytes([1; 32]) };
    let frame_end = Arc::new(|at: u64| at.next_multiple_of(3 * MB));
    let changes = queue.gate_changes();
    let open_until = match gate() {
        Gate::Open { until } => until,
        Gate::Closed(_) => None,
    };
    queue.pace(PaceOptions { send, priority: Priority::Medium, link_rate: None, changes, open_until, gate, frame_end })
}

fn open() -> GateLook {
    Box::new(|| Gate::Open { until: None })
}

/// Takes everything that is permitted, up to `bytes`; how far it came, and why it ended before.
async fn take(pace: &mut dyn Pace, bytes: u64) -> (u64, Option<Refused>) {
    let mut at = 0;
    while at < bytes {
        let wanted = (bytes - at).min(u64::from(Limits::DEFAULT.block_bytes_max));
        match pace.permit(at, wanted).await {
            Permit::Bytes(bytes) => at += bytes,
            Permit::Over(refused) => return (at, Some(refused)),
        }
    }
    (at, None)
}

#[tokio::test(start_paused = true)]
async fn what_several_send_keeps_to_the_rate_together() {
    let queue = queue(Some("4MB/s"));
    let started = Instant::now();
    let (mut one, mut two) = (pace(&queue, 1, open()), pace(&queue, 2, open()));
    tokio::join!(take(&mut *one, 10 * MB), take(&mut *two, 10 * MB));
    assert!(started.elapsed().abs_diff(Duration::from_secs(5)) < Duration::from_millis(60), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_time_of_day_and_a_change_act_on_those_who_wait() {
    let queue = queue(Some("unlimited; 1MB/s between 08:00 and 18:00"));
    let mut one = pace(&queue, 1, open());
    let started = Instant::now();
    take(&mut *one, 100 * MB).await;
    assert_eq!(started.elapsed(), Duration::ZERO, "it is not eight yet");
    tokio::time::advance(Duration::from_secs(10)).await;
    let started = Instant::now();
    let changing = async {
        sleep(Duration::from_secs(4)).await;
        queue.set_rates(&SendRates { medium: Some("10MB/s".parse().unwrap()), ..SendRates::default() });
    };
    tokio::join!(take(&mut *one, 24 * MB), changing);
    assert!(started.elapsed().abs_diff(Duration::from_secs(6)) < Duration::from_millis(60), "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_gate_that_closes_lets_the_frame_in_flight_finish_and_says_why() {
    let queue = queue(Some("1MB/s"));
    let closed = Arc::new(AtomicBool::new(false));
    let looks = closed.clone();
    let gate: GateLook = Box::new(move || match looks.load(Ordering::Relaxed) {
        true => Gate::Closed(Refused::new(code::BUSY, "paused")),
        false => Gate::Open { until: None },
    });
    let mut one = pace(&queue, 1, gate);
    let started = Instant::now();
    let closing = async {
        sleep(Duration::from_millis(4500)).await;
        closed.store(true, Ordering::Relaxed);
        queue.look_again();
    };
    let ((sent, refused), ()) = tokio::join!(take(&mut *one, 100 * MB), closing);
    assert_eq!((sent, refused.unwrap().code()), (6 * MB, code::BUSY));
    assert!(started.elapsed() < Duration::from_millis(6100));
    closed.store(false, Ordering::Relaxed);
    queue.look_again();
    assert_eq!(take(&mut *one, MB).await, (MB, None), "a gate may open again");
}

#[tokio::test(start_paused = true)]
async fn a_gate_is_looked_at_when_its_time_is_over() {
    let queue = queue(Some("1MB/s"));
    let clock = queue.clock.clone();
    let closes = clock.now().plus(Duration::from_secs(7));
    let gate: GateLook = Box::new(move || {
        if clock.now() < closes {
            Gate::Open { until: Some(closes) }
        } else {
            Gate::Closed(Refused::new(code::BUSY, "the window is closed"))
        }
    });
    let (sent, refused) = take(&mut *pace(&queue, 1, gate), 100 * MB).await;
    assert!(refused.is_some());
    assert_eq!(sent, 9 * MB, "the frame that was begun is whole");
}

#[tokio::test(start_paused = true)]
async fn those_who_give_up_waiting_leave_nothing_behind() {
    let queue = queue(Some("1MB/s"));
    {
        let (mut one, mut two) = (pace(&queue, 1, open()), pace(&queue, 2, open()));
        let both = async { tokio::join!(take(&mut *one, 100 * MB), take(&mut *two, 100 * MB)) };
        assert!(tokio::time::timeout(Duration::from_secs(3), both).await.is_err());
    }
    assert_eq!(queue.counts(), QueueCounts::default());
    assert!(queue.lock().waiting.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_reader_keeps_to_the_input_rate() {
    let input = InputPace::new(Some("2MB/s".parse().unwrap()), clock());
    let started = Instant::now();
    let reading = async {
        let mut read = 0;
        while read < 20 * MB {
            input.ready().await;
            let piece = input.grain(1 << 20) as u64;
            input.took(piece);
            read += piece;
        }
    };
    let changing = async {
        sleep(Duration::from_secs(5)).await;
        input.set(Some("10MB/s".parse().unwrap()));
    };
    tokio::join!(reading, changing);
    assert!(started.elapsed().abs_diff(Duration::from_secs(6)) < Duration::from_millis(60), "{:?}", started.elapsed());
}
