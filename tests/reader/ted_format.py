"""The parts of a TED package: sections 1 to 5, 7 and 9 of docs/format.md, and from that page alone."""

import bisect
import datetime
import struct

import blake3
import zstandard

try:
    from cryptography import x509
    from cryptography.exceptions import InvalidSignature, InvalidTag
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ImportError:
    x509 = None

HEAD = 0x184D2A50
CATALOG, TABLE, ROOT, TAIL = 0x184D2A51, 0x184D2A52, 0x184D2A53, 0x184D2A54
SIGN_USAGE = "2.25.89750531712634888496255718847187424211.1"
FOLDER, FILE, SYMLINK, HARD_LINK = range(4)
KINDS = ["folder", "file", "symlink", "hard link"]
BLOCK = 512
END = 1024


class Refused(Exception):
    """The package is not what the format demands."""


def demand(condition, reason):
    if not condition:
        raise Refused(reason)


def hash_of(data):
    return blake3.blake3(data).digest()


def padded(length):
    return -(-length // BLOCK) * BLOCK


# Section 1: conventions and the codec.


class Decoder:
    def __init__(self, data):
        self.data = data
        self.at = 0

    def take(self, count):
        demand(count <= len(self.data) - self.at, "an encoded value ends early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, form):
        return struct.unpack("<" + form, self.take(struct.calcsize("<" + form)))[0]

    def u16(self):
        return self.number("H")

    def u32(self):
        return self.number("I")

    def u64(self):
        return self.number("Q")

    def bytes(self):
        return self.take(self.u64())

    def text(self):
        try:
            return self.bytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refused("a text is not UTF-8") from error

    def choice(self, variants):
        variant = self.u32()
        demand(variant < variants, "an unknown variant of a choice")
        return variant

    def end(self):
        demand(self.at == len(self.data), "something follows an encoded value")


def skippable(data, magic):
    demand(len(data) >= 8, "a part is too short")
    found, length = struct.unpack("<II", data[:8])
    demand(found == magic, "a part does not begin with its magic number")
    demand(length == len(data) - 8, "a part has another length than its header says")
    return data[8:]


# Section 3: the tail; section 2: the head, which has the tail's first bytes.


def read_tail(package):
    demand(len(package) >= 72, "the file is too short for a package")
    tail = skippable(package[-72:], TAIL)
    demand(tail[:4] == b"TED\0", "the file does not end as a package does")
    major, _minor, *numbers = struct.unpack("<HH7Q", tail[4:])
    demand(major == 1, "the format version is not 1")
    places = dict(zip(("catalog", "table", "root"), zip(numbers[0:6:2], numbers[1:6:2])))
    demand(sum(places["catalog"]) == places["table"][0], "a gap behind the catalog")
    demand(sum(places["table"]) == places["root"][0], "a gap behind the table")
    demand(sum(places["root"]) == len(package) - 72, "a gap behind the root")
    demand(numbers[6] == len(package), "the tail states another length of the file")
    return places, tail[:8]


# Section 4: root and signature.


def read_root(block):
    content = skippable(block, ROOT)
    decoder = Decoder(content)
    length = decoder.u32()
    demand(length <= 65536, "the root is too long")
    root_bytes = decoder.take(length)
    signature_bytes = content[decoder.at :]
    demand(len(signature_bytes) <= 16384, "the signature is too long")
    return root_bytes, decode_root(root_bytes), decode_signature(signature_bytes)


def decode_root(root_bytes):
    decoder = Decoder(root_bytes)
    root = {"context": decoder.text()}
    demand(root["context"] == "ted/root/1", "the root has another context")
    root["distribution"] = decoder.take(16)
    root["distributor"] = decoder.take(32)
    root["revision"] = decoder.u64()
    root["created"] = decoder.u64()
    root["base"] = decoder.u64() if decoder.choice(2) == 1 else None
    demand(root["base"] is None or root["base"] < root["revision"], "a delta does not lead to a later revision")
    root["salt"] = root["commitment"] = None
    if decoder.choice(2) == 1:
        root["salt"], root["commitment"] = decoder.take(32), decoder.take(32)
    root["frame_bytes"] = decoder.u32()
    root["level"] = decoder.number("i")
    for field in ("body_frames", "catalog_frames", "body_bytes", "body_raw_bytes", "catalog_bytes"):
        root[field] = decoder.u64()
    root["table"] = decoder.take(32)
    digest = decoder.choice(3)
    root["digest"] = (digest, decoder.take((0, 16, 32)[digest]))
    root["disclosure"] = None
    disclosed = decoder.take(1)
    demand(disclosed == (b"\x01" if root["salt"] is None else b"\x00"), "what it is is disclosed if, and only if, unsealed")
    if root["salt"] is None:
        root["disclosure"] = decode_disclosure(decoder)
    decoder.end()
    frame_bytes = root["frame_bytes"]
    demand(65536 <= frame_bytes <= 4194304 and frame_bytes & (frame_bytes - 1) == 0, "the frame length is not allowed")
    demand(root["body_frames"] >= 1 or root["base"] is not None, "the body is missing")
    demand(root["catalog_frames"] >= 1, "the catalog is missing")
    demand(root["body_frames"] + root["catalog_frames"] <= 1048576, "too many frames")
    return root


def decode_disclosure(decoder):
    return {"name": decoder.text(), "content": decoder.take(32), "entries": decoder.u64()}


def decode_signature(data):
    decoder = Decoder(data)
    signature = {"algorithm": decoder.u16(), "certificate": decoder.bytes(), "signature": decoder.bytes()}
    decoder.end()
    demand(signature["algorithm"] == 1, "the signature's algorithm is unknown")
    return signature


def verify_signature(root_bytes, signature):
    certificate = x509.load_der_x509_certificate(signature["certificate"])
    context = b"ted/root/1"
    message = struct.pack("<Q", len(context)) + context + struct.pack("<Q", len(root_bytes)) + root_bytes
    key = certificate.public_key()
    demand(isinstance(key, ec.EllipticCurvePublicKey) and key.curve.name == "secp256r1", "the key is not on P-256")
    try:
        key.verify(signature["signature"], message, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature as error:
        raise Refused("the signature does not hold") from error
    return certificate


def verify_chain(root, certificate, authority):
    spki = authority.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    demand(hash_of(spki) == root["distributor"], "the package is another Distributor's")
    try:
        authority.verify_directly_issued_by(authority)
        certificate.verify_directly_issued_by(authority)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise Refused("the signer's certificate was not issued by the Distributor") from error
    created = datetime.datetime.fromtimestamp(root["created"] / 1000, datetime.timezone.utc)
    for what in (authority, certificate):
        demand(what.not_valid_before_utc <= created <= what.not_valid_after_utc, "a certificate was not valid")
    names = [
        list(what.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        for what in (authority, certificate)
    ]
    demand(len(names[0]) == 1 and names[0] == names[1], "the signer's certificate has another name")
    usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
    demand([identifier.dotted_string for identifier in usage] == [SIGN_USAGE], "the certificate is not one to sign with")


# Section 5: the table.


def read_table(block, root):
    content = skippable(block, TABLE)
    demand(hash_of(content) == root["table"], "the table is not the root's")
    rows = [(stored, raw, digest) for stored, raw, digest in struct.iter_unpack("<II32s", content)]
    for stored, raw, _digest in rows:
        demand(1 <= stored <= 8454144 and 1 <= raw <= 8388608, "a frame is empty or too long")
    body, catalog = rows[: root["body_frames"]], rows[root["body_frames"] :]
    demand(sum(row[0] for row in body) == root["body_bytes"], "the body has another stored length")
    demand(sum(row[1] for row in body) == root["body_raw_bytes"], "the body has another raw length")
    demand(sum(row[0] + 8 for row in catalog) == root["catalog_bytes"], "the catalog has another length")
    demand(root["salt"] is None or all(row[0] >= 17 for row in rows), "a sealed frame has no content")
    return body, catalog


def check_frame(row, stored):
    demand(len(stored) == row[0] and hash_of(stored) == row[2], "a frame does not have its hash")


# Section 9: sealing.


def commitment(key):
    return blake3.blake3(key, derive_key_context="ted 2026 commitment to a content key").digest()


def unsealing(root, key):
    """What opens the stored bytes of frame number n; None if they stay sealed."""
    if root["salt"] is None:
        return lambda _number, stored: stored
    if key is None or x509 is None:
        return None
    demand(commitment(key) == root["commitment"], "the key is another package's")
    cipher = AESGCM(key)

    def opened(number, stored):
        row = struct.pack("<Q", number)
        try:
            return cipher.decrypt(row + bytes(4), stored, root["salt"] + row)
        except InvalidTag as error:
            raise Refused("a sealed frame does not open") from error

    return opened


def read_frame(row, number, stored, unseal):
    check_frame(row, stored)
    stored, raw_bytes = unseal(number, stored), row[1]
    try:
        demand(zstandard.frame_content_size(stored) == raw_bytes, "a frame states another raw length")
        decoder = zstandard.ZstdDecompressor().decompressobj()
        raw = decoder.decompress(stored)
    except zstandard.ZstdError as error:
        raise Refused("a frame cannot be decompressed") from error
    demand(decoder.eof and not decoder.unused_data, "a frame is not exactly one zstd frame")
    demand(len(raw) == raw_bytes, "a frame has another raw length")
    return raw


# Section 7: the catalog.


def catalog_frames(data, rows):
    at = 0
    for row in rows:
        yield row, skippable(data[at : at + 8 + row[0]], CATALOG)
        at += 8 + row[0]


def read_catalog(data, rows, root, unseal):
    entries, content_id, disclosure = [], blake3.blake3(), root["disclosure"]
    for number, (row, stored) in enumerate(catalog_frames(data, rows), root["body_frames"]):
        raw = read_frame(row, number, stored, unseal)
        decoder = Decoder(raw)
        if disclosure is None:
            disclosure = decode_disclosure(decoder)
        for _ in range(decoder.u64()):
            begin = decoder.at
            entry = decode_entry(decoder)
            content_id.update(raw[begin : decoder.at])
            entry["offset"] = decoder.u64()
            entries.append(entry)
            demand(len(entries) <= disclosure["entries"], "the catalog has more entries than stated")
        decoder.end()
    demand(len(entries) == disclosure["entries"], "the catalog has fewer entries than stated")
    demand(content_id.digest() == disclosure["content"], "the content id is another one")
    return entries, disclosure


def decode_entry(decoder):
    entry = {"path": decoder.bytes(), "kind": decoder.choice(4)}
    for field in ("mode", "uid", "gid"):
        entry[field] = decoder.u32()
    entry["seconds"] = decoder.number("q")
    entry["nanoseconds"] = decoder.u32()
    entry["size"] = decoder.u64()
    entry["link"] = decoder.bytes()
    entry["content"] = decoder.take(32)
    entry["extensions"] = decode_extensions(decoder)
    return entry


def decode_extensions(decoder):
    return [(decoder.u16(), decoder.bytes()) for _ in range(decoder.u64())]


def encode_entry(entry):
    def data(content):
        return struct.pack("<Q", len(content)) + content

    head = struct.pack("<IIIIqI", *(entry[field] for field in ("kind", "mode", "uid", "gid", "seconds", "nanoseconds")))
    extensions = b"".join(struct.pack("<H", kind) + data(content) for kind, content in entry["extensions"])
    tail = struct.pack("<Q", len(entry["extensions"])) + extensions
    return data(entry["path"]) + head + struct.pack("<Q", entry["size"]) + data(entry["link"]) + entry["content"] + tail


def judge_path(path):
    components = path.split(b"/")
    demand(len(path) <= 4096 and len(components) <= 1024, "a path is too long or too deep")
    for component in components:
        demand(component not in (b"", b".", b".."), "a component of a path is empty, `.` or `..`")
        demand(len(component) <= 255 and b"\0" not in component, "a component is too long or holds NUL")


def judge_entries(entries):
    demand(entries and entries[0]["path"] == b"" and entries[0]["kind"] == FOLDER, "the root folder is missing")
    demand(len(entries) <= 4000000, "too many entries")
    kinds, before = {b"": FOLDER}, b""
    for entry in entries[1:]:
        path = entry["path"]
        judge_path(path)
        demand(path > before, "entries are out of order")
        parent = path.rpartition(b"/")[0]
        demand(kinds.get(parent) == FOLDER, "the folder of an entry is missing")
        before = path
        judge_entry(entry, kinds)
        kinds[path] = entry["kind"]
    for entry in entries:
        demand(entry["mode"] <= 0o7777 and entry["nanoseconds"] < 10**9, "mode or time is out of range")
        extensions = [kind for kind, _ in entry["extensions"]]
        demand(extensions == sorted(set(extensions)) and len(extensions) <= 64, "extensions are out of order")
        demand(all(len(data) <= 65536 for _, data in entry["extensions"]), "an extension is too long")


def judge_places(entries, root, frames):
    """`frames` maps the raw offset at which a frame begins to the one at which it ends."""
    starts, end = sorted(frames), 0
    for entry in entries:
        if entry["size"] > 0:
            demand(entry["offset"] >= end + BLOCK, "contents overlap or lack their header")
            end = entry["offset"] + padded(entry["size"])
            demand(end <= root["body_raw_bytes"] - END, "a content ends behind the body")
            judge_cut(entry, root["frame_bytes"], frames, starts)
        else:
            demand(entry["offset"] == 0, "an entry without content has an offset")


def judge_entry(entry, kinds):
    kind, link = entry["kind"], entry["link"]
    if kind == FILE:
        demand(link == b"", "a file has a link")
        demand(entry["size"] > 0 or entry["content"] == hash_of(b""), "an empty file has another hash")
        return
    demand(entry["size"] == 0 and entry["content"] == bytes(32), "an entry has content that has none")
    if kind == FOLDER:
        demand(link == b"", "a folder has a link")
    elif kind == SYMLINK:
        demand(1 <= len(link) <= 4096 and b"\0" not in link, "a symlink's target is not allowed")
    else:
        demand(kinds.get(link) in (FILE, SYMLINK), "a hard link names no earlier file or symlink")


def judge_cut(entry, frame_bytes, frames, starts):
    offset, size = entry["offset"], entry["size"]
    if size <= frame_bytes:
        start = starts[bisect.bisect_right(starts, offset) - 1]
        demand(offset + size <= frames[start], "a short content lies in several frames")
        return
    for at in range(offset, offset + size, frame_bytes):
        last = at + frame_bytes >= offset + size
        stop = offset + padded(size) if last else at + frame_bytes
        demand(frames.get(at) == stop, "a long content is not cut as it must be")
