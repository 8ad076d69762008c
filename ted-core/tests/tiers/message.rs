//! What nodes say to each other, as values: the bytes have their own tests and their own simulation.

use ted_core::id::{DistributionId, FiringId, PackageId};
use ted_core::protocol::{OfferAnswer, Presence, Refused};

use crate::topology::NodeId;

/// An offer, with the release statement's envelope that the child would fetch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Offered {
    pub(crate) firing: FiringId,
    pub(crate) distribution: DistributionId,
    pub(crate) statement: Vec<u8>,
    pub(crate) recipients: Vec<NodeId>,
}

pub(crate) enum Ask {
    Offer(Offered),
    Fetch { package: PackageId, from: u64, to: u64 },
    Receipts(Vec<Vec<u8>>),
    Presence(Presence),
}

pub(crate) enum Reply {
    Offer(OfferAnswer),
    Fetch { total_bytes: u64 },
    Stored,
    Refused(Refused),
}

pub(crate) enum Block {
    Data(Vec<u8>),
    Waiting,
    End,
    Error(Refused),
}

pub(crate) enum Content {
    Ask(Ask),
    Reply(Reply),
    Block(Block),
}

pub(crate) struct Message {
    stream: u64,
    pub(crate) content: Content,
}

impl Message {
    pub(crate) fn ask(stream: u64, ask: Ask) -> Self {
        Self { stream, content: Content::Ask(ask) }
    }

    pub(crate) fn reply(stream: u64, reply: Reply) -> Self {
        Self { stream, content: Content::Reply(reply) }
    }

    pub(crate) fn block(stream: u64, block: Block) -> Self {
        Self { stream, content: Content::Block(block) }
    }

    pub(crate) fn stream(&self) -> u64 {
        self.stream
    }

    pub(crate) fn ends_stream(&self) -> bool {
        match &self.content {
            Content::Ask(_) => false,
            Content::Reply(Reply::Fetch { .. }) => false,
            Content::Reply(_) => true,
            Content::Block(block) => matches!(block, Block::End | Block::Error(_)),
        }
    }
}
