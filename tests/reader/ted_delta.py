"""Deltas: their catalog, and applying them. Written from section 10 of docs/format.md alone."""

import zstandard

from ted_format import (
    FILE,
    FOLDER,
    KINDS,
    Decoder,
    Refused,
    catalog_frames,
    check_frame,
    decode_disclosure,
    decode_extensions,
    demand,
    encode_entry,
    hash_of,
    judge_entries,
)

CATALOG_BYTES_MAX = 268435456
PREFIX_BYTES_MAX = 16777216
ADDED, MODE, OWNER, MTIME, LINK, EXTENSIONS, CONTENT = (1 << bit for bit in range(7))
EMPTY, SAME, OPERATIONS = range(3)
BODY, COPY = range(2)

# In the order in which they are encoded, each with the form of its elements.
COLUMNS = [
    ("removed", "I"),
    ("rows", "B"),
    ("changed", "I"),
    ("path_shared", "I"),
    ("path_lengths", "I"),
    ("kinds", "B"),
    ("modes", "I"),
    ("uids", "I"),
    ("gids", "I"),
    ("mtime_seconds", "q"),
    ("mtime_nanoseconds", "I"),
    ("link_lengths", "I"),
    ("extension_lengths", "I"),
    ("content_from", "B"),
    ("same_as", "I"),
    ("sizes", "Q"),
    ("contents", "32s"),
    ("operation_counts", "I"),
    ("operations", "B"),
    ("operation_bytes", "Q"),
    ("copy_files", "I"),
    ("copy_offsets", "Q"),
    ("prefix_counts", "I"),
    ("prefix_files", "I"),
    ("prefix_offsets", "Q"),
    ("prefix_bytes", "I"),
    ("path_bytes", "B"),
    ("link_bytes", "B"),
    ("extension_bytes", "B"),
]


class Columns:
    """All parts of each list together, to be taken from the front."""

    def __init__(self):
        self.lists = {name: [] for name, _ in COLUMNS}
        self.taken = dict.fromkeys(self.lists, 0)

    def add(self, decoder):
        for name, form in COLUMNS:
            self.lists[name].extend(decoder.number(form) for _ in range(decoder.u64()))

    def take(self, name):
        at = self.taken[name]
        demand(at < len(self.lists[name]), f"the delta's catalog ends early: {name}")
        self.taken[name] = at + 1
        return self.lists[name][at]

    def take_bytes(self, name, count):
        return bytes(self.take(name) for _ in range(count))

    def left(self, name):
        return len(self.lists[name]) - self.taken[name]

    def end(self):
        demand(all(self.left(name) == 0 for name in self.lists), "the delta's catalog does not use all that it has")


def read_delta_catalog(data, rows, root, unseal, read_frame):
    columns, disclosure, base, total = Columns(), root["disclosure"], None, 0
    for number, (row, stored) in enumerate(catalog_frames(data, rows), root["body_frames"]):
        total += row[1]
        demand(total <= CATALOG_BYTES_MAX, "the delta's catalog is too long")
        decoder = Decoder(read_frame(row, number, stored, unseal))
        if base is None:
            if disclosure is None:
                disclosure = decode_disclosure(decoder)
            base = {"content": decoder.take(32), "entries": decoder.u64()}
        columns.add(decoder)
        decoder.end()
    return disclosure, base, columns


def old_range(old, file, offset, length):
    demand(file < len(old) and old[file]["kind"] == FILE and length >= 1, "an old range is of no old file")
    demand(offset + length <= old[file]["size"], "an old range lies outside its file")
    return file, offset, length


class Resolver:
    """Puts the new entries together."""

    def __init__(self, old, columns):
        self.old, self.columns = old, columns
        self.entries, self.made = [], {}
        self.next_old = self.after_changed = self.body_bytes = 0
        self.last_added = b""
        self.removed, after = set(), 0
        for _ in range(len(columns.lists["removed"])):
            number = after + columns.take("removed")
            demand(number < len(old), "an entry is removed that is not there")
            self.removed.add(number)
            after = number + 1

    def keep_until(self, until):
        for number in range(self.next_old, until):
            if number not in self.removed:
                self.entries.append(self.old[number])
        self.next_old = max(self.next_old, until)

    def take_row(self):
        row = self.columns.take("rows")
        demand(0 < row < 128, "a row says what is not known")
        if row & ADDED:
            demand(row & (MODE | OWNER | MTIME) == 0, "an added row says what goes without saying")
            entry = self.added(row)
        else:
            entry = self.changed()
        if row & (ADDED | MODE):
            entry["mode"] = self.columns.take("modes")
        if row & (ADDED | OWNER):
            entry["uid"], entry["gid"] = self.columns.take("uids"), self.columns.take("gids")
        if row & (ADDED | MTIME):
            entry["seconds"] = self.columns.take("mtime_seconds")
            entry["nanoseconds"] = self.columns.take("mtime_nanoseconds")
        if row & LINK:
            entry["link"] = self.columns.take_bytes("link_bytes", self.columns.take("link_lengths"))
        if row & EXTENSIONS:
            raw = self.columns.take_bytes("extension_bytes", self.columns.take("extension_lengths"))
            decoder = Decoder(raw)
            entry["extensions"] = decode_extensions(decoder)
            decoder.end()
        if row & CONTENT:
            demand(entry["kind"] == FILE, "something that is no file has content")
            self.made[len(self.entries)] = self.content(entry)
        self.entries.append(entry)

    def changed(self):
        number = self.after_changed + self.columns.take("changed")
        demand(self.next_old <= number < len(self.old), "the rows are out of order")
        demand(number not in self.removed, "an entry is removed and changed")
        self.keep_until(number)
        self.next_old = self.after_changed = number + 1
        return dict(self.old[number])

    def added(self, row):
        shared, length = self.columns.take("path_shared"), self.columns.take("path_lengths")
        demand(shared <= len(self.last_added), "a path shares more than there is")
        path = self.last_added[:shared] + self.columns.take_bytes("path_bytes", length)
        self.last_added = path
        while self.next_old < len(self.old) and self.old[self.next_old]["path"] < path:
            self.keep_until(self.next_old + 1)
        kind = self.columns.take("kinds")
        demand(kind < len(KINDS), "an unknown kind")
        content = hash_of(b"") if kind == FILE else bytes(32)
        return {"path": path, "kind": kind, "size": 0, "link": b"", "content": content, "extensions": []}

    def content(self, entry):
        source = self.columns.take("content_from")
        demand(source <= OPERATIONS, "content comes from an unknown place")
        if source == EMPTY:
            entry["size"], entry["content"] = 0, hash_of(b"")
            return []
        if source == SAME:
            file = self.columns.take("same_as")
            demand(file < len(self.old) and self.old[file]["kind"] == FILE, "content is that of no old file")
            entry["size"], entry["content"] = self.old[file]["size"], self.old[file]["content"]
            return [(COPY, (file, 0, entry["size"]))] if entry["size"] else []
        entry["size"], entry["content"] = self.columns.take("sizes"), self.columns.take("contents")
        operations = [self.operation() for _ in range(self.columns.take("operation_counts"))]
        total = sum(length for _, (*_, length) in operations)
        demand(entry["size"] >= 1 and total == entry["size"], "operations do not add up to a file's size")
        return operations

    def operation(self):
        kind, length = self.columns.take("operations"), self.columns.take("operation_bytes")
        demand(kind <= COPY and length >= 1, "an operation is none")
        if kind == COPY:
            return COPY, old_range(self.old, self.columns.take("copy_files"), self.columns.take("copy_offsets"), length)
        self.body_bytes += length
        return BODY, (self.body_bytes - length, length)

    def prefix(self):
        ranges = []
        for _ in range(self.columns.take("prefix_counts")):
            file, offset = self.columns.take("prefix_files"), self.columns.take("prefix_offsets")
            ranges.append(old_range(self.old, file, offset, self.columns.take("prefix_bytes")))
        demand(sum(length for *_, length in ranges) <= PREFIX_BYTES_MAX, "a prefix is too long")
        return ranges


def resolve(old, base, columns, root, disclosure):
    listed = b"".join(encode_entry(entry) for entry in old)
    demand((hash_of(listed), len(old)) == (base["content"], base["entries"]), "the delta goes from another revision")
    resolver = Resolver(old, columns)
    while columns.left("rows"):
        resolver.take_row()
    resolver.keep_until(len(old))
    prefixes = [resolver.prefix() for _ in range(root["body_frames"])]
    columns.end()
    demand(resolver.body_bytes == root["body_raw_bytes"], "the operations do not take the body once")
    judge_entries(resolver.entries)
    listed = b"".join(encode_entry(entry) for entry in resolver.entries)
    demand(
        (hash_of(listed), len(resolver.entries)) == (disclosure["content"], disclosure["entries"]),
        "the delta does not lead to the revision that is stated",
    )
    return resolver.entries, resolver.made, prefixes


def decompress(stored, raw_bytes, prefix):
    try:
        demand(zstandard.frame_content_size(stored) == raw_bytes, "a frame states another raw length")
        options = {"max_window_size": 1 << 27}
        if prefix:
            options["dict_data"] = zstandard.ZstdCompressionDict(prefix, dict_type=zstandard.DICT_TYPE_RAWCONTENT)
        decoder = zstandard.ZstdDecompressor(**options).decompressobj()
        raw = decoder.decompress(stored)
    except zstandard.ZstdError as error:
        raise Refused("a frame cannot be decompressed") from error
    demand(decoder.eof and not decoder.unused_data, "a frame is not exactly one zstd frame")
    demand(len(raw) == raw_bytes, "a frame has another raw length")
    return raw


def apply(old, contents, frames, unseal, resolved):
    """The contents of the new revision by path; `contents` are those of the old one, by path."""
    entries, made, prefixes = resolved

    def read(file, offset, length):
        return contents[old[file]["path"]][offset : offset + length]

    body = b""
    for number, ((row, stored), ranges) in enumerate(zip(frames, prefixes)):
        check_frame(row, stored)
        prefix = b"".join(read(*part) for part in ranges)
        body += decompress(unseal(number, stored), row[1], prefix)
    result = {}
    for number, entry in enumerate(entries):
        if entry["kind"] != FILE:
            continue
        if number in made:
            parts = [read(*what) if kind == COPY else body[what[0] : sum(what)] for kind, what in made[number]]
            content = b"".join(parts)
        else:
            content = contents[entry["path"]]
        demand(hash_of(content) == entry["content"], f"the content of {entry['path']!r} does not have its hash")
        result[entry["path"]] = content
    return result
