#!/usr/bin/env python3
"""Opens and verifies a TED package. Written from docs/format.md alone, to show that the page is enough.

Usage: ted_reader.py [--key FILE] [--base PACKAGE [--base-key FILE]] PACKAGE [CERTIFICATE.cer]

FILE holds the content key of a sealed package, 64 hex digits. Without it a sealed package is verified as far as it goes.
A delta is applied to the baseline that --base names; without it, what it leads to is not looked at.

Prints what it found as JSON. Exit status 0 means that everything was verified that could be: the chain of the signature
only if the Distributor's certificate is given, the signature itself and sealed frames only if the module `cryptography`
is there; what was is said in the output. 1 means that the package is refused, with the reason on standard error.
"""

import argparse
import hashlib
import io
import json
import sys
import tarfile

from ted_delta import apply, read_delta_catalog, resolve
from ted_format import (
    END,
    FILE,
    FOLDER,
    HARD_LINK,
    HEAD,
    KINDS,
    SYMLINK,
    Refused,
    catalog_frames,
    check_frame,
    demand,
    hash_of,
    judge_entries,
    judge_places,
    read_catalog,
    read_frame,
    read_root,
    read_table,
    read_tail,
    skippable,
    unsealing,
    verify_chain,
    verify_signature,
    x509,
)

TAR_TYPES = {FOLDER: tarfile.DIRTYPE, FILE: tarfile.REGTYPE, SYMLINK: tarfile.SYMTYPE, HARD_LINK: tarfile.LNKTYPE}


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


def verify(package, authority, key, base=None):
    """What is found of `package`; `base` is the package that a delta goes from, and its content key."""
    places, version = read_tail(package)
    part = {name: package[offset : offset + length] for name, (offset, length) in places.items()}
    root_bytes, root, signature = read_root(part["root"])
    if x509 is not None:
        certificate = verify_signature(root_bytes, signature)
        if authority is not None:
            verify_chain(root, certificate, authority)
    body_from = 0 if root["salt"] is None and root["base"] is None else 16
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
    elif root["base"] is not None:
        found["base"] = root["base"]
        found.update(verify_delta(root, stored, (body_rows, catalog_rows), part["catalog"], unseal, base))
    else:
        found.update(verify_content(root, stored, (body_rows, catalog_rows), part["catalog"], unseal)[0])
    verify_digest(root, stored)
    return found


def verify_content(root, stored, rows, catalog, unseal):
    """What is found, the entries, and the contents by path."""
    body_rows, catalog_rows = rows
    frames, at = {}, 0
    for row in body_rows:
        frames[at] = at + row[1]
        at += row[1]
    entries, disclosure = read_catalog(catalog, catalog_rows, root, unseal)
    judge_entries(entries)
    judge_places(entries, root, frames)
    body = read_body(stored, body_rows, unseal)
    verify_contents(entries, body)
    found = listing(entries, disclosure)
    found["tar_members"] = verify_tar(entries, body)
    files = [entry for entry in entries if entry["kind"] == FILE]
    contents = {entry["path"]: body[entry["offset"] : entry["offset"] + entry["size"]] for entry in files}
    return found, entries, contents


def verify_delta(root, stored, rows, catalog, unseal, base):
    body_rows, catalog_rows = rows
    disclosure, stated, columns = read_delta_catalog(catalog, catalog_rows, root, unseal, read_frame)
    if base is None:
        return {"applied": False, "distribution_name": disclosure["name"], "content_id": disclosure["content"].hex()}
    old, contents = open_base(*base)
    resolved = resolve(old, stated, columns, root, disclosure)
    apply(old, contents, body_frames(stored, body_rows), unseal, resolved)
    return {"applied": True, **listing(resolved[0], disclosure)}


def open_base(package, key):
    """Entries and contents of a baseline."""
    places, _version = read_tail(package)
    part = {name: package[offset : offset + length] for name, (offset, length) in places.items()}
    _root_bytes, root, _signature = read_root(part["root"])
    demand(root["base"] is None, "the base is a delta itself: give the baseline of that revision")
    body_from = 0 if root["salt"] is None else 16
    unseal = unsealing(root, key)
    demand(unseal is not None, "the base is sealed, and there is no key")
    stored = package[body_from : body_from + root["body_bytes"]]
    _found, entries, contents = verify_content(root, stored, read_table(part["table"], root), part["catalog"], unseal)
    return entries, contents


def listing(entries, disclosure):
    return {
        "distribution_name": disclosure["name"],
        "content_id": disclosure["content"].hex(),
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


def read_key(path):
    return bytes.fromhex(read_file(path).decode("ascii").strip())


def main(arguments):
    parser = argparse.ArgumentParser(description="Opens and verifies a TED package.")
    parser.add_argument("--key", metavar="FILE", help="the content key of a sealed package, 64 hex digits")
    parser.add_argument("--base", metavar="PACKAGE", help="the baseline that a delta goes from: the delta is applied")
    parser.add_argument("--base-key", metavar="FILE", help="the content key of that baseline")
    parser.add_argument("package")
    parser.add_argument("certificate", nargs="?", help="the Distributor's certificate")
    options = parser.parse_args(arguments)
    if options.certificate and x509 is None:
        parser.error("without the module `cryptography` no certificate can be verified")
    authority = options.certificate and x509.load_pem_x509_certificate(read_file(options.certificate))
    key, base_key = options.key and read_key(options.key), options.base_key and read_key(options.base_key)
    try:
        base = options.base and (read_file(options.base), base_key)
        found = verify(read_file(options.package), authority, key, base)
    except Refused as error:
        print(f"refused: {error}", file=sys.stderr)
        return 1
    json.dump(found, sys.stdout, indent=2)
    print()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
