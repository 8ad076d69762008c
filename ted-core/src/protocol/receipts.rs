//! Receipts on their way to the Distributor, several in one message. Bytes: `docs/protocol.md`, "Receipts".

use serde::{Deserialize, Serialize};

use crate::limits::Limits;
use crate::protocol::{MessageError, Refused};

/// What follows when all receipts of a message are durable that are not refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReceiptsAnswer {
    /// Those that were refused, by their place in the message from 0, in ascending order. One whose refusal is
    /// retryable may be sent again later.
    pub refused: Vec<(u16, Refused)>,
}

impl ReceiptsAnswer {
    /// The refusal of the receipt at `place` of the message; `None` when it is stored.
    #[must_use]
    pub fn refusal_of(&self, place: usize) -> Option<&Refused> {
        self.refused.iter().find(|(of, _)| usize::from(*of) == place).map(|(_, refused)| refused)
    }

    pub(super) fn within(self, limits: &Limits) -> Result<Self, MessageError> {
        let ascending = self.refused.windows(2).all(|two| two[0].0 < two[1].0);
        if self.refused.len() > limits.receipts_max || !ascending {
            return impossible("an answer to receipts", "it names too many, or one twice");
        }
        Ok(self)
    }
}

pub(super) fn within(envelopes: Vec<Vec<u8>>, limits: &Limits) -> Result<Vec<Vec<u8>>, MessageError> {
    if envelopes.is_empty() || envelopes.len() > limits.receipts_max {
        return impossible("receipts", "there are none, or too many");
    }
    Ok(envelopes)
}

/// How many of the first `envelopes` fit one message: at least one, where there is one.
#[must_use]
pub fn receipts_that_fit<'a>(envelopes: impl IntoIterator<Item = &'a Vec<u8>>, limits: &Limits) -> usize {
    // Kind and number of envelopes; the length before each.
    let mut room = limits.message_bytes_max.saturating_sub(2 + 8);
    let mut count = 0;
    for envelope in envelopes {
        let bytes = envelope.len() as u64 + 8;
        if count == limits.receipts_max || (count > 0 && bytes > room) {
            break;
        }
        room = room.saturating_sub(bytes);
        count += 1;
    }
    count
}

fn impossible<T>(what: &'static str, reason: &'static str) -> Result<T, MessageError> {
    Err(MessageError::Impossible { what, reason })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Request, encode_request};

    #[test]
    fn as_many_receipts_as_fit_go_into_one_message() {
        let limits = Limits { receipts_max: 5, message_bytes_max: 1000, ..Limits::DEFAULT };
        for (lengths, fitting) in [
            (vec![], 0),
            (vec![10; 4], 4),
            (vec![10; 9], 5),
            (vec![982], 1),
            (vec![487, 487], 2),
            (vec![487, 488], 1),
            (vec![2000, 1], 1), // One that never fits is tried alone, and fails alone.
        ] {
            let envelopes: Vec<Vec<u8>> = lengths.iter().map(|length| vec![0; *length]).collect();
            assert_eq!(receipts_that_fit(&envelopes, &limits), fitting, "{lengths:?}");
            if fitting > 1 || lengths == [982] {
                let request = Request::Receipts(envelopes[..fitting].to_vec());
                assert!(encode_request(&request, &limits).is_ok(), "{lengths:?}");
            }
        }
    }
}
