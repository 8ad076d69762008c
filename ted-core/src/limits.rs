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
    /// Rows in a table, body and catalog together: a build uses half of them for content, 2 TiB in 4 MiB frames.
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
    /// Times that one frame may fail its hash: a flipped bit on the way does not come twice, a bad disk does.
    pub frame_failures_max: u32,
    /// Times that frames of one package may fail their hash before the whole package counts as damaged.
    pub package_failures_max: u32,
    /// Times that a package's tail, root, table or catalog may fail: as for one frame.
    pub index_failures_max: u32,
    /// Written bytes after which a receiver syncs: what a crash may cost again.
    pub sync_interval_bytes: u64,
    /// Seconds after which a receiver syncs what it wrote, however little: on a slow link 16 MiB are minutes.
    pub sync_interval_seconds: u64,
    /// Bytes that one receiver keeps between network and disk: 1 Gbit/s for a quarter of a second. Never less than
    /// one frame for each of its streams and one more.
    pub receive_buffer_bytes: u64,
    /// Streams on which one receiver fetches at once: enough to hide the round trip when many single frames lack.
    pub fetches_max: usize,
    /// The longest connection timeout that may be set, in seconds.
    pub silence_seconds_max: u64,
    /// Bytes of an extraction's journal: four million entries with paths of 200 bytes, and what is done with each.
    pub journal_bytes_max: u64,
    /// Folders that an extraction keeps open: well below the 1,024 open files that Linux grants a process by default.
    pub open_folders_max: usize,
    /// Streams that a judged peer may have open at once: requests and Fetches of a few packages.
    pub streams_max: u32,
    /// Handshakes under way at once. One holds a few tens of KiB for at most the handshake timeout; peers beyond wait.
    pub handshakes_max: usize,
    /// Characters of a peer's close reason that are kept: a sentence or two for the log.
    pub close_reason_chars_max: usize,
    /// Bytes that all connections of an endpoint together may have written and not acknowledged: three of the largest
    /// windows, and 16 KiB for each of 3,000 that send at once. Blocks that are read ahead come on top: two of
    /// `block_bytes_max` for each Fetch that is served.
    pub send_budget_bytes: u64,
    /// Seconds after which a Subscriber reads a package that it keeps again, unless it is told otherwise: a week.
    pub scrub_interval_seconds: u64,
    /// The shortest such interval that may be set, in seconds: anything less is a load and no check.
    pub scrub_interval_seconds_min: u64,
    /// Bytes that a scrub reads in a second, unless it is told otherwise: a small part of what any disk gives.
    pub scrub_bytes_per_second: u64,
    /// Bytes after which a scrub notes how far it is: what a restart may cost again.
    pub scrub_note_bytes: u64,
    /// Numbers of damaged frames that are named in a receipt or a log line; of more, only the count is told.
    pub damaged_frames_named_max: usize,
    /// Grants of one package: a hundred times the fleet that the other limits fit; a path then has 20 hashes.
    pub grants_max: u32,
    /// Bytes of one grant with its path: 20 hashes and the wrapped key need under 1 KiB; other ways of wrapping need more.
    pub grant_bytes_max: u64,
    /// Bytes of a grant as its recipient keeps it: the grant and its envelope.
    pub kept_grant_bytes_max: u64,
    /// Epoch secrets in one keystore: a new one every year for a lifetime.
    pub epoch_secrets_max: usize,
    /// Standing envelopes that one announcement may name: a page of the revocation list for every 500 keys, and a few.
    pub announced_envelopes_max: usize,
    /// Keys on one page of a revocation list: with their serial numbers they need half of an envelope.
    pub revocation_page_keys_max: usize,
    /// Pages of a revocation list: 25,000 keys, more than a fleet of 10,000 nodes replaces in its life.
    pub revocation_pages_max: u16,
    /// Serial numbers that stand beside one revoked key: those of its certificates that still hold.
    pub revocation_serials_max: usize,
    /// Bytes of a configuration: the largest payload whose envelope surely is within its own limit.
    pub configuration_bytes_max: u64,
    /// Sections of a configuration: five are known, and later versions bring a few more.
    pub configuration_sections_max: usize,
    /// Bytes of the value of a setting that is text: a schedule, or a variable that stands in a path.
    pub setting_bytes_max: usize,
    /// The shortest interval that a setting may demand, in seconds: what is done more often than this is a mistake.
    pub setting_interval_seconds_min: u64,
    /// The longest such interval, in seconds: ten years.
    pub setting_interval_seconds_max: u64,
    /// Parents that a node may be given: the nearest ones, and where to turn when they fail.
    pub parents_max: usize,
    /// Bytes of a variable's name.
    pub variable_name_bytes_max: usize,
    /// Iterations of a key derivation that an imported file may ask for: what programs write is under a million, and
    /// this many take some ten seconds.
    pub password_iterations_max: u32,
    /// Bytes of a backup before it is encrypted: the largest state files that there may be, a few times over.
    pub backup_bytes_max: u64,
    /// scrypt's work for a backup's passphrase, N = 2^18: what the `age` program takes, 256 MiB and about a second.
    pub backup_work: u8,
    /// The most work that a backup may ask for when it is opened: sixteen times that, and 4 GiB.
    pub backup_work_max: u8,
    /// Characters of a backup's passphrase: fewer can be tried out, whatever the work.
    pub passphrase_chars_min: usize,
    /// Distributions of one Distributor that a Subscriber keeps floors and deliveries of.
    pub offered_distributions_max: usize,
    /// Bytes of what is kept of a source for the quick check: 25 for each of four million entries, and room.
    pub source_record_bytes_max: u64,
    /// Raw bytes of a delta's catalog: it is judged when it is whole. A million added files with long paths.
    pub delta_catalog_bytes_max: u64,
    /// Bytes of old content that one frame of a delta is compressed against: a segment's window has 12 MiB.
    pub delta_prefix_bytes_max: u64,
    /// Seconds that a hook may run where its operator says nothing: a service stops or starts well within them.
    pub hook_seconds: u64,
    /// The longest time that an operator may give a hook, in seconds: a day, so that a forgotten prompt ends.
    pub hook_seconds_max: u64,
    /// Seconds that a hook which is ended has for putting things in order, before it is killed.
    pub hook_grace_seconds: u64,
    /// Bytes that are kept of what a hook prints, from its end: some forty lines.
    pub hook_output_bytes_max: usize,
    /// Bytes of that in a receipt, whose detail has 1 KiB for both hooks and what else there is to say.
    pub hook_receipt_bytes_max: usize,
    /// Raw bytes of a baseline's catalog, and encoded bytes of the entries that a delta leads to: a receiver holds them.
    /// Four million entries with paths of 160 bytes; without this bound long paths would need sixteen times that.
    pub catalog_bytes_max: u64,
    /// Entries that are named of those whose attributes could not be kept; the others are counted.
    pub not_kept_named_max: usize,
    /// Paths of one kind that an extraction names in what it reports; of more, only the count is told.
    pub reported_paths_max: usize,
    /// Releases that a target in release mode keeps, the one in use among them.
    pub releases_kept: usize,
    /// Bytes of a kept entry list, compressed and not: as many entries as a package may have, with paths of the usual
    /// length.
    pub kept_entries_bytes_max: u64,
    /// Deltas that a Subscriber keeps behind a baseline of its own: opening them takes a list of entries for each.
    pub kept_deltas_max: usize,
    /// The most revisions that a Distribution may keep within reach of deltas: a statement names one for each, and half
    /// of what it may name is left for what later versions add.
    pub max_revisions_max: u32,
    /// Bytes of one `.gitignore` file: any that people write, many times over.
    pub gitignore_bytes_max: u64,
    /// Bytes that one source may have in the spool, and a tar file when it is unpacked: as much as a package can hold.
    pub spool_bytes_max: u64,
    /// Bytes of one extended header of a tar file: the longest path and link, and attributes, many times over.
    pub archive_header_bytes_max: u64,
    /// Bytes of all paths and link targets in a tar file: four million entries with paths of 200 bytes.
    pub archive_names_bytes_max: u64,
    /// Times that a URL may lead elsewhere, one after the other: a mirror and a signed address need three.
    pub redirects_max: u32,
    /// Times that a source is fetched when it breaks off or the server is busy, before the build fails.
    pub download_attempts_max: u32,
    /// Bytes of a schedule's text: every clause with the longest name of a time zone fits twice.
    pub schedule_bytes_max: usize,
    /// The shortest time that a schedule may repeat after, in seconds: a shorter one would only be work.
    pub schedule_interval_seconds_min: u64,
    /// The longest time that a schedule may repeat after, in seconds: ten years.
    pub schedule_interval_seconds_max: u64,
    /// The longest jitter, in seconds: a day, which spreads any fleet.
    pub schedule_jitter_seconds_max: u64,
    /// Days within which a cron pattern has to come again: 29 February on a given weekday takes 40 years across 2100.
    pub schedule_days_max: u32,
    /// Seconds after which the schedule `now` fires again while a Subscriber lacks the revision.
    pub schedule_retry_seconds: u64,
    /// The lowest rate that may be set, in bytes a second: at a lower one a single frame would take hours.
    pub rate_bytes_min: u64,
    /// The highest such rate: a network card of 800 Gbit/s.
    pub rate_bytes_max: u64,
    /// Parts of a rate that changes by the time of day.
    pub rate_parts_max: usize,
    /// Sends that may be under way at once, at most: each holds blocks, streams and an open file.
    pub sends_max: usize,
    /// Sends that are under way at once where nothing else is set: enough to fill any line, few enough that the first
    /// ones are done early.
    pub sends: usize,
    /// Bytes that all sends together hold ready for their connections.
    pub send_blocks_bytes: u64,
    /// Nodes of which a Distributor keeps how fast they take bytes.
    pub measured_links_max: usize,
    /// Seconds by which a planned moment may be overtaken before it counts as missed: longer than a busy machine takes,
    /// shorter than the least time between two.
    pub schedule_late_seconds: u64,
    /// Seconds by which a clock is set back before what it planned earlier counts as planned by a wrong clock. Less than
    /// that, and nothing comes a second time.
    pub schedule_set_back_seconds: u64,
    /// Seconds after which sources are looked at again, where a schedule says `now`.
    pub schedule_look_seconds: u64,
    /// The most seconds of real time between two looks at the clock, which may have been set meanwhile.
    pub schedule_idle_seconds: u64,
    /// Identity keys in one offer, one message about presence, or one page of entitlements: half of a message.
    pub named_keys_max: usize,
    /// Receipts in one message: about as many as fit, and few enough that every one can be refused with a reason.
    pub receipts_max: usize,
    /// Deliveries in one message about progress: each needs about 100 bytes.
    pub progress_entries_max: usize,
    /// Bytes of one page of entitlements: the largest payload whose envelope surely is within its own limit.
    pub entitlements_bytes_max: u64,
    /// Pages of entitlements for one parent, a power of two: some 300 nodes on each make more than a fleet has.
    pub entitlement_pages_max: u16,
    /// Receipts of one node that its parent keeps to pass them on; beyond that the oldest go, because newer ones say
    /// more.
    pub passed_receipts_max: usize,
    /// Enrolments that a parent passes on at once: each waits for the Distributor's disk.
    pub passed_enrolments_max: usize,
    /// Firings of one Distribution that a relay passes on at a time: one for each Channel that has it, many times over.
    pub relayed_firings_max: usize,
    /// Bytes of a firing's head, or of one part of it: names, times, and 1 KiB of what went wrong.
    pub firing_record_bytes_max: u64,
    /// Firings of one Channel that stay on record when they are over: a day of one every quarter of an hour.
    pub firings_kept_max: usize,
    /// Parts of firings that are over which stay on record, the oldest firings going first: a hundred firings to 10,000
    /// nodes. Each takes about 300 bytes on disk.
    pub firing_parts_kept_max: u64,
    /// Bytes of one file of the log of events: small enough that following it reads little.
    pub event_file_bytes_max: u64,
    /// Files of that log, of which the oldest goes when another is begun: 64 MiB in all, some 300,000 events.
    pub event_files_max: usize,
    /// Events in one answer: about 10 MiB.
    pub events_answered_max: usize,
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
        part_map_bytes_max: MIB / 8 + 4 * KIB,
        frame_failures_max: 3,
        package_failures_max: 16,
        index_failures_max: 3,
        sync_interval_bytes: 16 * MIB,
        sync_interval_seconds: 20,
        receive_buffer_bytes: 32 * MIB,
        fetches_max: 4,
        silence_seconds_max: 60_000,
        journal_bytes_max: 1024 * MIB,
        open_folders_max: 200,
        streams_max: 64,
        handshakes_max: 1024,
        close_reason_chars_max: 300,
        send_budget_bytes: 48 * MIB,
        scrub_interval_seconds: 7 * 24 * 3600,
        scrub_interval_seconds_min: 60,
        scrub_bytes_per_second: 16 * MIB,
        scrub_note_bytes: 256 * MIB,
        damaged_frames_named_max: 8,
        grants_max: 1000 * 1000,
        grant_bytes_max: 4 * KIB,
        kept_grant_bytes_max: 72 * KIB,
        epoch_secrets_max: 64,
        announced_envelopes_max: 64,
        revocation_page_keys_max: 500,
        revocation_pages_max: 50,
        revocation_serials_max: 2,
        configuration_bytes_max: 48 * KIB,
        configuration_sections_max: 64,
        setting_bytes_max: 256,
        setting_interval_seconds_min: 60,
        setting_interval_seconds_max: 3650 * 24 * 3600,
        parents_max: 8,
        variable_name_bytes_max: 64,
        password_iterations_max: 10_000_000,
        backup_bytes_max: 256 * MIB,
        backup_work: 18,
        backup_work_max: 22,
        passphrase_chars_min: 12,
        offered_distributions_max: 10_000,
        source_record_bytes_max: 128 * MIB,
        delta_catalog_bytes_max: 256 * MIB,
        delta_prefix_bytes_max: 16 * MIB,
        hook_seconds: 60,
        hook_seconds_max: 24 * 3600,
        hook_grace_seconds: 5,
        hook_output_bytes_max: 4 * KIB as usize,
        hook_receipt_bytes_max: 300,
        catalog_bytes_max: 1024 * MIB,
        not_kept_named_max: 8,
        reported_paths_max: 1000,
        releases_kept: 3,
        kept_entries_bytes_max: 1024 * MIB,
        kept_deltas_max: 32,
        max_revisions_max: 32,
        gitignore_bytes_max: MIB,
        spool_bytes_max: 2 * MIB * MIB,
        archive_header_bytes_max: MIB,
        archive_names_bytes_max: 1024 * MIB,
        redirects_max: 8,
        download_attempts_max: 5,
        schedule_bytes_max: 256,
        schedule_interval_seconds_min: 60,
        schedule_interval_seconds_max: 3650 * 24 * 3600,
        schedule_jitter_seconds_max: 24 * 3600,
        schedule_days_max: 15_000,
        schedule_retry_seconds: 15 * 60,
        rate_bytes_min: 1000,
        rate_bytes_max: 100 * 1000 * 1000 * 1000,
        rate_parts_max: 16,
        sends_max: 1000,
        sends: 64,
        send_blocks_bytes: 64 * MIB,
        measured_links_max: 100_000,
        schedule_late_seconds: 60,
        schedule_set_back_seconds: 24 * 3600,
        schedule_look_seconds: 60,
        schedule_idle_seconds: 30,
        named_keys_max: 1000,
        receipts_max: 48,
        progress_entries_max: 500,
        entitlements_bytes_max: 48 * KIB,
        entitlement_pages_max: 256,
        passed_receipts_max: 64,
        passed_enrolments_max: 16,
        relayed_firings_max: 256,
        firing_record_bytes_max: 16 * KIB,
        firings_kept_max: 100,
        firing_parts_kept_max: 1000 * 1000,
        event_file_bytes_max: 4 * MIB,
        event_files_max: 16,
        events_answered_max: 50_000,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}
