"""`ledger export --follow` and `--send-to` with real servers, real consumers and real kills: nothing skipped, order kept,
doubles only after a loss, and registration never waits.

usage: live_export_test.py LEDGER SOURCE_DIR        LIVE_EXPORT_ROUNDS=n repeats what is random
"""
import base64
import http.client
import json
import os
import pathlib
import random
import re
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import unittest

LEDGER, SOURCE = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
import receivers  # noqa: E402

ROUNDS = int(os.environ.get("LIVE_EXPORT_ROUNDS", "1"))
SEED = int(os.environ.get("LIVE_EXPORT_SEED", "7"))
SIGN_KEY = "whsec_" + base64.b64encode(bytes(range(32))).decode()


def eventually(ready, seconds=60):
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


class Server:
    def __init__(self, directory):
        self.data, self.port, self.number = pathlib.Path(directory) / "data", 0, 0
        self.start()

    def start(self):
        self.process = subprocess.Popen([LEDGER, "serve", "--data-dir", str(self.data), "--listen", "127.0.0.1", "--https-port",
                                         str(self.port), "--min-free-bytes", "0", "--log-level", "error"],
                                        stdout=subprocess.PIPE)
        said = self.process.stdout.readline().decode()
        self.port = int(re.search(r"https://127\.0\.0\.1:(\d+)", said).group(1))
        token = (self.data / "node-token").read_text().strip()
        self.authorization = "Basic " + base64.b64encode(b"node:" + token.rsplit(":", 1)[1].encode()).decode()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        self.process.wait()
        self.process.stdout.close()

    def register(self, count):
        """`count` new names, three records each. Seconds of the slowest."""
        context = ssl._create_unverified_context()
        connection, slowest = http.client.HTTPSConnection("127.0.0.1", self.port, context=context, timeout=30), 0
        for _ in range(count):
            self.number += 1
            began = time.monotonic()
            connection.request("GET", "/v1-k3s/serving-kubelet.crt", headers={
                "Authorization": self.authorization, "K3s-Node-Name": "node-%d" % self.number,
                "K3s-Node-Password": "pw-%d" % self.number, "K3s-Node-Ip": "10.0.0.7"})
            answer = connection.getresponse()
            answer.read()
            slowest = max(slowest, time.monotonic() - began)
            assert answer.status == 200, answer.status
        connection.close()
        return slowest

    def export(self, *options):
        done = subprocess.run([LEDGER, "export", "--data-dir", str(self.data), *options], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode().splitlines()

    def seqs(self):
        return [json.loads(line)["seq"] for line in self.export()]


class Exporter:
    def __init__(self, server, *options, stdout=subprocess.DEVNULL):
        self.errors = tempfile.TemporaryFile()
        self.process = subprocess.Popen([LEDGER, "export", "--data-dir", str(server.data), *map(str, options)], stdout=stdout,
                                        stderr=self.errors)

    def said(self):
        self.errors.seek(0)
        return self.errors.read().decode()

    def stop(self, how=signal.SIGTERM):
        self.process.send_signal(how)
        return self.process.wait(timeout=20)


class LiveExport(unittest.TestCase):
    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.dir = pathlib.Path(self.directory.name)
        self.server = Server(self.dir)
        self.exporters, self.receivers = [], []

    def tearDown(self):
        for exporter in self.exporters:
            if exporter.process.poll() is None:
                exporter.stop(signal.SIGKILL)
            exporter.errors.close()
        for receiver in self.receivers:
            receiver.reading.set()
            receiver.stop()
        if self.server.process.poll() is None:
            self.server.stop()
        self.directory.cleanup()

    def exporter(self, *options, **more):
        self.exporters.append(Exporter(self.server, *options, **more))
        return self.exporters[-1]

    def receiver(self, **options):
        self.receivers.append(receivers.Receiver(**options))
        return self.receivers[-1]

    # ---- files and pipes -------------------------------------------------------------------------------------

    def test_a_file_follows_over_a_restart_and_is_what_an_export_is(self):
        out, cursor = self.dir / "out.jsonl", self.dir / "cursor"
        self.server.register(5)
        exporter = self.exporter("--follow", "--output", out, "--cursor", cursor)
        self.assertTrue(eventually(lambda: out.exists() and out.read_text().count("\n") >= 15), exporter.said())
        self.server.register(3)
        self.server.stop()
        self.server.start()
        self.server.register(3)
        self.assertTrue(eventually(lambda: out.read_text().splitlines() == self.server.export()), exporter.said())
        self.assertEqual(exporter.stop(), 0, exporter.said())
        self.assertEqual(json.loads(cursor.read_text())["seq"], self.server.seqs()[-1])

    def test_killed_again_and_again_every_record_is_in_the_file_once(self):
        out, cursor, rng = self.dir / "out.jsonl", self.dir / "cursor", random.Random(SEED)
        for compressed in (False, True):
            options = ["--follow", "--output", out, "--cursor", cursor] + (["--zstd"] if compressed else [])
            stop = threading.Event()

            def load():
                while not stop.is_set():
                    self.server.register(5)

            loading = threading.Thread(target=load)
            loading.start()
            for _ in range(6 * ROUNDS):
                exporter = self.exporter(*options)
                time.sleep(rng.uniform(0.05, 0.6))  # the moment of the kill is what is tried
                exporter.stop(signal.SIGKILL)
            stop.set()
            loading.join()
            exporter = self.exporter(*options)
            text = (lambda: subprocess.run(["zstd", "-dcq", out], capture_output=True).stdout.decode()) if compressed else out.read_text
            self.assertTrue(eventually(lambda: out.exists() and text().splitlines() == self.server.export()), exporter.said())
            self.assertEqual(exporter.stop(), 0)
            out.unlink(), cursor.unlink()

    def test_filters(self):
        out = self.dir / "out.csv"
        exporter = self.exporter("--follow", "--output", out, "--format", "csv", "--kind", "password_stored", "--node", "NODE-2")
        self.server.register(3)
        self.assertTrue(eventually(lambda: out.exists() and out.read_text().count("\n") == 2), exporter.said())
        self.server.register(1)
        self.assertEqual(exporter.stop(), 0)
        header, row = out.read_text().splitlines()
        self.assertTrue(header.startswith("seq,time") and ",password_stored," in row and ",node-2," in row, row)

    def test_a_pipe_that_nobody_reads_holds_nobody(self):
        exporter = self.exporter("--follow", stdout=subprocess.PIPE)
        self.server.register(60)  # more than a pipe holds
        self.assertLess(self.server.register(60), 5)
        self.assertEqual(exporter.stop(), 0, exporter.said())
        exporter.process.stdout.close()

    def test_a_reader_that_leaves_ends_it(self):
        exporter = self.exporter("--follow", stdout=subprocess.PIPE)
        exporter.process.stdout.readline()
        exporter.process.stdout.close()
        self.server.register(1)
        self.assertEqual(exporter.process.wait(timeout=20), 0, exporter.said())

    def test_wrong_usage_is_said(self):
        for options, wanted in [
                (["--send-to", "udp://x:1"], "udp:// is not known"),
                (["--send-to", "https://u:p@x/"], "has no place in it"),
                (["--send-to", "tcp://x:1/path"], "no path"),
                (["--send-to", "tcp://x:1", "--format", "csv"], "csv goes to files"),
                (["--send-to", "https://x/", "--sign-key", str(self.dir / "none")], "--sign-key"),
                (["--send-ca", "x"], "need --send-to"),
                (["--follow", "--redact", "names"], "--redact-key"),
                (["--follow", "--input", "x"], "excludes"),
                (["--cursor", "c", "--node", "n"], "--cursor does not go with --node")]:
            done = subprocess.run([LEDGER, "export", "--data-dir", str(self.server.data), *options], capture_output=True)
            self.assertEqual(done.returncode, 2, options)
            self.assertIn(wanted, done.stderr.decode())
        for text in ("not a key", "whsec_abc", "whsec_" + "A" * 8):
            (self.dir / "key").write_text(text)
            done = subprocess.run([LEDGER, "export", "--data-dir", str(self.server.data), "--send-to", "https://x/", "--sign-key",
                                   str(self.dir / "key")], capture_output=True)
            self.assertEqual(done.returncode, 2)
            self.assertNotIn(text, done.stderr.decode())

    # ---- syslog ----------------------------------------------------------------------------------------------

    def seq_of(self, message):
        self.assertRegex(message, r"^<\d+>1 \S+ \S+ ledger ")
        return int(re.search(r'sequenceId="(\d+)"', message).group(1))

    def check_connections(self, receiver):
        """Every connection in order and without a hole, and none between them. The last record."""
        self.assertEqual(receiver.errors, [])
        end = 0
        for messages in receiver.connections:
            seqs = [self.seq_of(message) for message in messages]
            if not seqs:
                continue
            self.assertEqual(seqs, list(range(seqs[0], seqs[0] + len(seqs))))
            self.assertLessEqual(seqs[0], end + 1, "skipped")
            end = max(end, seqs[-1])
        return end

    def test_syslog_to_a_receiver_that_is_killed_at_random(self):
        rng = random.Random(SEED)
        self.server.register(270 * ROUNDS)
        receiver = self.receiver(close_after=lambda: rng.choice([250, 333, 420]), buffer_bytes=16384)
        exporter = self.exporter("--follow", "--format", "syslog", "--send-to", "tcp://127.0.0.1:%d" % receiver.port, "--resend",
                                 "150", "--max-pause", "1", "--cursor", self.dir / "cursor")
        self.server.register(30)
        last = self.server.seqs()[-1]
        self.assertTrue(receiver.wait(lambda all: all and self.seq_of(all[-1]) == last), exporter.said())
        self.assertEqual(self.check_connections(receiver), last)
        self.assertGreater(len(receiver.connections), 3)
        self.assertIn("is lost: ", exporter.said())
        self.assertIn("is back, ", exporter.said())
        self.assertEqual(exporter.stop(), 0)

    def test_syslog_over_tls_with_a_client_certificate(self):
        cert, key = receivers.make_certificate(self.dir)
        client_cert, client_key = receivers.make_certificate(self.dir, "client")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        context.load_verify_locations(client_cert)
        context.verify_mode = ssl.CERT_REQUIRED
        receiver = self.receiver(tls=context)
        to = ["--format", "syslog", "--max-pause", "1", "--send-to"]
        url = "tls://127.0.0.1:%d" % receiver.port
        mine = ["--send-cert", client_cert, "--send-key", client_key]
        self.server.register(5)
        # Neither a CA that is not its, nor a name that it does not have, nor no certificate of ours: not one record.
        for options, wanted in [([*to, url, *mine], "x509: certificate signed by unknown authority"),
                                ([*to, "tls://localhost:%d" % receiver.port, *mine, "--send-ca", cert], "x509: certificate is"),
                                ([*to, url, "--send-ca", cert], "certificate required")]:
            exporter = self.exporter(*options)
            self.assertTrue(eventually(lambda: wanted in exporter.said()), exporter.said())
            exporter.stop()
        self.assertEqual(receiver.all(), [])
        receiver.errors.clear()
        exporter = self.exporter(*to, url, *mine, "--send-ca", cert, "--cursor", self.dir / "cursor")
        self.assertEqual(exporter.process.wait(timeout=30), 0, exporter.said())
        self.server.register(5)
        exporter = self.exporter(*to, url, *mine, "--send-ca", cert, "--cursor", self.dir / "cursor")
        self.assertEqual(exporter.process.wait(timeout=30), 0, exporter.said())
        last = self.server.seqs()[-1]
        self.assertTrue(receiver.wait(lambda all: len(all) >= last))
        self.assertEqual([self.seq_of(message) for message in receiver.all()], self.server.seqs())

    def test_a_receiver_that_never_reads_holds_nobody_and_misses_nothing(self):
        receiver = self.receiver(buffer_bytes=4096)
        receiver.reading.clear()
        self.server.register(250)
        exporter = self.exporter("--follow", "--format", "syslog", "--send-to", "tcp://127.0.0.1:%d" % receiver.port, "--cursor",
                                 self.dir / "cursor")
        self.assertTrue(eventually(lambda: receiver.connections))
        self.assertLess(self.server.register(50), 5)
        self.assertEqual(receiver.all(), [])
        receiver.reading.set()
        last = self.server.seqs()[-1]
        self.assertTrue(receiver.wait(lambda all: all and self.seq_of(all[-1]) == last), exporter.said())
        self.assertEqual([self.seq_of(message) for message in receiver.all()], self.server.seqs())
        self.assertEqual(exporter.stop(), 0)
        # Told to stop while the receiver does not read: it stops.
        receiver.reading.clear()
        self.server.register(50)
        exporter = self.exporter("--follow", "--format", "syslog", "--send-to", "tcp://127.0.0.1:%d" % receiver.port)
        self.assertTrue(eventually(lambda: len(receiver.connections) == 2))
        began = time.monotonic()
        self.assertEqual(exporter.stop(), 0)
        self.assertLess(time.monotonic() - began, 5)

    def test_lines_go_over_tcp_too_and_an_exporter_that_is_killed_goes_on(self):
        receiver, cursor = self.receiver(lines=True), self.dir / "cursor"
        options = ["--follow", "--send-to", "tcp://127.0.0.1:%d" % receiver.port, "--cursor", cursor, "--max-pause", "1"]
        self.server.register(20)
        for _ in range(3):
            exporter = self.exporter(*options)
            self.assertTrue(eventually(lambda: cursor.exists() and json.loads(cursor.read_text())["seq"] == self.server.seqs()[-1]))
            exporter.stop(signal.SIGKILL)
            self.server.register(3)
        self.exporter(*options)
        last = self.server.seqs()[-1]
        self.assertTrue(receiver.wait(lambda all: all and json.loads(all[-1])["seq"] == last))
        self.assertEqual([json.loads(line)["seq"] for line in receiver.all()], self.server.seqs())

    def test_without_follow_a_consumer_that_is_not_there_is_a_failure(self):
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            exporter = self.exporter("--format", "syslog", "--send-to", "tcp://127.0.0.1:%d" % unused.getsockname()[1],
                                     "--max-pause", "1", "--cursor", self.dir / "cursor")
            self.assertEqual(exporter.process.wait(timeout=30), 1)
        self.assertIn("connection refused", exporter.said())
        self.assertIn("did not take the records after 0", exporter.said())

    # ---- webhooks --------------------------------------------------------------------------------------------

    def hook(self, answer=lambda n, headers, body: 200, keys=(SIGN_KEY,)):
        cert, key = receivers.make_certificate(self.dir, "hook")
        hook = receivers.Hook(cert, key, keys, answer)
        self.addCleanup(hook.stop)
        (self.dir / "sign.key").write_text("".join(key + "\n" for key in keys))
        return hook, ["--send-to", "https://127.0.0.1:%d/in?x=1" % hook.port, "--send-ca", cert, "--sign-key", self.dir / "sign.key",
                      "--cursor", self.dir / "cursor", "--max-pause", "1"]

    def taken(self, hook, parse=lambda body: [json.loads(line)["seq"] for line in body.decode().splitlines()]):
        """The seqs as a receiver has them who drops doubles by webhook-id."""
        seen, seqs = {}, []
        for id, status, body in hook.posts:
            if id in seen:
                self.assertEqual(seen[id], body, "the same id with another body")
            elif status == 200:
                seqs += parse(body)
            if status == 200:
                seen[id] = body
        return seqs

    def test_a_webhook_that_fails_in_every_way_gets_everything_once(self):
        answers = {0: 500, 1: None, 2: 429, 3: (503, {"Retry-After": "1"}), 5: 401, 6: 400, 7: 307, 9: 502}
        hook, options = self.hook(lambda n, headers, body: answers.get(n, 200), keys=(SIGN_KEY, SIGN_KEY[:-8] + "AAAAAAA="))
        self.server.register(5)
        exporter = self.exporter("--follow", *options)
        self.assertTrue(hook.wait(lambda posts: len(posts) >= 5), exporter.said())
        self.server.register(2)
        self.assertTrue(hook.wait(lambda posts: len(posts) >= 9), exporter.said())
        self.server.register(2)
        self.assertTrue(eventually(lambda: len(hook.posts) > 10 and self.taken(hook) == self.server.seqs()), exporter.said())
        self.assertEqual(hook.errors, [])
        self.assertEqual(len({post[0] for post in hook.posts[:5]}), 1, "one id over all attempts")
        said = exporter.said()
        for words in ("it answered 500", "it answered 401", "trying again does not mend", "nothing is skipped", "is back"):
            self.assertIn(words, said)
        self.assertNotIn("/in", said)
        self.assertNotIn(SIGN_KEY[6:], said)
        self.assertEqual(exporter.stop(), 0)

    def test_too_large_is_halved(self):
        hook, options = self.hook(lambda n, headers, body: 413 if len(body) > 3000 else 200)
        self.server.register(30)
        exporter = self.exporter(*options)
        self.assertEqual(exporter.process.wait(timeout=60), 0, exporter.said())
        self.assertEqual(self.taken(hook), self.server.seqs())

    def test_bodies_by_format(self):
        self.server.register(2)
        for fmt, parse in [
                ("cloudevents", lambda body: [event["data"]["seq"] for event in json.loads(body)]),
                ("k8s-audit", lambda body: [int(event["annotations"]["ledger.dev/sequence"]) for event in json.loads(body)["items"]]),
                ("ocsf", lambda body: [json.loads(line)["unmapped"]["record"]["seq"] for line in body.decode().splitlines()]),
                ("syslog", lambda body: [self.seq_of(line) for line in body.decode().splitlines()])]:
            hook, options = self.hook()
            exporter = self.exporter("--format", fmt, *options)
            self.assertEqual(exporter.process.wait(timeout=30), 0, exporter.said())
            self.assertEqual(self.taken(hook, parse), self.server.seqs(), fmt)
            (self.dir / "cursor").unlink()

    def test_killed_between_the_answer_and_the_cursor_the_same_ids_come_again(self):
        rng, exporters = random.Random(SEED), []

        def answer(n, headers, body):
            if rng.random() < 0.5 and len(exporters) <= 8 * ROUNDS:
                exporters[-1].process.send_signal(signal.SIGKILL)  # it has been delivered, and the exporter will not know
            return 200

        hook, options = self.hook(answer)
        for _ in range(8 * ROUNDS):
            self.server.register(rng.randrange(1, 8))
            exporters.append(self.exporter("--follow", *options))
            before = len(hook.posts)
            self.assertTrue(hook.wait(lambda posts: len(posts) > before), exporters[-1].said())
            exporters[-1].stop(signal.SIGKILL)
            self.server.register(rng.randrange(1, 8))
        exporters += [self.exporter("--follow", *options)] * (8 * ROUNDS)
        self.assertTrue(eventually(lambda: self.taken(hook) == self.server.seqs()), exporters[-1].said())
        self.assertGreater(len(hook.posts), len({post[0] for post in hook.posts}), "some came twice")
        self.assertEqual(hook.errors, [])

    # ---- the stream over HTTP, as curl has it ----------------------------------------------------------------

    def test_curl_reads_events(self):
        bearer = (self.server.data / "cred" / "operator-token").read_text().strip()
        config = self.dir / "curl.conf"
        config.write_text('header = "Authorization: Bearer %s"\n' % bearer)
        curl = subprocess.Popen(["curl", "-sSkN", "-K", str(config), "https://127.0.0.1:%d/ledger/v1/events?after=0" % self.server.port],
                                stdout=subprocess.PIPE)
        self.server.register(3)
        seqs, wanted = [], self.server.seqs()
        while len(seqs) < len(wanted):
            line = curl.stdout.readline().decode()
            if line.startswith("data: "):
                seqs.append(json.loads(line[6:])["seq"])
        self.assertEqual(seqs, wanted)
        self.server.stop()
        self.assertEqual(curl.wait(timeout=20), 0, "the stream ends in order with the server")
        curl.stdout.close()


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[3:], verbosity=2)
