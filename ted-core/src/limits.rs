//! Every bound in one place, each with its reason.

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

/// What a node accepts from files and peers. Anything beyond is refused with an error before memory is spent on it.
///
/// The defaults fit fleets of 10,000 nodes and trees of a few million files; embedders may lower them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Root bytes of a package: fixed fields and one name need under 1 KiB; 64 KiB leaves room for extensions.
    pub root_bytes_max: u64,
    /// A root's signature block: algorithm, one certificate (ours have under 1 KiB), one signature.
    pub signature_bytes_max: u64,
    /// Raw length of any frame: small files share a frame of up to 8 MiB (section "Cuts" of the format).
    pub frame_raw_bytes_max: u32,
    /// Stored length of any frame: zstd's worst case for 8 MiB of noise is under 33 KiB more; sealing adds 16 bytes.
    pub frame_stored_bytes_max: u32,
    /// Rows in a table, body and catalog together: 4 TiB of content in 4 MiB frames.
    pub table_rows_max: u64,
    /// Entries in a catalog. Each costs about 200 bytes of memory while it is judged.
    pub entries_max: u64,
    /// Bytes of an entry's path: Linux's `PATH_MAX`.
    pub path_bytes_max: usize,
    /// Bytes of one component of an entry's path: `NAME_MAX` of every file system we know.
    pub path_component_bytes_max: usize,
    /// Components of an entry's path: deeper trees cannot be opened by path on Linux.
    pub path_depth_max: usize,
    /// Bytes of a symlink's target: Linux's `PATH_MAX`.
    pub link_bytes_max: usize,
    /// Extensions of one entry, envelope or statement: what extended attributes need, tenfold.
    pub extensions_max: usize,
    /// Bytes of one extension: the largest value Linux allows for an extended attribute.
    pub extension_bytes_max: usize,
    /// Bytes of one protocol message.
    pub message_bytes_max: u64,
    /// Bytes of one block inside an answer to a Fetch.
    pub block_bytes_max: u32,
    /// Bytes of one envelope: a release statement with a chain of packages needs under 4 KiB.
    pub envelope_bytes_max: u64,
    /// Bytes of one certificate or request in DER: ours have under 1 KiB.
    pub certificate_bytes_max: u64,
    /// Bytes of a keystore, a floor file or a registration file: 10,000 registered keys need about 2 MiB.
    pub state_file_bytes_max: u64,
    /// Packages that one release statement may name: a chain of ten with its baselines, several times over.
    pub statement_packages_max: usize,
    /// Bytes of `distfile.part.map`: a bit for each of the most rows a table may have, and a header.
    pub part_map_bytes_max: u64,
    /// Requests that a peer may have open on one connection: a leaf needs five, a parent with many children more.
    pub streams_max: u32,
    /// Bytes that a peer may send ahead on one stream: 1 Gbit/s over 100 ms is 12.5 MB.
    pub stream_window_bytes: u32,
    /// Bytes that a peer may send ahead on all streams of a connection: one full stream, and half of another.
    pub connection_window_bytes: u32,
    /// Bytes sent and not yet acknowledged, on all connections of a process together.
    pub send_budget_bytes: u64,
    /// Bytes that a node without certificates may send ahead: one enrolment has under 8 KiB.
    pub unenrolled_window_bytes: u32,
    /// Handshakes under way at once. Each costs about 50 KiB and two signatures; from half of them on, a peer must
    /// prove its address first.
    pub handshakes_max: usize,
}

impl Limits {
    /// The defaults, as constants for code that has no `Limits` at hand.
    pub const DEFAULT: Self = Self {
        root_bytes_max: 64 * KIB,
        signature_bytes_max: 16 * KIB,
        frame_raw_bytes_max: (8 * MIB) as u32,
        frame_stored_bytes_max: (8 * MIB + 64 * KIB) as u32,
        table_rows_max: MIB,
        entries_max: 4 * 1000 * 1000,
        path_bytes_max: 4096,
        path_component_bytes_max: 255,
        path_depth_max: 1024,
        link_bytes_max: 4096,
        extensions_max: 64,
        extension_bytes_max: 64 * KIB as usize,
        message_bytes_max: 64 * KIB,
        block_bytes_max: MIB as u32,
        envelope_bytes_max: 64 * KIB,
        certificate_bytes_max: 16 * KIB,
        state_file_bytes_max: 64 * MIB,
        statement_packages_max: 64,
        streams_max: 64,
        stream_window_bytes: (16 * MIB) as u32,
        connection_window_bytes: (24 * MIB) as u32,
        send_budget_bytes: 48 * MIB,
        unenrolled_window_bytes: (64 * KIB) as u32,
        handshakes_max: 256,
        part_map_bytes_max: MIB / 8 + 4 * KIB,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
