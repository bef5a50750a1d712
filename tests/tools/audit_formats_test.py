"""What `ledger export` writes, read by programs that know nothing of it: a JSON Schema validator, csv, a grammar.

usage: audit_formats_test.py LEDGER SOURCE_DIR
"""
import csv
import io
import json
import pathlib
import re
import subprocess
import sys
import unittest

import jsonschema

LEDGER, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
SCHEMAS = SOURCE / "tests" / "schemas"
# What strangers put into names and notes.
HOSTILE = ["=cmd|' /C calc'!A0", "+1", "-1+1", "@SUM(A1)", 'a"b,c\nd', "x|y=z\\", "\x1b[31mred", "]\" evil=\"1", "ü漢\u202e",
           "<script>alert(1)</script>", "\tTab", "\rCR", "a" * 3000]


def golden():
    files = sorted((SOURCE / "tests" / "golden" / "v3").glob("*.json"))
    return [json.loads(f.read_text()) for f in files if "kind" in f.read_text()]


def hostile():
    records = []
    for n, text in enumerate(HOSTILE):
        records.append({"seq": n + 1, "time": "2024-06-11T07:02:40Z", "kind": "password_rejected", "node": text.lower(),
                        "source": text, "claimed": [text], "note": text, "endpoint": text, "fingerprint": text,
                        "auth": {"method": "basic", "principal": text}, "server": text, "request_id": text, "status": 403})
        records.append({"seq": 100 + n, "time": "2024-06-11T07:02:40Z", "kind": "token_revoked", "token": text,
                        "class": text, "actor": text, "description": text, "note": text})
    return records


def minimal():
    kinds = [record["kind"] for record in golden()]
    return [{"seq": n + 1, "kind": kind} for n, kind in enumerate(kinds)]


def export(records, *options):
    lines = "".join(json.dumps(record) + "\n" for record in records)
    done = subprocess.run([LEDGER, "export", "--input", "-", *options], input=lines.encode(), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def lines_of(records, *options):
    return export(records, *options).decode().splitlines()


def validator(name):
    schema = json.loads((SCHEMAS / (name + ".schema.json")).read_text())
    jsonschema.Draft7Validator.check_schema(schema)
    return jsonschema.Draft7Validator(schema)


def everything():
    return golden() + hostile() + minimal()


class AuditFormats(unittest.TestCase):
    def test_no_kind_is_left_out(self):
        rows = re.findall(r"^    \{Kind::(\w+),", (SOURCE / "replay" / "meaning.cpp").read_text(), re.MULTILINE)
        self.assertEqual(sorted(record["kind"] for record in golden()), sorted(rows))
        self.assertTrue({"export_created", "archive_sealed", "checkpoint_signed"} <= set(rows))

    def schemas(self, fmt, document):
        return "ocsf_%d" % document["class_uid"] if fmt == "ocsf" else fmt

    def test_every_kind_meets_its_schema(self):
        for fmt in ("cloudevents", "ocsf", "ecs", "k8s-audit"):
            records = everything()
            documents = [json.loads(line) for line in lines_of(records, "--format", fmt)]
            self.assertEqual(len(documents), len(records))
            validators = {}
            for document in documents:
                name = self.schemas(fmt, document)
                validators.setdefault(name, validator(name))
                errors = [e.message for e in validators[name].iter_errors(document)]
                self.assertEqual(errors, [], json.dumps(document)[:2000])
            if fmt == "ocsf":
                self.assertEqual(sorted(validators), ["ocsf_1008", "ocsf_3002", "ocsf_3004", "ocsf_6003"])

    def test_the_schemas_notice_what_is_missing(self):
        for fmt in ("cloudevents", "ocsf", "ecs", "k8s-audit"):
            for line in lines_of(golden(), "--format", fmt):
                document = json.loads(line)
                schema = validator(self.schemas(fmt, document))
                for key in schema.schema["required"]:
                    broken = {k: v for k, v in document.items() if k != key}
                    self.assertFalse(schema.is_valid(broken), (fmt, key))

    def test_the_record_is_whole_inside(self):
        for record, line in zip(golden(), lines_of(golden(), "--format", "cloudevents")):
            self.assertEqual(json.loads(line)["data"], record)

    def test_jsonl_comes_back_as_it_was(self):
        self.assertEqual([json.loads(line) for line in lines_of(golden())], golden())

    def test_csv_opens_in_a_spreadsheet_and_is_no_formula(self):
        text = export(everything(), "--format", "csv").decode()
        rows = list(csv.reader(io.StringIO(text, newline=""), strict=True))
        self.assertEqual(len(rows), 1 + len(everything()))
        self.assertEqual({len(row) for row in rows}, {len(rows[0])})
        for row in rows[1:]:
            for cell in row:
                self.assertFalse(cell and cell[0] in "=+-@\t\r", cell)

    def test_syslog_is_rfc_5424(self):
        grammar = re.compile(
            r'<\d{1,3}>1 (-|\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z) [!-~]{1,255} [!-~]{1,48} [!-~]{1,128} [!-~]{1,32} '
            r'(\[[!#-<>-\\^-~]{1,32}( [!#-<>-\\^-~]{1,32}="([^"\\\]]|\\["\\\]n r])*")*\])+ [^\x00-\x1f]*')
        lines = export(everything(), "--format", "syslog").decode().split("\n")
        self.assertEqual(len(lines), len(everything()) + 1)
        for line in lines[:-1]:
            self.assertRegex(line, grammar)
            self.assertEqual(grammar.fullmatch(line).group(0), line)

    def test_cef_is_one_line_of_eight_parts(self):
        lines = export(everything(), "--format", "cef").decode().split("\n")
        self.assertEqual(len(lines), len(everything()) + 1)
        for line in lines[:-1]:
            parts = re.split(r"(?<!\\)(?:\\\\)*\|", line, maxsplit=7)
            self.assertEqual(len(parts), 8, line)
            self.assertEqual(parts[0], "CEF:0")
            self.assertIn(int(parts[6]), range(11))
            keys = re.findall(r"(?:^| )([A-Za-z0-9]+)(?=(?<!\\)=)", parts[7])
            self.assertEqual(len(keys), len(set(keys)), line)
            self.assertIn("externalId", keys)

    def test_the_same_input_gives_the_same_bytes(self):
        for fmt in ("jsonl", "csv", "cloudevents", "ocsf", "ecs", "k8s-audit", "cef", "syslog"):
            self.assertEqual(export(golden(), "--format", fmt), export(golden(), "--format", fmt))

    def test_what_an_upstream_decided_is_in_every_format(self):
        words = ["10.0.0.1:6443", "refuse_mismatch", "403", "7"]
        for fmt in ("jsonl", "csv", "cloudevents", "ocsf", "ecs", "k8s-audit", "cef", "syslog"):
            for line in export(golden(), "--format", fmt).decode().splitlines()[1 if fmt == "csv" else 0:]:
                for word in words:
                    self.assertIn(word, line, fmt)
        rows = list(csv.DictReader(io.StringIO(export(golden(), "--format", "csv").decode(), newline="")))
        for row in rows:
            self.assertEqual((row["authority"], row["upstream"], row["answered"], row["took_ms"], row["would_have"]),
                             ("upstream", "10.0.0.1:6443", "403", "7", "refuse_mismatch"))

    def test_kinds_and_ranges(self):
        kinds = {json.loads(line)["kind"] for line in lines_of(everything(), "--kind", "token_revoked,tls_failed")}
        self.assertEqual(kinds, {"token_revoked", "tls_failed"})
        seqs = [json.loads(line)["seq"] for line in lines_of(minimal(), "--from", "3", "--to", "5")]
        self.assertEqual(seqs, [3, 4, 5])
        self.assertEqual([json.loads(line)["seq"] for line in lines_of(minimal(), "--after-seq", "25")],
                         list(range(26, len(minimal()) + 1)))

    def test_zstd(self):
        plain = export(golden())
        packed = export(golden(), "--zstd")
        unpacked = subprocess.run(["zstd", "-dc"], input=packed, capture_output=True, check=True).stdout
        self.assertEqual(unpacked, plain)

    def test_redaction_is_consistent_and_complete(self):
        secrets = ["web-1", "10.0.0.5", "fd00::17", "10.0.0.1", "alice", "ticket 4711", "srv-1", "10.0.0.2"]
        base = {"time": "2024-06-11T07:02:40Z", "node": "web-1", "source": "10.0.0.5:4000", "via": "10.0.0.1:1",
                "claimed": ["fd00::17"], "note": "ticket 4711 of web-1", "server": "srv-1",
                "auth": {"method": "certificate", "principal": "system:node:web-1"}}
        records = [dict(base, seq=1, kind="password_stored", fingerprint="aa", also_bound_to="web-1"),
                   dict(base, seq=2, kind="certificate_issued", subject="CN=system:node:web-1,O=system:nodes"),
                   dict(base, seq=3, kind="binding_released", actor="alice@srv-1", by="operator"),
                   dict(base, seq=4, kind="tunnel_closed", cause="dial 10.0.0.5"),
                   dict(base, seq=5, kind="password_verified", authority="upstream", upstream="10.0.0.2:6443"),
                   dict(base, seq=6, kind="upstream_lost", upstream="10.0.0.2:6443", cause="dial 10.0.0.2"),
                   dict(base, seq=7, kind="mode_changed", upstreams="https://10.0.0.2:6443", actor="alice@srv-1")]
        for fmt in ("jsonl", "csv", "ocsf", "ecs", "k8s-audit", "cef", "syslog", "cloudevents"):
            text = export(records, "--redact", "names,addresses", "--format", fmt).decode()
            for secret in secrets:
                self.assertNotIn(secret, text, fmt)
        one, two = lines_of(records, "--redact", "names,addresses")[:2], lines_of(records, "--redact", "names,addresses")[:2]
        first, second = json.loads(one[0]), json.loads(one[1])
        self.assertEqual(first["node"], second["node"])
        self.assertEqual(first["source"], second["source"])
        self.assertEqual(first["also_bound_to"], first["node"])
        self.assertEqual(second["subject"], "CN=system:node:%s,O=system:nodes" % first["node"])
        self.assertNotEqual(first["node"], json.loads(two[0])["node"], "another export, another key")

    def test_what_cannot_be_read_is_told(self):
        done = subprocess.run([LEDGER, "export", "--input", "-"], input=b'{"seq":1,"kind":"tls_failed"}\nnot json\n',
                              capture_output=True)
        self.assertEqual(done.returncode, 1)
        self.assertIn(b"line 2", done.stderr)
        self.assertEqual(len(done.stdout.splitlines()), 1)


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
