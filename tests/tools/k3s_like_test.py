"""The k3s-like server itself: `ledger adopt` takes its directory, agents of every generation join it, come again and are refused as
k3s does, and it tells callers apart as a kube-apiserver does.

usage: k3s_like_test.py LEDGER K3S_LIKE SOURCE_DIR
"""
import hashlib
import json
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile
import unittest

LEDGER, K3S_LIKE, SOURCE = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3])
sys.path.insert(0, str(SOURCE / "tests" / "support"))
from k3s_like import K3sLike, Link, basic, eventually, join  # noqa: E402

GENERATIONS = ["G1", "G2", "G3", "G4", "G5", "G6", "G7"]


class Case(unittest.TestCase):
    generation = "G7"

    def setUp(self):
        self.directory = tempfile.TemporaryDirectory()
        self.dir = pathlib.Path(self.directory.name)
        self.server = K3sLike(K3S_LIKE, self.dir, self.generation, init=["--san", "example.org"])

    def tearDown(self):
        self.server.stop()
        self.directory.cleanup()

    def join(self, name, generation, **more):
        return join(LEDGER, self.server.port, self.server.token, name, self.dir / "agents" / name, generation, **more)

    def ask(self, method, path, headers="", body=b"", certificate=None):
        with Link(self.server.port, self.server.client(certificate)) as link:
            link.send(("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n" % (method, path, headers)).encode("latin1") + body)
            return link.answer(method)

    def whoami(self, headers="", certificate=None):
        status, _, body = self.ask("GET", "/whoami", headers, certificate=certificate)
        return json.loads(body) if status == 200 else status


class Registration(Case):
    def test_agents_of_every_generation_join_and_come_again_and_rebuilt_ones_are_refused(self):
        for generation in GENERATIONS:
            name = "web-" + generation.lower()
            status, said = self.join(name, generation, tunnel=0.2)
            self.assertEqual(status, 0, said)
            status, said = self.join(name, generation)
            self.assertEqual(status, 0, said)
            shutil.rmtree(self.dir / "agents" / name)
            status, said = self.join(name, generation)
            self.assertEqual(status, 1, said)
            self.assertIn("403", said)
        self.assertEqual(len((self.server.dir / "cred/node-passwd").read_text().splitlines()), len(GENERATIONS))
        self.assertTrue(eventually(lambda: len(self.server.events("tunnel_closed")) == len(GENERATIONS)))
        self.assertEqual(len(self.server.events("tunnel_opened")), len(GENERATIONS))

    def test_its_directory_can_be_adopted(self):
        done = subprocess.run([LEDGER, "adopt", "--check", "--k3s-server-dir", str(self.server.dir), "--data-dir", str(self.dir / "data"),
                               "--format", "json"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("example.org", done.stdout)

    def test_killed_it_starts_again_on_its_port_and_knows_its_nodes(self):
        self.assertEqual(self.join("web-1", "G7")[0], 0)
        port = self.server.port
        self.server.stop(signal.SIGKILL)
        self.server.start()
        self.assertEqual(self.server.port, port)
        self.assertEqual(self.join("web-1", "G7")[0], 0)
        shutil.rmtree(self.dir / "agents")
        self.assertEqual(self.join("web-1", "G7")[0], 1)

    def test_refusals_are_those_of_its_generation(self):
        node = "Authorization: %s\r\n" % self.server.authorization
        wrong = "Authorization: %s\r\n" % basic("node", "wrong")
        name, password = "K3s-Node-Name: Web-1\r\n", "K3s-Node-Password: %s\r\n"
        path = "/v1-k3s/serving-kubelet.crt"
        asked = [("GET", path, ""), ("GET", path, wrong), ("GET", path, node), ("GET", path, node + name),
                 ("GET", path, node + name + password % "a"), ("GET", path, node + name + password % "b")]
        for generation, statuses, last in [
                ("G3", [401, 500, 500, 500, 200, 403], "unable to verify hash for node 'web-1': hash does not match"),
                ("G5", [403, 401, 400, 400, 200, 403], "unable to verify hash for node 'web-1': hash does not match"),
                ("G7", [403, 401, 400, 400, 200, 403], "unable to verify password for node web-1: hash does not match")]:
            self.server.stop()
            self.server.generation = generation
            self.server.start()
            answers = [self.ask(*one) for one in asked]
            self.assertEqual([answer[0] for answer in answers], statuses, generation)
            self.assertIn(last, answers[-1][2].decode())


class Kube(Case):
    def test_callers_are_told_apart(self):
        admin, proxy = self.server.tls("client-admin"), self.server.tls("client-auth-proxy")
        self.assertEqual(self.whoami()["user"], "system:anonymous")
        self.assertEqual(self.whoami("Authorization: %s\r\n" % self.server.authorization)["how"], "basic")
        self.assertEqual(self.whoami("Authorization: %s\r\n" % basic("node", "wrong")), 401)
        self.assertEqual(self.whoami(certificate=admin)["groups"], ["system:masters", "system:authenticated"])
        remote = "X-Remote-User: alice\r\nX-Remote-Group: a\r\nx-remote-group: b\r\nX-Remote-Extra-Scopes: s\r\n"
        told = self.whoami(remote, proxy)
        self.assertEqual((told["user"], told["groups"], told["how"]), ("alice", ["a", "b", "system:authenticated"], "front_proxy"))
        self.assertEqual(self.whoami(certificate=proxy), 401, "no anonymous caller")
        self.assertEqual(self.whoami(remote)["user"], "system:anonymous")
        self.assertEqual(self.whoami(remote, admin)["user"], "system:admin")
        for ca, cn, more in [("request-header-ca", "someone-else", {}), ("client-ca", "system:auth-proxy", {}),
                             ("request-header-ca", "system:auth-proxy", {"from": -7200, "for": 3600}), ("stranger", "system:auth-proxy", {})]:
            told = self.whoami(remote, self.server.issue("made", cn, ca=ca, **more))
            self.assertNotEqual(told if isinstance(told, int) else told["user"], "alice", (ca, cn, more))
        self.assertEqual(self.whoami(certificate=self.server.issue("stranger", "system:admin", ["system:masters"], "stranger")), 401)
        (self.server.dir / "cred/bearer").write_text('tok-1,robot,robot,"robots,more"\n')
        self.server.stop()
        self.server.start()
        self.assertEqual(self.whoami("Authorization: Bearer tok-1\r\n")["groups"], ["robots", "more", "system:authenticated"])
        self.assertEqual(self.whoami("Authorization: Bearer tok-2\r\n"), 401)

    def test_shapes_of_traffic(self):
        admin = self.server.tls("client-admin")
        body = bytes(range(256)) * 400
        digest = hashlib.sha256(body).hexdigest()
        told = json.loads(self.ask("POST", "/sink", "Content-Length: %d\r\n" % len(body), body, admin)[2])
        self.assertEqual((told["bytes"], told["sha256"], told["framing"]), (len(body), digest, "length"))
        chunked = b"".join(b"%x\r\n%s\r\n" % (len(body[i:i + 999]), body[i:i + 999]) for i in range(0, len(body), 999)) + b"0\r\nX-T: 1\r\n\r\n"
        told = json.loads(self.ask("PUT", "/sink", "Transfer-Encoding: chunked\r\n", chunked, admin)[2])
        self.assertEqual((told["sha256"], told["framing"], told["trailers"]), (digest, "chunked", [["X-T", "1"]]))
        pattern = bytes(i % 251 for i in range(100000))
        self.assertEqual(self.ask("GET", "/source?bytes=100000", certificate=admin)[2], pattern)
        self.assertIn(pattern[:60000], self.ask("GET", "/source?bytes=100000&chunked=1", certificate=admin)[2])
        self.assertEqual(self.ask("HEAD", "/source?bytes=5", certificate=admin)[2], b"")
        watched = self.ask("GET", "/api/v1/nodes?watch=1&timeoutSeconds=1&interval_ms=100", certificate=admin)[2]
        self.assertGreater(watched.count(b"BOOKMARK"), 4)
        self.assertEqual(self.ask("GET", "/empty", certificate=admin)[0], 204)
        self.assertEqual(self.ask("GET", "/api/v1/nodes")[0], 403)
        for framing, status in [("Content-Length: 1\r\nContent-Length: 2\r\n", 400), ("Transfer-Encoding: xchunked\r\n", 501),
                                ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 501), ("Content-Length: +1\r\n", 400),
                                ("X-Bad : 1\r\n", 400), ("X-Nul: a\0b\r\n", 400), ("Host: again\r\n", 400)]:
            self.assertEqual(self.ask("POST", "/sink", framing, certificate=admin)[0], status, framing)

    def test_exec_carries_bytes_both_ways_until_each_side_has_ended(self):
        with Link(self.server.port, self.server.client(self.server.tls("client-admin"))) as link:
            link.send("POST /api/v1/namespaces/x/pods/y/exec HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\n\r\n")
            self.assertEqual(link.answer()[0], 101)
            link.send(b"\x00raw\xff")
            self.assertEqual(link.exactly(5), b"\x00raw\xff")
            link.end_writing()
            self.assertEqual(link.all(), b"bye")
        self.assertTrue(eventually(lambda: self.server.events("exec_closed")))
        self.assertEqual(self.server.events("exec_closed")[0]["bytes"], 5)

    def test_control_spoils_it(self):
        self.server.control(status=500, only="/ping")
        self.assertEqual(self.ask("GET", "/ping")[0], 500)
        self.assertEqual(self.ask("GET", "/cacerts")[0], 200)
        self.server.control(drop=True)
        self.assertRaises(ConnectionError, self.ask, "GET", "/ping")
        self.server.control()
        self.assertEqual(self.ask("GET", "/ping")[2], b"pong")


if __name__ == "__main__":
    unittest.main(argv=[sys.argv[0]] + sys.argv[4:], verbosity=2)
