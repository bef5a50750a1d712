#!/usr/bin/env python3
"""The ledger in front of a real upstream (tools/k3s_like), measured: is an answer what the upstream gave, is every outcome
recorded, what does it cost, and what do spoofers, smugglers, big bodies, long watches and an upstream that dies get out of it.

    tests/upstream/upstream.py LEDGER K3S_LIKE                 every part, small (ctest runs this)
    tests/upstream/upstream.py LEDGER K3S_LIKE --full          as large as the figures need: about half an hour
    tests/upstream/upstream.py LEDGER K3S_LIKE --only spoof    one of them

Exit status 1 when anything was not as promised; all parts are run before it says so. Standard library and openssl(1) only.
"""
import argparse, base64, concurrent.futures, hashlib, http.client, json, os, pathlib, random, re, shutil, signal, ssl, subprocess, sys
import tempfile, threading, time, traceback

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "support"))
from k3s_like import Front, K3sLike, Link, basic, eventually, join  # noqa: E402

GENERATIONS = ["G1", "G2", "G3", "G4", "G5", "G6", "G7"]


class Failed(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Failed(what)


class World:
    """An upstream, and the ledger in front of it."""

    def __init__(self, args, mode, generation="G7", **upstream):
        self.args, self.directory = args, tempfile.mkdtemp(prefix="ledger-upstream-")
        self.dir = pathlib.Path(self.directory)
        self.k3s = K3sLike(args.k3s_like, self.dir, generation, **upstream)
        self.front = Front(args.ledger, self.dir, self.k3s, mode)
        try:
            # Agents are told to come to where the ledger is: else they leave it after `apiservers`.
            self.k3s.stop()
            self.k3s.options["advertise"] = "127.0.0.1:%d" % self.front.port
            self.k3s.start()
            need(eventually(lambda: self.ask(self.front, "GET", "/version")[0] == 200), "the ledger does not find its upstream")
        except BaseException:
            self.__exit__(True)
            raise
        self.admin = self.k3s.tls("client-admin")

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind:
            print("    ended: the ledger %s, the upstream %s" % (self.front.process.poll(), self.k3s.process.poll()), flush=True)
            print("    the ledger said: " + self.front.errors.read_text(errors="replace")[-1500:].strip(), flush=True)
        for process in (self.front, self.k3s):
            try:
                process.stop()
            except Exception:
                process.process.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def link(self, side, certificate=None, **more):
        return Link(side.port, self.k3s.client(certificate), **more)

    def ask(self, side, method, target, headers=(), body=b"", certificate=None, **more):
        with self.link(side, certificate, **more) as link:
            link.send(message(method, target, headers, body))
            return link.answer(method)

    def whoami(self, side, headers=(), certificate=None):
        status, _, body = self.ask(side, "GET", "/whoami", headers, certificate=certificate)
        return json.loads(body) if status == 200 else status

    def node_headers(self, name, password, address="10.0.0.7"):
        return [("Authorization", self.k3s.authorization), ("K3s-Node-Name", name), ("K3s-Node-Password", password), ("K3s-Node-Ip", address)]

    def set_mode(self, mode):
        """Enforcing takes the cluster's config document, which is asked for every two seconds until it is had."""
        said = []
        eventually(lambda: said.append(self.try_mode(mode)) or said[-1], 10)
        need(said[-1], "the cluster's config document was never learned")
        return said[-1]

    def try_mode(self, mode):
        link = http.client.HTTPSConnection("127.0.0.1", self.front.port, context=self.k3s.client(), timeout=30)
        link.request("POST", "/ledger/v1/mode", json.dumps({"mode": mode, "actor": "test", "reason": "tried"}),
                     {"Authorization": self.front.operator})
        answer = link.getresponse()
        said = answer.read().decode()
        link.close()
        need(answer.status in (200, 409), "the mode could not be changed: %d %s" % (answer.status, said))
        return json.loads(said) if answer.status == 200 else None


def message(method, target, headers=(), body=b"", version="1.1"):
    lines = ["%s %s HTTP/%s" % (method, target, version), "Host: 127.0.0.1:6443"] + ["%s: %s" % pair for pair in headers]
    if body and not any(name.lower() in ("content-length", "transfer-encoding") for name, _ in headers):
        lines.append("Content-Length: %d" % len(body))
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin1") + body


def percentile(values, part):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * part))] if values else 0.0


# ---- observe: the same answers ---------------------------------------------------------------------------------------

class Kept:
    """A connection that is used again as long as the other side keeps it."""

    def __init__(self, world, side, certificate):
        self.world, self.side, self.certificate, self.link = world, side, certificate, None

    def ask(self, bytes_, method):
        if self.link is None:
            self.link = self.world.link(self.side, self.certificate)
        began = time.perf_counter()
        self.link.send(bytes_)
        answer = self.link.answer(method)
        while 100 < answer[0] < 200:
            early = answer
            answer = self.link.answer(method)
            answer = (answer[0], early[1] + answer[1], answer[2])
        took = time.perf_counter() - began
        if b"HTTP/1.0" in bytes_ or re.search(rb"\r\nconnection: *close", (bytes_.split(b"\r\n\r\n")[0] + answer[1]).lower()):
            need(not self.link.more(), "the connection stayed open after Connection: close")
            self.close()
        return answer, took

    def close(self):
        if self.link:
            self.link.close()
            self.link = None


def kinds_of_requests(world, csr):
    """(what, method, target, headers, body, certificate, whether our log has an outcome for it), for the i-th name."""
    good, wrong, server = world.k3s.authorization, basic("node", "wrong"), basic("server", world.k3s.token.read_text().strip().rsplit(":", 1)[1])
    node_certificate = world.k3s.issue("a-node", "system:node:seen-0", ["system:nodes"])
    a = ("Authorization", good)
    supervisor = "/v1-k3s/"

    def kinds(i):
        name, password = "seen-%d" % i, "password-%d" % i
        node = world.node_headers(name, password)
        yield "first join", "GET", supervisor + "serving-kubelet.crt", node, b"", None, True
        yield "client-kubelet", "GET", supervisor + "client-kubelet.crt", node, b"", None, True
        yield "serving CSR", "POST", supervisor + "serving-kubelet.crt", node, csr, None, True
        yield "client CSR", "POST", supervisor + "client-kubelet.crt", node, csr, None, True
        yield "mismatch", "POST", supervisor + "client-kubelet.crt", world.node_headers(name, "another"), csr, None, True
        yield "upper case", "GET", supervisor + "serving-kubelet.crt", world.node_headers(name.upper(), password), b"", None, True
        yield "no name", "GET", supervisor + "serving-kubelet.crt", [a], b"", None, True
        yield "no password", "GET", supervisor + "serving-kubelet.crt", node[:2], b"", None, True
        yield "wrong token", "GET", supervisor + "serving-kubelet.crt", [("Authorization", wrong)] + node[1:], b"", None, True
        yield "no token", "GET", supervisor + "serving-kubelet.crt", node[1:], b"", None, True
        yield "bad CSR", "POST", supervisor + "client-kubelet.crt", node, b"no CSR", None, True
        yield "with certificate", "POST", supervisor + "client-kubelet.crt", world.node_headers("seen-0", "password-0"), csr, node_certificate, True
        yield "certificate alone", "POST", supervisor + "client-kubelet.crt", world.node_headers("seen-0", "password-0")[1:], csr, node_certificate, True
        yield "another's certificate", "POST", supervisor + "client-kubelet.crt", node[1:], csr, node_certificate, True
        for stem in ("client-kube-proxy", "client-k3s-controller"):
            yield stem, "GET", supervisor + stem + ".crt", [a], b"", None, True
            yield stem + " CSR", "POST", supervisor + stem + ".crt", [a], csr, None, True
        for document in ("config", "client-ca.crt", "server-ca.crt", "readyz", "apiservers"):
            yield document, "GET", supervisor + document, [a], b"", None, True
        yield "config wrong token", "GET", supervisor + "config", [("Authorization", wrong)], b"", None, True
        yield "config of a server", "GET", supervisor + "config", [("Authorization", server)], b"", None, True
        yield "config no token", "GET", supervisor + "config", [], b"", None, True
        yield "config with certificate", "GET", supervisor + "config", [a], b"", node_certificate, True
        yield "config closing", "GET", supervisor + "config", [a, ("Connection", "close")], b"", None, True
        yield "config HTTP/1.0", "GET", supervisor + "config", [a], b"", None, True
        yield "HEAD config", "HEAD", supervisor + "config", [a], b"", None, True
        yield "cacerts", "GET", "/cacerts", [], b"", None, False
        yield "ping", "GET", "/ping", [], b"", None, False
        yield "apis basic", "GET", "/apis", [a], b"", None, True
        yield "apis wrong", "GET", "/apis", [("Authorization", wrong)], b"", None, True
        yield "p2p", "GET", supervisor + "p2p", [], b"", node_certificate, True
        yield "connect no certificate", "GET", supervisor + "connect", [], b"", None, True
        yield "server-bootstrap", "GET", supervisor + "server-bootstrap", [a], b"", None, False
        for target in ("/version", "/healthz", "/apis", "/api/v1/nodes/seen-0", "/nothing", "/odd", "/trailers", "/hints", "/empty",
                       "/not-modified", "/source?bytes=%d" % (i * 37 % 70000), "/source?bytes=70000&chunked=1", "/api/v1/namespaces/default/endpoints",
                       "/api/v1/nodes?watch=1&timeoutSeconds=0"):
            yield target.split("bytes=")[0], "GET", target, [], b"", world.admin, False
        yield "HTTP/1.0", "GET", "/source?bytes=3000&chunked=1", [], b"", world.admin, False
        yield "HEAD kube", "HEAD", "/odd", [], b"", world.admin, False
        yield "anonymous", "GET", "/api/v1/nodes", [], b"", None, False
        yield "sink", "POST", "/sink", [], bytes(range(256)) * (i % 200), world.admin, False
        yield "sink chunked", "PUT", "/sink", [("Transfer-Encoding", "chunked")], b"5\r\nhello\r\n3;x=y\r\n123\r\n0\r\n\r\n", world.admin, False
        yield "sink awaited", "POST", "/sink", [("X-Nothing", ""), ("Content-Type", "a/b")], b"12345", world.admin, False

    return kinds


PEM = re.compile(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n", re.DOTALL)


def certificate_text(pem):
    said = subprocess.run(["openssl", "x509", "-noout", "-subject", "-issuer", "-ext", "subjectAltName,extendedKeyUsage,keyUsage,authorityKeyIdentifier"],
                          input=pem, capture_output=True)
    return said.stdout


def comparable(answer, look_closely):
    """What must be the same: everything but Date and, of a certificate, what chance made."""
    status, head, body = answer
    head = re.sub(rb"\r\nDate: [^\r]*", b"\r\nDate:", head)
    found = list(PEM.finditer(body))
    if status == 200 and len(found) > 1 and b"chunked" not in head:
        head = re.sub(rb"(\r\nContent-Length:) \d+", rb"\1", head)
        leaf = certificate_text(found[0].group(0)) if look_closely else b""
        keys = [block.group(1) for block in found]
        authorities = [block.group(0) for block in found[1:] if block.group(1) == b"CERTIFICATE"]
        body = (leaf, keys, authorities, PEM.sub(b"", body))
    return status, head, body


def outcomes_of(records):
    """How many registration requests the log answers for: each ends in exactly one of these, and a storm stands for several."""
    refusals = ("token_rejected", "request_rejected", "password_rejected")
    return sum(record.get("count", 1) for record in records
               if record["kind"] in refusals or (record["kind"] == "token_accepted" and record["answered"] < 300))


def make_csr(directory):
    done = subprocess.run(["openssl", "req", "-new", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout",
                           str(directory / "csr.key"), "-subj", "/", "-outform", "DER"], capture_output=True, check=True)
    return done.stdout


def part_identical(args):
    wanted = 10000 if args.full else 300
    with World(args, "observe") as world:
        kinds = kinds_of_requests(world, make_csr(world.dir))
        sides, took, sent, recorded, lines = {}, {"direct": [], "front": []}, 0, 0, {}
        by_kind = {}
        front_cpu, i = cpu_s(world.front), 0
        while sent < wanted:
            for what, method, target, headers, body, certificate, counts in kinds(i):
                bytes_ = message(method, target, headers, body, "1.0" if "HTTP/1.0" in what else "1.1")
                answers = {}
                for name, side in (("front", world.front), ("direct", world.k3s)):
                    kept = sides.setdefault((name, certificate), Kept(world, side, certificate))
                    try:
                        answers[name], seconds = kept.ask(bytes_, method)
                    except ConnectionError as error:
                        raise Failed("%s, %s: %s" % (what, name, error))
                    took[name].append(seconds)
                    by_kind.setdefault(what, {"front": [], "direct": []})[name].append(seconds)
                sent += 1
                recorded += bool(counts)
                close = i < 2 or sent % 97 == 0
                direct, front = comparable(answers["direct"], close), comparable(answers["front"], close)
                if direct != front:
                    differs = [(a, b) for a, b in zip(direct, front) if a != b]
                    lines.setdefault(what, "direct, through us: %.1500r" % differs)
            i += 1
        cpu_front = cpu_s(world.front) - front_cpu
        for kept in sides.values():
            kept.close()
        need(not lines, "answers differ: " + "\n      ".join(map(str, lines.items())))
        need(world.front.stop() == 0, "the ledger did not stop in order")
        records = [r for r in world.front.records() if r.get("authority") == "upstream"]
        by = {}
        for record in records:
            by[record["kind"]] = by.get(record["kind"], 0) + record.get("count", 1)
        outcomes = outcomes_of(records)
        ratio = {p: percentile(took["front"], p) / percentile(took["direct"], p) for p in (0.5, 0.99)}
        report("identical", "%d requests of %d kinds both ways, every answer the same; latency median %.2f ms, direct %.2f ms (x%.2f), "
               "p99 %.2f ms, direct %.2f ms (x%.2f); CPU %.2f ms a request" %
               (sent, len(by_kind), 1e3 * percentile(took["front"], .5), 1e3 * percentile(took["direct"], .5), ratio[0.5],
                1e3 * percentile(took["front"], .99), 1e3 * percentile(took["direct"], .99), ratio[0.99], 1e3 * cpu_front / sent))
        report("identical", "recorded: %d outcomes for %d requests of registration; %s" % (outcomes, recorded, json.dumps(by, sort_keys=True)))
        need(outcomes == recorded, "%d outcomes in the log for %d requests" % (outcomes, recorded))
        need(by.get("password_stored", 0) == i, "password_stored: %s for %d names" % (by.get("password_stored"), i))
        need(by.get("password_rejected", 0) >= i, "password_rejected: %s for %d mismatches" % (by.get("password_rejected"), i))
        verify = subprocess.run([args.ledger, "verify", "--data-dir", str(world.front.data)], capture_output=True, text=True)
        need(verify.returncode == 0, "ledger verify: " + verify.stdout + verify.stderr)


def store_of(world):
    """Which password the upstream has for each name."""
    lines = (world.k3s.dir / "cred/node-passwd").read_text().splitlines()
    return {line.split(",")[1]: line.split(",")[0] for line in lines if line}


def bound_at(records, marks):
    """The fold of the log, by hand: for each mark, what every name was bound to when its record was written."""
    bound, seen = {}, []
    for record in records:
        kind, node = record["kind"], record.get("node", "")
        if kind in ("password_stored", "password_verified"):
            bound[node] = record["fingerprint"]
        elif kind == "binding_changed":
            bound[node] = record["to"]
        if kind == "password_stored" and node in marks:
            seen.append(dict(bound))
    return seen


def part_memory(args):
    """Machines that overlap ask for few names with few passwords, and names are set free where nobody watches: what the log has as bound is what
    the upstream has in its file, after every round, for every name that somebody was admitted to."""
    rounds, threads, names, passwords = (200, 16, 8, 4) if args.full else (12, 8, 5, 3)
    chance = random.Random(20261123)
    with World(args, "observe") as world, concurrent.futures.ThreadPoolExecutor(threads) as pool:
        def ask(name, password, side=None):
            return world.ask(side or world.front, "GET", "/v1-k3s/serving-kubelet.crt", world.node_headers(name, password))[0]

        for number in range(passwords):
            need(ask("known-%d" % number, "pw-%d" % number) == 200, "a new name was not admitted")
        snapshots, forgotten, refused = [], 0, 0
        for turn in range(rounds):
            for name in list(store_of(world)):
                if name.startswith("web-") and chance.random() < 0.3:
                    status = world.ask(world.k3s, "DELETE", "/api/v1/nodes/" + name, certificate=world.admin)[0]
                    need(status == 200, "the node was not deleted: %d" % status)
                    forgotten += 1
            wanted = [("web-%d" % chance.randrange(names), "pw-%d" % chance.randrange(passwords)) for _ in range(threads)]
            statuses = list(pool.map(lambda pair: ask(*pair), wanted))
            need(set(statuses) <= {200, 403}, "answers %s" % statuses)
            refused += statuses.count(403)
            admitted = {name for (name, _), status in zip(wanted, statuses) if status == 200}
            need(ask("mark-%d" % turn, "pw-0") == 200, "a new name was not admitted")
            store = store_of(world)
            snapshots.append({name: store[name] for name in admitted})
        need(world.front.stop() == 0, "the ledger did not stop in order")
        records = world.front.records()
        fold = bound_at(records, {"mark-%d" % turn for turn in range(rounds)})
        need(len(fold) == rounds, "%d rounds of %d are in the log" % (len(fold), rounds))
        of_password = {"pw-%d" % number: fold[0]["known-%d" % number] for number in range(passwords)}
        for turn, (snapshot, bound) in enumerate(zip(snapshots, fold)):
            for name, password in snapshot.items():
                need(bound.get(name) == of_password[password], "round %d: %s is bound to %s upstream, and to another in the log" % (turn, name, password))
        outside = sum(record["kind"] == "binding_changed" and record["by"] == "outside" for record in records)
        need(outside > 0 and refused > 0, "nothing was tried: %d changed outside, %d refused" % (outside, refused))
        verify = subprocess.run([args.ledger, "verify", "--data-dir", str(world.front.data)], capture_output=True, text=True)
        need(verify.returncode == 0, "ledger verify: " + verify.stdout + verify.stderr)
        report("memory", "%d rounds of %d overlapping requests for %d names: %d names set free unseen, %d refusals, %d seen as changed outside; after "
               "every round the log has what the upstream has" % (rounds, threads, names, forgotten, refused, outside))


def part_latency(args):
    """A new connection per request, as agents make them; direct and through us by turns, and the CPU of both processes."""
    blocks, size = (30, 50) if args.full else (4, 30)
    with World(args, "observe") as world:
        took, cpu = {"direct": [], "front": []}, {("direct", "k3s"): 0.0, ("front", "k3s"): 0.0, ("direct", "front"): 0.0, ("front", "front"): 0.0}
        for _ in range(blocks):
            for name, side in (("front", world.front), ("direct", world.k3s)):
                before = {who: cpu_s(getattr(world, who)) for who in ("front", "k3s")}
                for i in range(size):
                    bytes_ = message("GET", "/v1-k3s/serving-kubelet.crt", world.node_headers("lat-%d" % i, "p%d" % i) + [("Connection", "close")])
                    began = time.perf_counter()
                    with world.link(side) as link:
                        link.send(bytes_)
                        need(link.answer()[0] == 200, "a join was refused")
                    took[name].append(time.perf_counter() - began)
                for who, seconds in before.items():
                    cpu[name, who] += cpu_s(getattr(world, who)) - seconds
        median = {name: percentile(values, .5) for name, values in took.items()}
        each = {key: 1e3 * seconds / (blocks * size) for key, seconds in cpu.items()}
        report("latency", "a connection per request: median %.2f ms, direct %.2f ms (x%.2f); p99 %.2f ms, direct %.2f ms; CPU a request: the upstream %.2f ms "
               "direct; through us the upstream %.2f ms and the ledger %.2f ms (x%.2f)" %
               (1e3 * median["front"], 1e3 * median["direct"], median["front"] / median["direct"], 1e3 * percentile(took["front"], .99),
                1e3 * percentile(took["direct"], .99), each["direct", "k3s"], each["front", "k3s"], each["front", "front"],
                (each["front", "k3s"] + each["front", "front"]) / max(each["direct", "k3s"], 1e-9)))


def cpu_s(side):
    fields = open("/proc/%d/stat" % side.process.pid).read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# ---- observe: an upstream that dies ----------------------------------------------------------------------------------

class Load(threading.Thread):
    """Registers names over and over through one side, a connection per request; what came of it, in words."""

    def __init__(self, world, side, who):
        super().__init__(daemon=True)
        self.world, self.side, self.who, self.going = world, side, who, True
        self.seen, self.admitted, self.slowest, self.odd = {}, [], 0.0, []
        self.pause = 0.0

    def run(self):
        number = 0
        while self.going:
            number += 1
            name, password = "%s-%d" % (self.who, number % 500), "pw-%s-%d" % (self.who, number % 500)
            began = time.monotonic()
            try:
                with self.world.link(self.side, timeout=30) as link:
                    link.send(message("GET", "/v1-k3s/client-kubelet.crt", self.world.node_headers(name, password) + [("Connection", "close")]))
                    status, head, body = link.answer()
                what = str(status)
                if status == 200:
                    self.admitted.append(name)
                else:
                    self.odd.append((name, status, body[:300]))
            except (ConnectionError, ssl.SSLError, OSError) as error:
                what = "timed out" if "timed out" in str(error) else "no answer"
            self.seen[what] = self.seen.get(what, 0) + 1
            self.slowest = max(self.slowest, time.monotonic() - began)
            time.sleep(self.pause or (0.02 if what == "no answer" else 0))

    def stop(self):
        self.going = False
        self.join()


def part_outage(args):
    rounds = 8 if args.full else 2
    with World(args, "observe") as world:
        loads = [Load(world, side, "%s%d" % (name, n)) for n in range(2) for name, side in (("direct", world.k3s), ("front", world.front))]
        for load in loads:
            load.start()
        for _ in range(rounds):
            time.sleep(0.7)
            world.k3s.stop(signal.SIGKILL)
            time.sleep(0.4 + random.random())
            world.k3s.start()
        needed = {load: len(load.admitted) + 5 for load in loads}
        back = eventually(lambda: all(len(load.admitted) >= needed[load] for load in loads), 20)
        for load in loads:
            load.stop()
        seen = {"direct": {}, "front": {}}
        for load in loads:
            for what, count in load.seen.items():
                mine = seen[load.who[:-1]]
                mine[what] = mine.get(what, 0) + count
        report("outage", "upstream killed and started %d times under load: direct %s, through us %s; slowest %.2f s" %
               (rounds, json.dumps(seen["direct"], sort_keys=True), json.dumps(seen["front"], sort_keys=True), max(l.slowest for l in loads)))
        need(back, "agents did not get in again after the upstream was back")
        need(set(seen["front"]) <= {"200", "no answer"}, "through us came what the upstream did not say: %s %s" % (seen["front"], [l.odd[:1] for l in loads]))
        need(world.front.stop() == 0, "the ledger did not stop in order")
        records = world.front.records()
        stored = {r["node"] for r in records if r["kind"] in ("password_stored", "password_verified")}
        missing = {name for load in loads if load.side is world.front for name in load.admitted} - stored
        need(not missing, "acknowledged and not recorded: %s" % sorted(missing)[:5])
        kinds = {r["kind"] for r in records}
        need("upstream_lost" in kinds and "upstream_found" in kinds, "the record does not say that the upstream was away: %s" % kinds)


def part_ill_upstream(args):
    """Slow, garbage, dropped, 500: in observe what a client would have seen; in enforce registration goes on, the rest is 502 to 504."""
    with World(args, "observe") as world:
        config = ("GET", "/v1-k3s/config", [("Authorization", world.k3s.authorization)])
        for spoil in ({"garbage": True}, {"drop": True}):
            world.k3s.control(**spoil)
            try:
                answer = world.ask(world.front, *config)
            except (ConnectionError, ssl.SSLError):
                answer = None
            need(answer is None, "observe, %s: answered %r, the upstream had not" % (spoil, answer))
        world.k3s.control(status=500)
        need(comparable(world.ask(world.front, *config), 0) == comparable(world.ask(world.k3s, *config), 0), "observe: a 500 is not passed on as it is")
        world.k3s.control(delay_ms=1500)
        need(world.ask(world.front, *config)[0] == 200, "observe: a slow answer is an answer")
        world.k3s.control()
        world.set_mode("enforce")
        for spoil, statuses in (({"garbage": True, "only": "/version"}, (502,)), ({"drop": True, "only": "/version"}, (502,))):
            world.k3s.control(**spoil)
            status, head, body = world.ask(world.front, "GET", "/version")
            need(status in statuses and json.loads(body)["kind"] == "Status", "enforce, %s: %d %r" % (spoil, status, body))
        world.k3s.control()
        world.k3s.stop(signal.SIGKILL)
        status, head, body = world.ask(world.front, "GET", "/version")
        need(status in (502, 503) and json.loads(body)["code"] == status, "enforce, upstream down: %d %r" % (status, body))
        name = "while-away"
        status, said = join(args.ledger, world.front.port, world.k3s.token, name, world.dir / "agents" / name, "G7")
        need(status == 0, "enforce: an agent could not join without the upstream: " + said)
        world.k3s.start()
        need(eventually(lambda: world.ask(world.front, "GET", "/version")[0] == 200, 20), "enforce: the upstream is back and not used")
        report("ill upstream", "slow, garbage, dropped and 500 are passed on or reset in observe; 502/503 with a Status body in enforce, where an agent joins all the same")


# ---- enforce ---------------------------------------------------------------------------------------------------------

def part_agents(args):
    for mode in ("observe", "enforce"):
        with World(args, mode) as world:
            world.k3s.stop()
            world.k3s.options["advertise"] = "127.0.0.1:%d" % world.front.port  # or the tunnels go past us
            world.k3s.start()
            agents = world.dir / "agents"
            for generation in GENERATIONS:
                name = "web-" + generation.lower()
                step = lambda: join(args.ledger, world.front.port, world.k3s.token, name, agents / name, generation, tunnel=0.2)
                for what in ("first start", "second start"):
                    status, said = step()
                    need(status == 0, "%s, %s, %s: %s" % (mode, generation, what, said))
                shutil.rmtree(agents / name)
                status, said = step()
                need(status == 1 and "403" in said, "%s, %s: a rebuilt machine is refused: %s" % (mode, generation, said))
            need(eventually(lambda: len(world.k3s.events("tunnel_closed")) == 2 * len(GENERATIONS)), "%s: %d tunnels reached the upstream" %
                 (mode, len(world.k3s.events("tunnel_opened"))))
            users = {event["user"] for event in world.k3s.events("tunnel_opened")}
            need(users == {"system:node:web-" + g.lower() for g in GENERATIONS}, "tunnels reached the upstream as %s" % users)
            world.front.stop()
            by = {}
            for record in world.front.records():
                key = record["kind"], record.get("authority", "")
                by[key] = by.get(key, 0) + record.get("count", 1)
            whose = "upstream" if mode == "observe" else ""
            n = len(GENERATIONS)
            for kind, least in (("password_stored", n), ("password_verified", n), ("password_rejected", n), ("tunnel_opened", 2 * n), ("tunnel_closed", 2 * n)):
                who = whose
                need(by.get((kind, who), 0) >= least or (kind.startswith("tunnel") and by.get((kind, ""), 0) >= least),
                     "%s: %s of authority '%s': %s" % (mode, kind, who, {k: v for k, v in by.items() if k[0] == kind}))
            report("agents", "%s: G1 to G7 join, come again, and are refused when rebuilt; their tunnels reach the upstream as themselves" % mode)


EVIL = "mallory"


def spoofs():
    for name in ("X-Remote-User", "x-remote-user", "X-REMOTE-USER", "X_Remote_User", "x_remote_user", "X-Remote_User", "X-ReMoTe-UsEr"):
        yield name, "%s: %s\r\n" % (name, EVIL)
    for name in ("X-Remote-Group", "X_REMOTE_GROUP"):
        yield name, "%s: system:masters-%s\r\n" % (name, EVIL)
    yield "extra", "X-Remote-Extra-Scopes: %s\r\nX_Remote_Extra_Scopes: %s\r\n" % (EVIL, EVIL)
    yield "uid", "X-Remote-Uid: %s\r\n" % EVIL
    yield "twice", "X-Remote-User: a-%s\r\nX-Remote-User: %s\r\n" % (EVIL, EVIL)
    yield "blank before the colon", "X-Remote-User : %s\r\n" % EVIL
    yield "tab before the colon", "X-Remote-User\t: %s\r\n" % EVIL
    yield "folded", "X-Remote-User:\r\n %s\r\n" % EVIL
    yield "folded from another", "X-A: b\r\n X-Remote-User: %s\r\n" % EVIL
    yield "folded first", " X-Remote-User: %s\r\n" % EVIL
    yield "bare LF", "X-A: b\nX-Remote-User: %s\r\n" % EVIL
    yield "bare CR", "X-A: b\rX-Remote-User: %s\r\n" % EVIL
    yield "NUL", "X-A: b\0\r\nX-Remote-User: %s\r\n" % EVIL
    yield "NUL in the name", "X-Remote-User\0: %s\r\n" % EVIL
    yield "named in Connection", "Connection: X-Remote-User\r\nX-Remote-User: %s\r\n" % EVIL
    yield "ours named in Connection", "Connection: X-Remote-User, X-Remote-Group, Authorization\r\n"
    yield "upgrade and named", "Connection: upgrade, x-remote-user\r\nUpgrade: nothing\r\nX-Remote-User: %s\r\n" % EVIL
    yield "in trailers", ("Transfer-Encoding: chunked\r\nTrailer: X-Remote-User\r\n", "3\r\nabc\r\n0\r\nX-Remote-User: %s\r\n\r\n" % EVIL)
    yield "empty name", ": %s\r\nX-Remote-User: %s\r\n" % (EVIL, EVIL)
    yield "high bit", "X-Remote-Use\xf2: %s\r\n" % EVIL
    yield "impersonation is authorised there", "X-Remote-User: %s\r\nX-Remote-Group: system:masters\r\nX-Forwarded-For: 1.2.3.4\r\n" % EVIL


def part_spoof(args):
    tried = refused = 0
    for mode in ("enforce", "observe"):
        with World(args, mode) as world:
            callers = {"nobody": None, "admin": world.admin, "node": world.k3s.issue("node", "system:node:n1", ["system:nodes"]),
                       "a stranger's": world.k3s.issue("stranger", "system:admin", ["system:masters"], "stranger"),
                       "a stranger's proxy": world.k3s.issue("strange-proxy", "system:auth-proxy", ca="stranger"),
                       "an expired proxy": world.k3s.issue("expired", "system:auth-proxy", ca="request-header-ca", **{"from": -7200, "for": 3600}),
                       "the proxy's own": world.k3s.tls("client-auth-proxy"),
                       "a serving CA's": world.k3s.issue("serving", "system:auth-proxy", ca="server-ca")}
            honest = {"nobody": "system:anonymous", "admin": "system:admin", "node": "system:node:n1"}
            for who, certificate in callers.items():
                plain = world.whoami(world.front, certificate=certificate)
                need((plain if isinstance(plain, int) else plain["user"]) == honest.get(who, 401), "%s: %s is %s" % (mode, who, plain))
                for what, spoof in spoofs():
                    head, body = spoof if isinstance(spoof, tuple) else (spoof, "")
                    method = "POST" if body else "GET"
                    tried += 1
                    with world.link(world.front, certificate) as link:
                        link.send("%s /whoami HTTP/1.1\r\nHost: x\r\n%s\r\n%s" % (method, head, body))
                        try:
                            status, _, answer = link.answer()
                        except ConnectionError:
                            status, answer = 0, b""
                    if status != 200:
                        refused += 1
                        need(status in (0, 400, 401, 403, 431, 501), "%s, %s, %s: %d %r" % (mode, who, what, status, answer[:200]))
                        continue
                    told = json.loads(answer)
                    where = "%s, %s, %s: %s" % (mode, who, what, told)
                    need(told["user"] == honest.get(who), where)
                    need(EVIL not in json.dumps([told["groups"], told["extra"], told["trailers"]]), where)
                    for name, value in told["headers"]:
                        if re.match(r"x[-_]remote[-_]", name.lower()):
                            need(EVIL not in value, where)
    report("spoof", "%d requests with X-Remote-* in %d spellings, with 8 sorts of certificates, in both modes: none was taken for another (%d refused)" %
           (tried, len(list(spoofs())), refused))


def smuggles(mark):
    """(what, bytes, how many requests it may be at most)."""
    hidden = "GET /whoami?hidden=%s HTTP/1.1\r\nHost: x\r\n\r\n" % mark
    post = "POST /whoami?mark=%s HTTP/1.1\r\nHost: x\r\n" % mark
    get = "GET /whoami?mark=%s HTTP/1.1\r\nHost: x\r\n" % mark
    length = "Content-Length: %d\r\n"
    chunked = "Transfer-Encoding: chunked\r\n"
    for what, framing, body in [
            ("CL.TE", length % (5 + len(hidden)) + chunked, "0\r\n\r\n" + hidden),
            ("TE.CL", chunked + length % 4, "%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden)),
            ("two lengths", length % 0 + length % len(hidden), hidden),
            ("two lengths the other way", length % len(hidden) + length % 0, hidden),
            ("list of lengths", "Content-Length: 0, %d\r\n" % len(hidden), hidden),
            ("chunked twice", chunked + chunked, "0\r\n\r\n" + hidden),
            ("chunked, chunked", "Transfer-Encoding: chunked, chunked\r\n", "0\r\n\r\n" + hidden),
            ("xchunked", "Transfer-Encoding: xchunked\r\n", "0\r\n\r\n" + hidden),
            ("identity", "Transfer-Encoding: identity\r\n" + length % len(hidden), hidden),
            ("gzip, chunked", "Transfer-Encoding: gzip, chunked\r\n", "0\r\n\r\n" + hidden),
            ("blank before TE's colon", "Transfer-Encoding : chunked\r\n" + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("TE with a tab", "Transfer-Encoding:\tchunked\r\n" + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("TE folded", "Transfer-Encoding:\r\n chunked\r\n" + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("TE after a bare LF", "X: y\nTransfer-Encoding: chunked\r\n" + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("TE after a bare CR", "X: y\rTransfer-Encoding: chunked\r\n" + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("TE quoted", 'Transfer-Encoding: "chunked"\r\n' + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("TE with vertical tab", "Transfer-Encoding: \x0bchunked\r\n" + length % (5 + len(hidden)), "0\r\n\r\n" + hidden),
            ("negative length", "Content-Length: -1\r\n", hidden), ("signed length", "Content-Length: +0\r\n", hidden),
            ("hex length", "Content-Length: 0x0\r\n", hidden), ("length with a blank", "Content-Length: 0 1\r\n", hidden),
            ("huge length", "Content-Length: 18446744073709551616\r\n", hidden), ("empty length", "Content-Length:\r\n", hidden),
            ("chunk size 0x", chunked, "0x0\r\n\r\n" + hidden), ("chunk size signed", chunked, "-1\r\n\r\n" + hidden),
            ("chunk size huge", chunked, "ffffffffffffffff1\r\n\r\n" + hidden), ("chunk size empty", chunked, "\r\n" + hidden),
            ("chunk size wraps", chunked, "10000000000000000\r\n\r\n" + hidden),
            ("chunk without its end", chunked, "3\r\nabcX\r\n0\r\n\r\n" + hidden),
            ("chunk ends with LF", chunked, "3\nabc\n0\n\n" + hidden), ("chunk extension with LF", chunked, "0;a\nb\r\n\r\n" + hidden),
            ("chunk extension with CR", chunked, "0;a\rb\r\n\r\n" + hidden),
            ("length hidden in Connection", "Connection: Content-Length\r\n" + length % len(hidden), hidden),
            ("TE hidden in Connection", "Connection: Transfer-Encoding\r\n" + chunked, "%x\r\n%s\r\n0\r\n\r\n" % (len(hidden), hidden))]:
        yield what, post + framing + "\r\n" + body, 1 if what not in ("empty length",) else 2
    yield "HTTP/1.0 with TE", post.replace("HTTP/1.1", "HTTP/1.0") + chunked + length % (5 + len(hidden)) + "\r\n0\r\n\r\n" + hidden, 1
    yield "GET with a body", get + length % len(hidden) + "\r\n" + hidden, 1
    yield "bare LF lines", (get + "\r\n").replace("\r\n", "\n") + hidden, 2
    yield "NUL in a value", get + "X: a\0b\r\n\r\n", 1
    yield "NUL in the target", get.replace("mark=", "\0mark=") + "\r\n", 1
    yield "blank in the target", get.replace("?mark", " ?mark") + "\r\n", 1
    yield "line in the target", get.replace("/whoami", "/whoami\rX: y") + "\r\n", 1
    yield "no host", "GET /whoami?mark=%s HTTP/1.1\r\n\r\n" % mark, 1
    yield "two hosts", get + "Host: y\r\n\r\n", 1
    yield "absolute form", "GET http://127.0.0.1:1/whoami?mark=%s HTTP/1.1\r\nHost: x\r\n\r\n" % mark, 1
    yield "authority form", "GET 127.0.0.1:1 HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % mark, 1
    yield "asterisk form", "OPTIONS * HTTP/1.1\r\nHost: x\r\nX: %s\r\n\r\n" % mark, 1
    yield "no version", "GET /whoami?mark=%s\r\n\r\n" % mark, 1
    yield "version 1.2", get.replace("HTTP/1.1", "HTTP/1.2") + "\r\n", 1
    yield "version 2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 1
    yield "CONNECT", "CONNECT 127.0.0.1:10250 HTTP/1.1\r\nHost: 127.0.0.1:10250\r\nX: %s\r\n\r\n" % mark, 0
    yield "upgrade with a body", post + "Connection: upgrade\r\nUpgrade: h2c\r\n" + length % len(hidden) + "\r\n" + hidden, 1
    yield "expect", post + "Expect: 200-ok\r\n" + length % len(hidden) + "\r\n" + hidden, 1
    yield "pipelined", get + "\r\n" + hidden, 2
    yield "pipelined after a body", post + length % 3 + "\r\nabc" + hidden, 2


def part_smuggling(args):
    shapes = refused = 0
    for mode in ("enforce", "observe"):
        with World(args, mode) as world:
            for number, (what, _, _) in enumerate(list(smuggles("x"))):
                mark = "%s%d" % (mode, number)
                _, bytes_, most = list(smuggles(mark))[number]
                shapes += 1
                with world.link(world.front, world.admin, timeout=10) as link:
                    link.send(bytes_)
                    link.tls.settimeout(1)  # without a word: it waits for more, or for the next request
                    try:
                        said = link.all()
                    except TimeoutError:
                        said = link.buffer
                arrived = [e for e in world.k3s.events() if re.search(r"(mark|hidden)=%s(?!\d)" % mark, e["target"]) or e["method"] in ("CONNECT", "PRI")]
                answers = len(re.findall(rb"HTTP/1\.[01] (?!1\d\d)\d\d\d ", said))
                where = "%s, %s: %d requests reached the upstream (%s), %d answers: %r" % (
                    mode, what, len(arrived), [e["target"] for e in arrived], answers, said[:300])
                need(len(arrived) <= most, where)
                hidden = [e for e in arrived if "hidden=" in e["target"]]
                need(most == 2 or not hidden, where)
                need(answers >= len(arrived), where)
                refused += not arrived
                victim = world.ask(world.front, "GET", "/whoami?victim=%s" % mark, certificate=world.admin)
                need(victim[0] == 200 and json.loads(victim[2])["target"] == "/whoami?victim=%s" % mark, "%s, %s: the next caller got %r" % (mode, what, victim))
            need(not world.k3s.events("refused"), "%s: the upstream was sent what it had to refuse: %s" % (mode, world.k3s.events("refused")[:3]))
    report("smuggling", "%d shapes: %d refused, the rest arrived as what the client meant; the next caller always got its own answer" % (shapes, refused))


def part_bulk(args):
    size = 1 << (30 if args.full else 25)
    pattern = bytes(i % 251 for i in range(251 * 512))
    block = pattern * 2
    with World(args, "enforce") as world:
        world.ask(world.front, "GET", "/version", certificate=world.admin)
        speeds, peaks = {}, {}
        for chunked in (False, True):
            for name, side in (("direct", world.k3s), ("through us", world.front)):
                world.front.forget_peak()
                base = world.front.memory_mib("VmRSS")
                began = time.monotonic()
                with world.link(side, world.admin, timeout=120) as link:
                    link.send("GET /source?bytes=%d%s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % (size, "&chunked=1" if chunked else ""))
                    link.until(b"\r\n\r\n")
                    if name == "through us":
                        time.sleep(1.0)  # a reader that does not read: nobody may collect it meanwhile
                        began += 1.0
                    got, digest = len(link.buffer), hashlib.sha256()
                    while True:
                        some = link.tls.recv(1 << 18)
                        if not some:
                            break
                        got += len(some)
                seconds = time.monotonic() - began
                need(got >= size, "download %s: %d bytes of %d" % (name, got, size))
                speeds["download", chunked, name] = size / seconds / 1e6
                if name == "through us":
                    peaks["download", chunked] = world.front.memory_mib() - base
                world.front.forget_peak()
                base, began = world.front.memory_mib("VmRSS"), time.monotonic()
                with world.link(side, world.admin, timeout=120) as link:
                    framing = "Transfer-Encoding: chunked" if chunked else "Content-Length: %d" % size
                    link.send("POST /sink HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n" % framing)
                    left, digest = size, hashlib.sha256()
                    while left:
                        some = block[:min(left, len(block))]
                        link.send(b"%x\r\n%s\r\n" % (len(some), some) if chunked else some)
                        digest.update(some)
                        left -= len(some)
                    if chunked:
                        link.send(b"0\r\n\r\n")
                    status, _, body = link.answer()
                seconds = time.monotonic() - began
                told = json.loads(body)
                told = told if status == 200 else json.loads(re.search(rb"\{.*\}", body).group(0))
                need(status == 200 and told["bytes"] == size and told["sha256"] == digest.hexdigest(), "upload %s: %d %r" % (name, status, body))
                need(told["framing"] == ("chunked" if chunked else "length"), "upload %s: framing %s" % (name, told["framing"]))
                speeds["upload", chunked, name] = size / seconds / 1e6
                if name == "through us":
                    peaks["upload", chunked] = world.front.memory_mib() - base
        report("bulk", "%d MiB each way: %s MB/s; the ledger's memory grew by at most %.1f MiB" %
               (size >> 20, ", ".join("%s%s %s %.0f" % (k[0], " chunked" if k[1] else "", k[2], v) for k, v in speeds.items()), max(peaks.values())))
        need(max(peaks.values()) < 24, "memory is not flat: %s" % peaks)
        # Who answers before the body is there, and who ends in the middle.
        with world.link(world.front, world.admin) as link:
            link.send("POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 100000000\r\n\r\n")
            need(link.answer()[0] == 413, "an early answer does not come through")
        for path, direct in (("/truncate?bytes=500", None), ("/cut", None)):
            with world.link(world.front, world.admin) as link:
                link.send("GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % path)
                said = link.all()
            need(said.startswith(b"HTTP/1.1 200") and not said.endswith(b"0\r\n\r\n"), "%s: a broken answer looks whole: %r" % (path, said[-100:]))


def part_watch(args):
    seconds = 600 if args.full else 20
    with World(args, "enforce") as world:
        began, events, gaps, last = time.monotonic(), 0, [], time.monotonic()
        with world.link(world.front, world.admin, timeout=30) as link:
            link.send("GET /api/v1/nodes?watch=1&timeoutSeconds=%d&interval_ms=500 HTTP/1.1\r\nHost: x\r\n\r\n" % seconds)
            link.until(b"\r\n\r\n")
            while b"\r\n0\r\n\r\n" not in b"\r\n" + link.buffer:
                need(link.more(), "the watch ended after %.1f s" % (time.monotonic() - began))
                if b"BOOKMARK" in link.buffer:
                    events += link.buffer.count(b"BOOKMARK")
                    gaps.append(time.monotonic() - last)
                    last = time.monotonic()
                    link.buffer = link.buffer[link.buffer.rindex(b"\n") + 1:] if not link.buffer.endswith(b"0\r\n\r\n") else b"0\r\n\r\n"
        held = time.monotonic() - began
        report("watch", "held %.0f s, %d events, longest gap %.2f s" % (held, events, max(gaps)))
        need(held > seconds - 1 and events > seconds * 1.8, "the watch was not carried whole")
        need(max(gaps) < 3, "events were held back")


def part_upgrades(args):
    exec_path = "/api/v1/namespaces/x/pods/y/exec"
    with World(args, "enforce") as world:
        spdy = "POST %s%s HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4.channel.k8s.io\r\n\r\n"
        closed = lambda: world.k3s.events("exec_closed")
        with world.link(world.front, world.admin) as link:  # bytes with the request, and the client's end first
            link.send((spdy % (exec_path, "")).encode() + b"at once")
            status, head, _ = link.answer()
            need(status == 101 and b"X-Stream-Protocol-Version: v4.channel.k8s.io" in head, "exec: %d %r" % (status, head))
            need(link.exactly(7) == b"at once", "bytes behind the head are lost")
            for i in range(50):
                some = os.urandom(1 + i * 997)
                link.send(some)
                need(link.exactly(len(some)) == some, "exec: bytes are changed")
            link.end_writing()
            need(link.all() == b"bye", "exec: what comes after the client's end is lost")
        need(eventually(lambda: closed()), "exec: the upstream does not know that it ended")
        need(closed()[-1]["why"] == "end of stream", "exec: %s" % closed())
        with world.link(world.front, world.admin) as link:  # the upstream's end first
            link.send(spdy % (exec_path, "?close_after=10"))
            need(link.answer()[0] == 101, "exec")
            link.send(b"0123456789")
            need(link.exactly(10) == b"0123456789", "exec")
            need(not link.more(), "exec: the upstream's end does not come through")
            link.tls.sendall(b"still here")
            link.end_writing()
        need(eventually(lambda: len(closed()) == 2 and closed()[1]["bytes"] == 20), "exec: what the client sends after the upstream's end is lost: %s" % closed())
        # Both directions full at once.
        amount = (256 if args.full else 16) << 20
        with world.link(world.front, world.admin, timeout=60) as link:
            link.send(spdy % (exec_path, ""))
            need(link.answer()[0] == 101, "exec")
            sent, got = hashlib.sha256(), hashlib.sha256()
            world.front.forget_peak()
            base = world.front.memory_mib("VmRSS")
            both_ways(link, amount, sent, got)
            need(sent.digest() == got.digest(), "exec: %d MiB both ways are not the same" % (amount >> 20))
            grown = world.front.memory_mib() - base
        need(grown < 24, "exec: memory grew by %.1f MiB" % grown)
        key = base64.b64encode(os.urandom(16)).decode()
        with world.link(world.front, world.admin) as link:  # websocket, the newer exec
            link.send("GET %s HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
                      "Sec-WebSocket-Key: %s\r\n\r\n" % (exec_path, key))
            status, head, _ = link.answer()
            need(status == 101 and base64.b64encode(hashlib.sha1((key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()) in head, "websocket: %r" % head)
            link.send(b"\x82\x85\0\0\0\0hello\x89\x80\0\0\0\0")
            need(link.exactly(9) == b"\x82\x05hello\x8a\x00", "websocket: frames are changed")
        status = world.ask(world.front, "POST", exec_path, [("Connection", "Upgrade"), ("Upgrade", "SPDY/3.1")])[0]
        need(status == 403, "exec of an anonymous caller: %d" % status)
        # As long as one side only listens.
        with world.link(world.front, world.admin, timeout=30) as link:
            link.send(spdy % (exec_path, ""))
            link.answer()
            link.send(b"a")
            need(link.exactly(1) == b"a", "exec")
            time.sleep(75 if args.full else 1)
            link.send(b"b")
            need(link.exactly(1) == b"b", "exec: a session without traffic was ended")
        with world.link(world.front, world.admin) as link:  # a client that goes
            link.send(spdy % (exec_path, ""))
            link.answer()
            before = len(closed())
            link.raw.close()
        need(eventually(lambda: len(closed()) > before), "exec: the client is gone and the upstream does not know")
        report("upgrades", "SPDY and websocket, each side ending first, %d MiB both ways at once (memory +%.1f MiB), idle sessions" % (amount >> 20, grown))


def both_ways(link, amount, sent, got):
    """Writes and reads without ever waiting for only one of them."""
    import select
    block, to_send, to_get, pending = os.urandom(1 << 16), amount, amount, b""
    link.tls.setblocking(False)
    until = time.monotonic() + 120
    while to_get and time.monotonic() < until:
        moved = False
        if to_send:
            try:
                pending = pending or block
                done = link.tls.send(pending)
                sent.update(pending[:done])
                to_send -= done
                pending, moved = pending[done:], True
                if to_send < len(pending) or (not pending and to_send < len(block)):
                    block, pending = block[:to_send], pending[:to_send]
            except (ssl.SSLWantWriteError, ssl.SSLWantReadError):
                pass
        try:
            some = link.tls.recv(1 << 18)
            need(some, "exec: ended with %d bytes to come" % to_get)
            got.update(some)
            to_get -= len(some)
            moved = True
        except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
            pass
        if not moved:
            select.select([link.tls], [link.tls] if to_send else [], [], 1)
    need(to_get == 0, "exec: %d bytes never came back" % to_get)


# ---- from one mode to the other --------------------------------------------------------------------------------------

def part_switch(args):
    rounds, pause = (10, 3.0) if args.full else (2, 1.0)
    with World(args, "observe") as world:
        loads = [Load(world, world.front, "agent%d" % n) for n in range(4)]
        stop, played, failures = threading.Event(), [0], []

        def real_agents():
            number = 0
            while not stop.is_set():
                name, generation = "real-%d" % (number % 6), GENERATIONS[number % 7]
                status, said = join(args.ledger, world.front.port, world.k3s.token, name, world.dir / "agents" / name, generation)
                if status != 0:
                    failures.append("%s %s: %s" % (name, generation, said))
                played[0] += 1
                number += 1

        agents = threading.Thread(target=real_agents)
        for load in loads:
            load.start()
        agents.start()
        waited = []
        for _ in range(rounds):
            for mode in ("enforce", "observe"):
                time.sleep(pause)
                said = world.set_mode(mode)
                waited.append(said["waited_ms"])
        time.sleep(pause)
        stop.set()
        agents.join()
        for load in loads:
            load.stop()
        refused = wrong = 0
        for load in loads:  # who was bound in any of the modes stays bound
            for name in load.admitted[:5]:
                status = world.ask(world.front, "GET", "/v1-k3s/client-kubelet.crt", world.node_headers(name, "another"))[0]
                refused += status == 403
                wrong += status != 403
        seen = {}
        for load in loads:
            for what, count in load.seen.items():
                seen[what] = seen.get(what, 0) + count
        report("switch", "%d changes under load: %s, %d starts of played agents, slowest request %.2f s, a change waited %s ms" %
               (2 * rounds, json.dumps(seen), played[0], max(load.slowest for load in loads), "/".join(str(w) for w in waited)))
        need(set(seen) == {"200"}, "agents saw %s: %s" % (seen, [load.odd[:2] for load in loads if load.odd]))
        need(not failures, "played agents: " + "\n".join(failures[:3]))
        need(wrong == 0, "%d names were given to another password after the changes" % wrong)
        need(world.front.stop() == 0, "the ledger did not stop in order")
        records = world.front.records()
        admitted = {}
        for load in loads:
            for name in load.admitted:
                admitted[name] = admitted.get(name, 0) + 1
        certificates = {}
        for record in records:
            if record["kind"] == "certificate_issued" and record.get("node") in admitted:
                certificates[record["node"]] = certificates.get(record["node"], 0) + 1
        short = {name: (count, certificates.get(name, 0)) for name, count in admitted.items() if certificates.get(name, 0) < count}
        need(not short, "acknowledged and not in the log: %s" % list(short.items())[:5])
        changes = [record for record in records if record["kind"] == "mode_changed"]
        need([c["mode"] for c in changes][-2 * rounds:] == ["enforce", "observe"] * rounds, "mode_changed: %s" % changes)
        mode = "observe"
        for record in records:  # who decides is what the log says at that place
            if record["kind"] == "mode_changed":
                mode = record["mode"]
            elif record["kind"] in ("password_stored", "password_verified"):
                need((record.get("authority") == "upstream") == (mode == "observe"), "in %s: %s" % (mode, record))
        need({c["kind"] for c in records} >= {"password_stored", "password_verified"}, "nothing was decided")
        known = {line.split(",")[1] for line in (world.k3s.dir / "cred/node-passwd").read_text().splitlines()}
        report("switch", "%d certificates acknowledged and recorded; of %d names k3s knows %d" % (sum(admitted.values()), len(admitted), len(known & set(admitted))))


# ----------------------------------------------------------------------------------------------------------------------

PARTS = {"identical": part_identical, "memory": part_memory, "latency": part_latency, "outage": part_outage, "ill": part_ill_upstream, "agents": part_agents, "spoof": part_spoof,
         "smuggling": part_smuggling, "bulk": part_bulk, "watch": part_watch, "upgrades": part_upgrades, "switch": part_switch}


def report(part, text):
    print("  %s: %s" % (part, text), flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ledger")
    parser.add_argument("k3s_like")
    parser.add_argument("--full", action="store_true", default=os.environ.get("LEDGER_UPSTREAM_FULL") == "1")
    parser.add_argument("--only", choices=PARTS, action="append")
    args = parser.parse_args()
    args.ledger, args.k3s_like = os.path.abspath(args.ledger), os.path.abspath(args.k3s_like)
    wrong = []
    watching = None
    pool = concurrent.futures.ThreadPoolExecutor(1)
    names = args.only or list(PARTS)
    if "watch" in names and len(names) > 1 and not args.full:  # mostly waits: beside the others
        watching = pool.submit(part_watch, args)
        names = [name for name in names if name != "watch"]

    def run(name, work):
        began = time.monotonic()
        try:
            work()
            print("ok   %s (%.1f s)" % (name, time.monotonic() - began), flush=True)
        except Exception as error:
            wrong.append(name)
            print("WRONG %s: %s" % (name, error if isinstance(error, Failed) else traceback.format_exc()), flush=True)

    for name in names:
        run(name, lambda: PARTS[name](args))
    if watching:
        run("watch", watching.result)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
