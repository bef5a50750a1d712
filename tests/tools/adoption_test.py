"""The way in front of a live server, and back: `ledger adopt --check --upstream`, `ledger mode`, `ledger state export --format way-back`,
against a k3s-like server as a process of its own.

usage: adoption_test.py LEDGER K3S_LIKE SOURCE_DIR
"""
import hashlib
import json
import os
import pathlib
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

LEDGER, K3S_LIKE, SOURCE = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from k3s_like import Front, K3sLike, join  # noqa: E402


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def run(*arguments):
    done = subprocess.run([LEDGER, *map(str, arguments)], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def contents(directory):
    """Names, modes, links and bytes of everything: what "writes nothing" leaves the same."""
    out = {}
    for path in sorted(pathlib.Path(directory).rglob("*")):
        info = path.lstat()
        digest = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() and not path.is_symlink() else ""
        out[str(path)] = (oct(info.st_mode), info.st_mtime_ns, info.st_size if digest else 0, digest)
    return out


class Case(unittest.TestCase):
    generation = "G7"

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.dir = pathlib.Path(self.directory.name)
        self.port = free_port()
        self.started = []
        self.server = self.k3s("k3s", advertise="127.0.0.1:%d" % self.port)

    def tearDown(self):
        for one in reversed(self.started):
            one.stop()
        self.directory.cleanup()

    def k3s(self, name, **options):
        (self.dir / name).mkdir()
        server = K3sLike(K3S_LIKE, self.dir / name, self.generation, **options)
        self.started.append(server)
        return server

    def copy(self):
        """The server's directory, to be spoiled."""
        copy = self.dir / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.server.dir, copy, symlinks=True)
        return copy

    def url(self, server=None):
        return "https://127.0.0.1:%d" % (server or self.server).port

    def check(self, directory=None, upstream=None, agents_use=True, more=()):
        """(exit status, {step: (result, detail)}, the document)"""
        where = ["--agents-use", "127.0.0.1:%d" % self.port] if agents_use else []
        source = ["--k3s-server-dir", directory] if directory != "" else []
        status, out, error = run("adopt", "--check", *(source if directory is not None else ["--k3s-server-dir", self.server.dir]),
                                 "--data-dir", self.dir / "data", "--upstream", upstream or self.url(), "--https-port", free_port(),
                                 "--format", "json", *where, *more)
        self.assertTrue(out, error)
        document = json.loads(out)
        return status, {one["step"]: (one["result"], one["detail"]) for one in document["checks"]}, document

    def expect(self, steps, step, result, words):
        self.assertEqual(steps[step][0], result, (step, steps[step]))
        self.assertIn(words, steps[step][1])


class Check(Case):
    def test_a_server_that_fits(self):
        before = contents(self.server.dir)
        status, steps, document = self.check()
        after = contents(self.server.dir)
        self.assertEqual({name: result for name, (result, _) in steps.items()}, {
            "permissions": "ok", "signing": "ok", "passwords": "ok", "port": "ok", "connection": "ok", "certificate": "ok", "ca": "ok",
            "clock": "ok", "token": "ok", "client-ca": "ok", "node-certificate": "ok", "front-proxy": "ok", "version": "ok",
            "addresses": "ok", "names": "ok"} | {"passwords": steps["passwords"][0]}, steps)
        self.assertIn(steps["passwords"][0], ("ok", "warn"))
        self.assertEqual(status, 0, document)
        self.assertEqual(before, after)
        self.assertFalse((self.dir / "data").exists())
        # Nobody was bound or certified there; the token and the two users that do not exist are all it saw.
        asked = self.server.events()
        self.assertTrue(asked)
        self.assertEqual({one["method"] for one in asked}, {"GET"})
        self.assertFalse([one for one in asked if "kubelet" in one["target"] or "connect" in one["target"]])

    def test_text_teaches_and_fits_into_a_terminal(self):
        status, out, error = run("adopt", "--check", "--k3s-server-dir", self.server.dir, "--data-dir", self.dir / "data", "--upstream",
                                 self.url(), "--agents-use", "10.9.9.9:6443")
        self.assertEqual(status, 1, out + error)
        self.assertIn("agents' addresses", out)
        self.assertIn("advertise-address", out)
        self.assertIn("1 step(s) fail", out)
        commands = [line for line in out.splitlines() if line.startswith("      ")]
        long = [line for line in out.splitlines() if len(line) > 100 and line not in commands]
        self.assertFalse(long, long)
        secret = self.server.token.read_text().strip().rsplit(":", 1)[1]
        self.assertNotIn(secret, out + error)

    def test_where_agents_are_sent(self):
        status, steps, _ = self.check(agents_use=False)
        self.assertEqual(status, 0)
        self.expect(steps, "addresses", "warn", "127.0.0.1:%d" % self.port)
        own = self.k3s("own")
        status, steps, _ = self.check(directory=own.dir, upstream=self.url(own), agents_use=False)
        self.expect(steps, "addresses", "warn", "this server's own")
        status, steps, _ = self.check(directory=own.dir, upstream=self.url(own))
        self.assertEqual(status, 1)
        self.expect(steps, "addresses", "fail", "not the ledger's: 127.0.0.1:%d" % own.port)

    def test_another_clusters_directory(self):
        other = self.k3s("other")
        status, steps, _ = self.check(directory=other.dir)
        self.assertEqual(status, 1)
        self.expect(steps, "certificate", "fail", "another cluster")
        self.assertEqual(steps["token"][0], "skip")  # it is not shown to a stranger
        self.assertFalse([one for one in self.server.events() if one["how"] == "basic"])

    def test_pieces_that_do_not_belong_together(self):
        other = self.k3s("other")
        copy = self.copy()
        for name in ("client-ca.crt", "client-ca.key"):
            shutil.copy(other.dir / "tls" / name, copy / "tls" / name)
        status, steps, _ = self.check(directory=copy)
        self.assertEqual(status, 1)
        self.expect(steps, "client-ca", "fail", "another client CA")
        self.expect(steps, "node-certificate", "fail", "not accepted")
        copy = self.copy()
        for name in ("request-header-ca.crt", "request-header-ca.key"):
            shutil.copy(other.dir / "tls" / name, copy / "tls" / name)
        status, steps, _ = self.check(directory=copy)
        self.assertEqual(status, 1)
        self.expect(steps, "front-proxy", "fail", "does not believe X-Remote-User")
        self.expect(steps, "node-certificate", "ok", "")
        copy = self.copy()
        passwd = copy / "cred/passwd"
        old = self.server.token.read_text().strip().rsplit(":", 1)[1]
        passwd.write_text(passwd.read_text().replace(old, "another-password"))
        status, steps, document = self.check(directory=copy)
        self.assertEqual(status, 1)
        self.expect(steps, "token", "fail", "refuses the password of user `node`")
        self.assertNotIn("another-password", json.dumps(document))

    def test_what_is_missing_or_open_here(self):
        copy = self.copy()
        (copy / "tls/request-header-ca.key").unlink()
        status, steps, _ = self.check(directory=copy)
        self.assertEqual(status, 1)
        self.expect(steps, "signing", "fail", "request-header-ca")
        copy = self.copy()
        os.chmod(copy / "tls/client-ca.key", 0o644)
        before = contents(copy)
        status, steps, _ = self.check(directory=copy)
        self.assertEqual(status, 1)
        self.expect(steps, "permissions", "fail", "client-ca.key")
        self.assertEqual(contents(copy), before)  # not even the mode
        self.assertEqual(steps["token"][0], "skip")

    def test_servers_that_do_not_answer_well(self):
        status, steps, _ = self.check(upstream="https://127.0.0.1:%d" % free_port())
        self.assertEqual(status, 1)
        self.expect(steps, "connection", "fail", "refused")
        status, steps, _ = self.check(upstream="http://127.0.0.1:1")
        self.expect(steps, "connection", "fail", "no address of a server")
        self.server.control(only="/api", status=503)
        status, steps, _ = self.check()
        self.assertEqual(status, 0)
        self.expect(steps, "front-proxy", "warn", "cannot be told")
        self.server.control(only="/v1-k3s/config", status=500)
        status, steps, _ = self.check()
        self.assertEqual(status, 1)
        self.expect(steps, "token", "fail", "500")
        self.server.control(only="/cacerts", garbage=True)
        status, steps, _ = self.check()
        self.assertEqual(status, 1)
        self.expect(steps, "ca", "fail", "not answered")
        self.server.control()

    def test_without_a_directory_or_an_upstream_it_is_wrong_usage(self):
        self.assertEqual(run("adopt", "--check")[0], 2)
        self.assertEqual(run("adopt", "--k3s-server-dir", self.server.dir, "--upstream", self.url())[0], 2)  # without --check


class InAndBack(Case):
    def setUp(self):
        super().setUp()
        self.front = None

    def start(self, mode="observe"):
        self.front = Front.__new__(Front)
        adopted = run("adopt", "--k3s-server-dir", self.server.dir, "--data-dir", self.dir / "data")
        self.assertEqual(adopted[0], 0, adopted)
        self.front.binary, self.front.data, self.front.port, self.front.upstream = LEDGER, self.dir / "data", self.port, self.server
        self.front.errors = self.dir / "ledger.err"
        self.front.options = ["--upstream", self.url()]
        self.front.start(mode)
        self.started.append(self.front)

    def agent(self, name, fresh=False):
        state = self.dir / "agents" / name
        if fresh:
            shutil.rmtree(state)
        return join(LEDGER, self.front.port, self.server.token, name, state, "G5")

    def joins(self, name, fresh=False):
        status, said = self.agent(name, fresh)
        self.assertEqual(status, 0, said)

    def refused(self, name, fresh=False):
        status, said = self.agent(name, fresh)
        self.assertEqual(status, 1, said)
        self.assertIn("403", said)

    def ledger(self, *arguments, expected=0):
        status, out, error = run(*arguments, "--data-dir", self.front.data)
        self.assertEqual(status, expected, out + error)
        return out + error

    def mode(self, *arguments, expected=0):
        said = self.ledger("mode", *arguments, "--format", "json", expected=expected)
        self.assertTrue(said.startswith("{"), said)
        return json.loads(said)

    def way_back(self, expected):
        out = json.loads(self.ledger("state", "export", "--format", "way-back-json", expected=expected))
        return out, {one["node"]: one["verdict"] for one in out["nodes"]}

    def test_the_whole_way(self):
        self.start()
        self.joins("web-1")
        self.joins("web-2")
        status, steps, _ = self.check(directory="")
        self.assertEqual(status, 0, steps)
        self.expect(steps, "passwords", "warn", "2 names are bound in the ledger")
        status, steps, _ = self.check()
        self.expect(steps, "passwords", "ok", "all 2 names")
        shown = self.mode()
        self.assertEqual(shown["mode"], "observe")
        self.assertTrue(shown["upstreams"][0]["answers"])
        self.assertEqual(self.way_back(0), ({"mode": "observe", "decided": [], "known": 2, "nodes": []}, {}))

        review = self.mode("enforce", "--check")["review"]
        self.assertEqual((review["bound"], review["disagreements"]["entries"], review["strangers"]), (2, [], []))
        self.assertGreater(review["disagreements"]["requests"], 0)
        self.assertEqual(self.mode()["mode"], "observe")
        changed = self.mode("enforce", "--reason", "it agrees")
        self.assertEqual((changed["from"], changed["mode"]), ("observe", "enforce"))
        self.assertIn("nothing to do", self.ledger("mode", "enforce"))

        self.joins("web-3")
        self.joins("web-1")
        self.refused("web-1", fresh=True)
        found = [one for one in self.front.records("--kind", "password_rejected") if one["node"] == "web-1"]
        self.ledger("node", "accept", "web-1", "--fingerprint", found[-1]["fingerprint"], "--reason", "VM rebuilt")
        self.joins("web-1")
        self.ledger("node", "release", "web-2", "--reason", "gone", "--force")
        way, verdicts = self.way_back(1)
        self.assertEqual(verdicts, {"web-1": "conflict", "web-2": "released", "web-3": "first_use"})
        self.assertEqual(way["mode"], "enforce")
        command = {one["node"]: one.get("command") for one in way["nodes"]}
        self.assertEqual(command["web-1"], "kubectl -n kube-system delete secret web-1.node-password.k3s")
        text = self.ledger("state", "export", "--format", "way-back", expected=1)
        self.assertIn("It still does", text)
        self.assertIn(command["web-2"], text)

        self.assertIn("enforce -> observe", self.ledger("mode", "observe", "--reason", "back"))
        self.joins("web-3")
        # What was foretold: k3s refuses web-1, and admits it once its old password is gone.
        self.refused("web-1")
        passwords = self.server.dir / "cred/node-passwd"
        lines = passwords.read_text().splitlines(keepends=True)
        passwords.write_text("".join(line for line in lines if ",web-1," not in line and ",web-2," not in line))
        self.joins("web-1")
        self.joins("web-2", fresh=True)
        way, verdicts = self.way_back(0)
        self.assertEqual(verdicts, {})
        self.assertEqual((way["known"], len(way["decided"])), (3, 1))
        kinds = [one["mode"] for one in self.front.records("--kind", "mode_changed")]
        self.assertEqual(kinds, ["observe", "enforce", "observe"])

    def test_enforce_is_not_begun_while_it_would_refuse_whom_k3s_admits(self):
        self.start()
        self.joins("web-1")
        self.ledger("token", "rotate", "agent", "--reason", "a mistake: k3s knows nothing of it")
        self.joins("web-1")
        review = self.mode("enforce", expected=1)["review"]
        self.assertEqual({(one["upstream_did"], one["would_have"]) for one in review["disagreements"]["entries"]},
                         {("admitted", "refuse_token")})
        self.assertIn("--force", self.ledger("mode", "enforce", expected=1))
        self.assertEqual(self.mode()["mode"], "observe")
        self.assertEqual(self.mode("enforce", "--force")["mode"], "enforce")
        status, said = self.agent("web-1")
        self.assertEqual(status, 1, said)

    def test_without_a_server_the_log_says_the_mode(self):
        self.start("enforce")
        self.started.remove(self.front)
        self.assertEqual(self.front.stop(), 0)
        shown = self.mode()
        self.assertEqual((shown["mode"], shown["running"]), ("enforce", False))
        self.assertIn("ledger serve", self.ledger("mode", "observe", expected=1))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1] + sys.argv[4:])
