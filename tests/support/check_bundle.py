#!/usr/bin/env python3
"""An independent checker of evidence bundles (`ledger export --bundle`): Python's standard library, nothing shared.

    check_bundle.py BUNDLE [VKEY]    prints "holds records FROM TO OF-SIZE" or "fails WHY"; exit status 0 or 1

BUNDLE is a directory or a .tar (zstd -d makes one of a .tar.zst). Without VKEY the key inside the bundle is used, which
shows only that its parts fit together. Checks sums, signatures, the tree, the growth, and that records.jsonl names the
records of records.bin (their number and kind; it does not know the stored form beyond that).
"""
import base64
import hashlib
import json
import os
import struct
import sys
import tarfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import check_proof


def need(truth, why):
    if not truth:
        raise ValueError(why)


def read(path):
    """name -> bytes; for evidence that fits into memory."""
    files = {}
    if os.path.isdir(path):
        for name in os.listdir(path):
            full = os.path.join(path, name)
            need(os.path.isfile(full) and not os.path.islink(full), name + " is no plain file")
            with open(full, "rb") as file:
                files[name] = file.read()
        return files
    with tarfile.open(path, "r:") as tar:
        for member in tar:
            if member.isdir():
                continue
            need(member.isreg(), member.name + " is no plain file")
            name = member.name.rpartition("/")[2]
            need(name not in files, name + " is there twice")
            files[name] = tar.extractfile(member).read()
    return files


def signed_text(note, key):
    need(note.endswith("\n"), "a note is cut off")
    text, _, signatures = note.rpartition("\n\n")
    for line in signatures.splitlines():
        _, name, encoded = line.split(" ")
        data = base64.b64decode(encoded, validate=True)
        if name == key.name and data[:4].hex() == key.id:
            need(check_proof.verify_ed25519(key.public, (text + "\n").encode(), data[4:]), "a signature is wrong")
            return text + "\n"
    raise ValueError("not signed by the key")


def records_of(data):
    magic = b"ledger/records@v1\n"
    need(data.startswith(magic), "records.bin begins otherwise")
    at, last = len(magic), 0
    while at < len(data):
        need(at + 12 <= len(data), "records.bin is cut off")
        seq, length = struct.unpack(">QI", data[at:at + 12])
        need(at + 12 + length <= len(data) and seq > last, "records.bin is cut off or out of order")
        yield seq, data[at + 12:at + 12 + length]
        at, last = at + 12 + length, seq


def root_with(records, hashes, size):
    """Both lists are used up from the front."""
    def fold(begin, end):
        if not records or not begin < records[0][0] <= end:
            return hashes.pop(0)
        if end - begin == 1:
            return check_proof.leaf(records.pop(0)[1])
        middle = begin + check_proof.split(end - begin)
        return check_proof.node(fold(begin, middle), fold(middle, end))
    return fold(0, size)


def check_files(files, manifest):
    need(set(files) == {f["name"] for f in manifest["files"]} | {"manifest.json"}
         | ({"manifest.note"} if manifest["signed"] else set()), "other files than the manifest lists")
    for f in manifest["files"]:
        data = files[f["name"]]
        need(len(data) == f["size"] and hashlib.sha256(data).hexdigest() == f["sha256"], f["name"] + " has another sum")
    for line in files["SHA256SUMS"].decode().splitlines():
        digest, _, name = line.partition("  ")
        need(hashlib.sha256(files[name]).hexdigest() == digest, name + " has another sum in SHA256SUMS")


def check_records(files, manifest):
    lines = [json.loads(line) for line in files["records.jsonl"].decode().splitlines()]
    need(len(lines) == manifest["records"], "the manifest counts other records")
    kinds = {}
    for line in lines:
        kinds[line["kind"]] = kinds.get(line["kind"], 0) + 1
    need(kinds == manifest["kinds"], "the manifest counts other kinds")
    seqs = [line["seq"] for line in lines]
    need(seqs == sorted(set(seqs)) and manifest["from"] <= seqs[0] and seqs[-1] <= manifest["to"], "the range is another")
    if manifest["complete"]:
        need(seqs == list(range(manifest["from"], manifest["to"] + 1)), "a record of the range is missing")
    if manifest["redacted"]:
        return
    records = list(records_of(files["records.bin"]))
    need([seq for seq, _ in records] == seqs, "records.bin has other records than records.jsonl")
    size = manifest["checkpoint"]["size"]
    proof = files["records.proof"].decode().splitlines()
    need(proof[:2] == ["ledger/records-proof@v1", "size %d" % size], "records.proof begins otherwise")
    hashes = [base64.b64decode(line, validate=True) for line in proof[2:]]
    for hash_ in hashes:
        need(len(hash_) == 32, "a hash has another length")
    root = root_with(records, hashes, size)
    need(not records and not hashes, "the proof has too much")
    need(root.hex() == manifest["checkpoint"]["root"], "the records are not those of the checkpoint's tree")


def check(path, vkey):
    files = read(path)
    manifest = json.loads(files["manifest.json"])
    need(manifest["format"] == "ledger/bundle@v1", "another format")
    key = check_proof.Key(vkey or files["checkpoint.pub"].decode())
    need(key.name == "ledger/" + manifest["ledger"], "another log's key")
    check_files(files, manifest)
    size, root = check_proof.checkpoint(files["checkpoint"].decode(), key)
    need({"size": size, "root": root.hex()} == manifest["checkpoint"], "another checkpoint")
    if manifest["signed"]:
        expected = "ledger/bundle-manifest@v1\n%s\nsha256 %s\n" % (
            key.name, hashlib.sha256(files["manifest.json"]).hexdigest())
        need(signed_text(files["manifest.note"].decode(), key) == expected, "another manifest was signed")
    if manifest["previous"]:
        told = check_proof.check(files["consistency.proof"].decode(), key)
        need(told == "consistency %d %d" % (manifest["previous"]["size"], size), "another growth")
    check_records(files, manifest)
    return "records %d %d of %d" % (manifest["from"], manifest["to"], size)


def main(arguments):
    try:
        print("holds", check(arguments[0], arguments[1] if len(arguments) > 1 else None))
        return 0
    except (ValueError, KeyError, IndexError, StopIteration, tarfile.TarError, UnicodeDecodeError) as problem:
        print("fails", problem)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
