#!/usr/bin/env python3
"""Opens and verifies a TED package. Written from docs/format.md alone, to show that the page is enough.

Usage: ted_reader.py [--key FILE] PACKAGE [CERTIFICATE.cer]

FILE holds the content key of a sealed package, 64 hex digits. Without it a sealed package is verified as far as it goes.

Prints what it found as JSON. Exit status 0 means that everything was verified that could be: the chain of the signature
only if the Distributor's certificate is given, the signature itself and sealed frames only if the module `cryptography`
is there; what was is said in the output. 1 means that the package is refused, with the reason on standard error.
"""

import argparse
import bisect
import datetime
import hashlib
import io
import json
import struct
import sys
import tarfile

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
TAR_TYPES = {FOLDER: tarfile.DIRTYPE, FILE: tarfile.REGTYPE, SYMLINK: tarfile.SYMTYPE, HARD_LINK: tarfile.LNKTYPE}
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
    demand(decoder.choice(2) == 0, "deltas are not in format 1.0")
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
    demand(root["body_frames"] >= 1 and root["catalog_frames"] >= 1, "body or catalog is missing")
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
    entry["extensions"] = [(decoder.u16(), decoder.bytes()) for _ in range(decoder.u64())]
    return entry


def judge_path(path):
    components = path.split(b"/")
    demand(len(path) <= 4096 and len(components) <= 1024, "a path is too long or too deep")
    for component in components:
        demand(component not in (b"", b".", b".."), "a component of a path is empty, `.` or `..`")
        demand(len(component) <= 255 and b"\0" not in component, "a component is too long or holds NUL")


def judge_catalog(entries, root, frames):
    """`frames` maps the raw offset at which a frame begins to the one at which it ends."""
    demand(entries and entries[0]["path"] == b"" and entries[0]["kind"] == FOLDER, "the root folder is missing")
    demand(len(entries) <= 4000000, "too many entries")
    kinds, before, end = {b"": FOLDER}, b"", 0
    for entry in entries[1:]:
        path = entry["path"]
        judge_path(path)
        demand(path > before, "entries are out of order")
        parent = path.rpartition(b"/")[0]
        demand(kinds.get(parent) == FOLDER, "the folder of an entry is missing")
        before = path
        judge_entry(entry, kinds)
        kinds[path] = entry["kind"]
    starts = sorted(frames)
    for entry in entries:
        demand(entry["mode"] <= 0o7777 and entry["nanoseconds"] < 10**9, "mode or time is out of range")
        extensions = [kind for kind, _ in entry["extensions"]]
        demand(extensions == sorted(set(extensions)) and len(extensions) <= 64, "extensions are out of order")
        demand(all(len(data) <= 65536 for _, data in entry["extensions"]), "an extension is too long")
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


# Section 6: the body, and that its tar stream says what the catalog says.


def body_frames(stored, rows):
    at = 0
    for row in rows:
        yield row, stored[at : at + row[0]]
        at += row[0]


def read_body(stored, rows, unseal):
    frames = enumerate(body_frames(stored, rows))
    return b"".join(read_frame(row, number, frame, unseal) for number, (row, frame) in frames)


def verify_contents(entries, body):
    for entry in entries:
        if entry["kind"] == FILE:
            content = body[entry["offset"] : entry["offset"] + entry["size"]]
            demand(hash_of(content) == entry["content"], f"the content of {entry['path']!r} does not have its hash")


def verify_digest(root, stored):
    kind, digest = root["digest"]
    if kind == 1:
        demand(hashlib.md5(stored, usedforsecurity=False).digest() == digest, "the body does not have its MD5")
    if kind == 2:
        demand(hash_of(stored) == digest, "the body does not have its BLAKE3")


def verify_tar(entries, body):
    demand(body[-END:] == bytes(END), "the tar stream does not end with its marker")
    archive = tarfile.open(fileobj=io.BytesIO(body), encoding="utf-8", errors="surrogateescape")
    members = list(archive)
    demand(len(members) == len(entries), "the tar stream has another number of entries")
    for entry, member in zip(entries, members):
        place = entry["path"] or b"."
        for what, found, stated in (
            ("name", raw_name(member.name), place),
            ("type", member.type, TAR_TYPES[entry["kind"]]),
            ("mode", member.mode, entry["mode"]),
            ("uid", member.uid, entry["uid"]),
            ("gid", member.gid, entry["gid"]),
            ("size", member.size, entry["size"]),
            ("link", raw_name(member.linkname), entry["link"]),
            ("mtime", exact_mtime(member), entry["seconds"] * 10**9 + entry["nanoseconds"]),
            ("offset", member.offset_data if entry["size"] else 0, entry["offset"]),
        ):
            demand(found == stated, f"tar and catalog disagree about the {what} of {place!r}: {found!r}, {stated!r}")
    return len(members)


def raw_name(name):
    return name.encode("utf-8", "surrogateescape")


def exact_mtime(member):
    """Nanoseconds. `tarfile` keeps the text of a pax record, where the number would have been rounded."""
    text = member.pax_headers.get("mtime")
    if text is None:
        return int(member.mtime) * 10**9
    whole, _, fraction = text.lstrip("-").partition(".")
    nanoseconds = int(whole) * 10**9 + int(fraction.ljust(9, "0"))
    return -nanoseconds if text.startswith("-") else nanoseconds


# All of it.


def verify(package, authority, key):
    places, version = read_tail(package)
    part = {name: package[offset : offset + length] for name, (offset, length) in places.items()}
    root_bytes, root, signature = read_root(part["root"])
    if x509 is not None:
        certificate = verify_signature(root_bytes, signature)
        if authority is not None:
            verify_chain(root, certificate, authority)
    body_from = 0 if root["salt"] is None else 16
    demand(places["catalog"] == (body_from + root["body_bytes"], root["catalog_bytes"]), "root and tail disagree")
    rows = root["body_frames"] + root["catalog_frames"]
    demand(places["table"][1] == 8 + 40 * rows, "root and tail disagree about the table")
    if body_from:
        demand(skippable(package[:body_from], HEAD) == version, "head and tail disagree")
    body_rows, catalog_rows = read_table(part["table"], root)
    unseal = unsealing(root, key)
    stored = package[body_from : body_from + root["body_bytes"]]
    found = {
        "package_id": hash_of(root_bytes).hex(),
        "distribution": root["distribution"].hex(),
        "distributor": root["distributor"].hex(),
        "revision": root["revision"],
        "created": root["created"],
        "body_frames": root["body_frames"],
        "signature_verified": x509 is not None,
        "chain_verified": authority is not None,
        "sealed": root["salt"] is not None,
        "opened": unseal is not None,
    }
    if unseal is None:
        for row, frame in [*body_frames(stored, body_rows), *catalog_frames(part["catalog"], catalog_rows)]:
            check_frame(row, frame)
    else:
        found.update(verify_content(root, stored, (body_rows, catalog_rows), part["catalog"], unseal))
    verify_digest(root, stored)
    return found


def verify_content(root, stored, rows, catalog, unseal):
    body_rows, catalog_rows = rows
    frames, at = {}, 0
    for row in body_rows:
        frames[at] = at + row[1]
        at += row[1]
    entries, disclosure = read_catalog(catalog, catalog_rows, root, unseal)
    judge_catalog(entries, root, frames)
    body = read_body(stored, body_rows, unseal)
    verify_contents(entries, body)
    return {
        "distribution_name": disclosure["name"],
        "content_id": disclosure["content"].hex(),
        "tar_members": verify_tar(entries, body),
        "entries": [
            {
                "path": entry["path"].hex(),
                "kind": KINDS[entry["kind"]],
                "size": entry["size"],
                "content": entry["content"].hex(),
            }
            for entry in entries
        ],
    }


def read_file(path):
    with open(path, "rb") as file:
        return file.read()


def main(arguments):
    parser = argparse.ArgumentParser(description="Opens and verifies a TED package.")
    parser.add_argument("--key", metavar="FILE", help="the content key of a sealed package, 64 hex digits")
    parser.add_argument("package")
    parser.add_argument("certificate", nargs="?", help="the Distributor's certificate")
    options = parser.parse_args(arguments)
    if options.certificate and x509 is None:
        parser.error("without the module `cryptography` no certificate can be verified")
    authority = options.certificate and x509.load_pem_x509_certificate(read_file(options.certificate))
    key = options.key and bytes.fromhex(read_file(options.key).decode("ascii").strip())
    try:
        found = verify(read_file(options.package), authority, key)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
