//! A stand-in for signatures.

/// What does not carry this was not made by a node of the fleet.
pub(crate) fn seal(mut bytes: Vec<u8>) -> Vec<u8> {
    let mac = blake3::keyed_hash(b"stands in for a signature's key.", &bytes[..]);
    bytes.extend_from_slice(mac.as_bytes());
    bytes
}

pub(crate) fn unseal(bytes: &[u8]) -> Option<&[u8]> {
    let (content, _) = bytes.split_last_chunk::<32>()?;
    (seal(content.to_vec()) == bytes).then_some(content)
}
