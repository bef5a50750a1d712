#!/usr/bin/env python3
"""An attacker's hour against a real `ledger serve`: what strangers on the network can do, tried.

    tests/attack/attack.py BINARY                   every attack, small (about half a minute; ctest runs this)
    tests/attack/attack.py BINARY --full            as large as this machine allows, for the figures of docs/SECURITY.md
    tests/attack/attack.py BINARY --only smuggling  one of them

During every attack a legitimate agent joins under one new name after the other; each join must succeed. Exit status 1
when anything was not as promised. Python's standard library and openssl(1) only.
"""
import argparse, base64, concurrent.futures, csv, html.parser, http.client, io, json, os, re, resource, select, shutil, signal
import socket, ssl, struct, subprocess, sys, tempfile, threading, time

HOSTILE_NAMES = ["web\x1b[31m-1", "web-1\r\nX: y", "web-1\nfake log line", "=cmd|'/C calc'!A0", "+1+1", "@SUM(1)", "-2+3",
                 "<script>alert(1)</script>", "\"quoted\"", "'; DROP TABLE", "a\x00b", "\u202egnp.exe", "\x9b31m", "../../etc/passwd",
                 "$(reboot)", "`reboot`", "%n%s%x", "{{7*7}}", "x" * 300, "\x7f", "a\tb", "\u2028line", "\ud800".encode("utf-8", "replace").decode()]
FLOOD_S = 60  # of wrong credentials, with --full; --seconds
LIMIT_S = 10  # that a legitimate join may take in the small size, on a machine that builds something else meanwhile


class Failed(Exception):
    pass


def need(condition, what):
    if not condition:
        raise Failed(what)


class Server:
    def __init__(self, binary, options=(), data=None):
        self.binary, self.work = binary, tempfile.mkdtemp(prefix="ledger-attack-")
        self.data = data or os.path.join(self.work, "data")
        self.err = open(os.path.join(self.work, "stderr"), "ab")
        self.process = subprocess.Popen([binary, "serve", "--data-dir", self.data, "--listen", "127.0.0.1", "--https-port", "0", *options],
                                        stdout=subprocess.PIPE, stderr=self.err, text=True)
        line = self.process.stdout.readline()
        found = re.search(r"https://127\.0\.0\.1:(\d+)", line)
        need(found and "ready" in line, "the server did not start: " + self.errors())
        self.port = int(found.group(1))
        self.secret = open(os.path.join(self.data, "token")).read().strip().rsplit(":", 1)[1]
        self.operator = open(os.path.join(self.data, "cred", "operator-token")).read().strip()
        self.context = ssl.create_default_context(cafile=os.path.join(self.data, "tls", "server-ca.crt"))

    def errors(self):
        return open(os.path.join(self.work, "stderr"), errors="replace").read()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        status = self.process.wait(60)
        need(status == 0, f"the server ended with {status}: {self.errors()[-2000:]}")

    def remove(self):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.work, ignore_errors=True)

    def rss_mib(self):
        for line in open(f"/proc/{self.process.pid}/status"):
            if line.startswith("VmRSS"):
                return int(line.split()[1]) / 1024
        return 0.0

    def log_bytes(self):
        return sum(os.path.getsize(os.path.join(root, f)) for root, _, files in os.walk(os.path.join(self.data, "events")) for f in files
                   if os.path.exists(os.path.join(root, f)))

    def records(self):
        return json.loads(self.ask("GET", "/ledger/v1/status", {"Authorization": "Bearer " + self.operator})[1])["head"]

    # ---- speaking to it ----

    def basic(self, secret=None, user="node"):
        return "Basic " + base64.b64encode(f"{user}:{secret or self.secret}".encode("latin1", "replace")).decode()

    def ask(self, method, path, headers=None, body=None, timeout=60, context=None):
        link = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=timeout, context=context or self.context)
        try:
            link.request(method, path, body=body, headers=headers or {})
            reply = link.getresponse()
            return reply.status, reply.read(), reply.headers
        finally:
            link.close()

    def join(self, node, password="pw", purpose="serving-kubelet"):
        return self.ask("GET", f"/v1-k3s/{purpose}.crt", {"Authorization": self.basic(), "K3s-Node-Name": node, "K3s-Node-Password": password,
                                                          "K3s-Node-Ip": "10.0.0.7"})

    def tcp(self, timeout=30):
        return socket.create_connection(("127.0.0.1", self.port), timeout=timeout)

    def tls(self, timeout=30, context=None):
        return (context or self.context).wrap_socket(self.tcp(timeout), server_hostname="127.0.0.1")

    def raw(self, request, timeout=5, context=None):
        """What is answered to these bytes until the server closes, or says nothing for a second."""
        heard = b""
        with self.tls(timeout, context) as link:
            try:
                link.sendall(request)
                link.settimeout(1)
                while chunk := link.recv(65536):
                    heard += chunk
            except (socket.timeout, ConnectionError, ssl.SSLError, OSError):
                pass
        return heard

    def command(self, *words, expect=(0,)):
        done = subprocess.run([self.binary, *words, "--data-dir", self.data], capture_output=True, timeout=120)
        need(done.returncode in expect, f"ledger {' '.join(words)} ended with {done.returncode}: {done.stderr[-500:]!r}")
        return done.stdout


class Agent(threading.Thread):
    """A legitimate agent that joins again and again while the attack goes on."""

    def __init__(self, server, name):
        super().__init__(daemon=True)
        self.server, self.prefix, self.over = server, name, threading.Event()
        self.took, self.wrong = [], []
        self.start()

    def run(self):
        while not self.over.is_set():
            node, began = f"{self.prefix}-{len(self.took)}", time.monotonic()
            try:
                status = self.server.join(node)[0]
                if status != 200:
                    self.wrong.append(f"{node}: {status}")
            except OSError as error:
                self.wrong.append(f"{node}: {error}")
            self.took.append(time.monotonic() - began)
            self.over.wait(0.05)

    def end(self):
        while not self.took and not self.wrong:
            time.sleep(0.05)
        self.over.set()
        self.join(60)
        need(not self.wrong, f"a legitimate agent was kept out: {self.wrong[:3]}")
        need(max(self.took) < LIMIT_S, f"a legitimate join took {max(self.took):.1f} s")
        self.took.sort()
        return f"{len(self.took)} joins, median {self.took[len(self.took) // 2] * 1000:.0f} ms, worst {self.took[-1] * 1000:.0f} ms"


def all_at_once(jobs):
    """Runs callables beside each other; what they return, in order."""
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda job: job(), jobs))


def status_lines(heard):
    return re.findall(rb"^HTTP/1\.[01] (\d{3})", heard, re.M)


# ---- the attacks: each takes the server and `full`, and says what it did ----

def slow_headers(server, full):
    """Headers that come one byte a second, for ever."""
    links = []
    for _ in range(4000 if full else 100):
        link = server.tls()
        link.sendall(b"GET /cacerts HTTP/1.1\r\nHost: x\r\nX-Slow: ")
        links.append(link)
    began, closed = time.monotonic(), 0
    while links and time.monotonic() - began < 30:
        left = []
        for link in links:
            try:
                link.settimeout(0)
                link.sendall(b"a")
                try:
                    if link.recv(100) == b"":
                        raise ConnectionError
                except (ssl.SSLWantReadError, BlockingIOError):
                    pass
                left.append(link)
            except OSError:
                closed += 1
        links = left
        time.sleep(1)
    need(not links, f"{len(links)} slow requests still live after 30 s")
    return f"{closed} slow requests, all cut off within {time.monotonic() - began:.0f} s"


def slow_readers(server, full):
    """Clients that ask for much and read nothing."""
    links, request = [], b"GET /cacerts HTTP/1.1\r\nHost: x\r\n\r\n" * 300
    for _ in range(1000 if full else 40):
        link = server.tcp()
        link.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        link = server.context.wrap_socket(link, server_hostname="127.0.0.1")
        link.settimeout(0)
        try:
            link.sendall(request)
        except (OSError, ssl.SSLWantWriteError):
            pass
        links.append(link)
    time.sleep(40 if full else 2)
    asked = len(links)
    for link in links:
        link.close()
    return f"{asked} clients with 300 requests each, nothing read"


def idle_connections(server, full):
    """More connections than --max-connections, with a finished handshake and then silence; and half handshakes."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    limit = min(10000 if full else 200, hard - 1000)
    small = Server(server.binary, ["--max-connections", str(limit)])
    try:
        links, agent = [], []
        for i in range(limit + limit // 4):
            link = small.tcp()
            if i % 4 == 0:
                link.sendall(b"\x16\x03\x01\x02\x00\x01\x00")
            links.append(link)
            if i == limit // 2:
                agent = Agent(small, "idle")
        began = time.monotonic()
        time.sleep(20 if full else 3)
        said = agent.end()
        need("connections is reached" in small.errors(), "the server does not say that the limit is reached")
        need(small.errors().count("connections is reached") <= 2, "a flood fills the journal")
        rss = small.rss_mib()
        for link in links:
            link.close()
        small.stop()
        return f"{len(links)} silent connections for {time.monotonic() - began:.0f} s at --max-connections {limit}: {said}; {rss:.0f} MiB"
    finally:
        small.remove()


def huge(server, full):
    """Headers of 1 MB, bodies of 10 MB, said and chunked."""
    times = 200 if full else 6
    for _ in range(times):
        heard = server.raw(b"GET /cacerts HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 1_000_000 + b"\r\n\r\n")
        need(status_lines(heard) in ([b"431"], []), f"a huge header: {heard[:60]!r}")
        head = b"POST /v1-k3s/client-kubelet.crt HTTP/1.1\r\nHost: x\r\n"
        heard = server.raw(head + b"Content-Length: 10000000\r\n\r\n" + b"a" * 1_000_000)
        need(status_lines(heard) in ([b"413"], []), f"a huge body: {heard[:60]!r}")
        heard = server.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + (b"10000\r\n" + b"a" * 65536 + b"\r\n") * 20)
        need(status_lines(heard) in ([b"413"], []), f"a huge chunked body: {heard[:60]!r}")
        heard = server.raw(b"GET /cacerts HTTP/1.1\r\nHost: x\r\n" + b"".join(b"X-%d: y\r\n" % i for i in range(5000)) + b"\r\n")
        need(status_lines(heard) in ([b"431"], []), f"5000 headers: {heard[:60]!r}")
    return f"{4 * times} requests of 1 to 10 MB: 431 and 413"


AFTER = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST /ping HTTP/1.1\r\nHost: x\r\n"
# What, the bytes, the replies that are allowed.
SHAPES = [
    ("CL and TE", POST + b"Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("TE and CL", POST + b"Transfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("two lengths", POST + b"Content-Length: 0\r\nContent-Length: 40\r\n\r\n" + AFTER, [[b"400"]]),
    ("a list of lengths", POST + b"Content-Length: 0, 40\r\n\r\n" + AFTER, [[b"400"]]),
    ("length +0", POST + b"Content-Length: +0\r\n\r\n" + AFTER, [[b"400"]]),
    ("length 0x0", POST + b"Content-Length: 0x0\r\n\r\n" + AFTER, [[b"400"]]),
    ("length -1", POST + b"Content-Length: -1\r\n\r\n" + AFTER, [[b"400"]]),
    ("length over 64 bits", POST + b"Content-Length: 18446744073709551616\r\n\r\n" + AFTER, [[b"400"], [b"413"]]),
    ("TE identity", POST + b"Transfer-Encoding: identity\r\n\r\n" + AFTER, [[b"400"]]),
    ("TE chunked, identity", POST + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("TE xchunked", POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("TE twice", POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("TE with a space before the colon", POST + b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("TE with a vertical tab", POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("a folded TE", POST + b"X: y\r\n Transfer-Encoding: chunked\r\n\r\n" + AFTER, [[b"400"], [b"405", b"404"]]),
    ("bare LF", POST.replace(b"\r\n", b"\n") + b"Content-Length: 0\n\n" + AFTER, [[b"400"]]),
    ("bare CR in a value", POST + b"X: a\rTransfer-Encoding: chunked\r\n\r\n" + AFTER, [[b"400"]]),
    ("NUL in a value", POST + b"X: a\0b\r\n\r\n" + AFTER, [[b"400"]]),
    ("NUL in a name", POST + b"X\0: a\r\n\r\n" + AFTER, [[b"400"]]),
    ("space in a name", POST + b"X Y: a\r\n\r\n" + AFTER, [[b"400"]]),
    ("no name", POST + b": a\r\n\r\n" + AFTER, [[b"400"]]),
    ("chunk size over 64 bits", POST + b"Transfer-Encoding: chunked\r\n\r\n10000000000000000\r\n" + AFTER, [[b"400"], [b"413"]]),
    ("chunk size 0x0", POST + b"Transfer-Encoding: chunked\r\n\r\n0x0\r\n\r\n" + AFTER, [[b"400"]]),
    ("chunk size -1", POST + b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n" + AFTER, [[b"400"]]),
    ("chunk extension with a bare LF", POST + b"Transfer-Encoding: chunked\r\n\r\n1;a\nb\r\nx\r\n0\r\n\r\n" + AFTER, [[b"400"], [b"405", b"404"]]),
    ("chunk data without its CRLF", POST + b"Transfer-Encoding: chunked\r\n\r\n1\r\nxx\r\n0\r\n\r\n" + AFTER, [[b"400"]]),
    ("a body under GET", b"GET /ping HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(AFTER) + AFTER, [[b"200"]]),
    ("HTTP/1.0 with chunks", POST.replace(b"1.1", b"1.0") + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + AFTER, [[b"400"], [b"405"]]),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", [[b"400"]]),
    ("HTTP/0.9", b"GET /ping\r\n\r\n", [[b"400"]]),
    ("HTTP/1.1 with a space more", b"GET  /ping HTTP/1.1\r\nHost: x\r\n\r\n", [[b"400"], [b"404"]]),
    ("a tab as separator", b"GET\t/ping HTTP/1.1\r\nHost: x\r\n\r\n", [[b"400"]]),
    ("garbage", bytes(range(256)) * 4, [[b"400"]]),
    ("CONNECT", b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: x\r\n\r\n", [[b"405"], [b"400"]]),
    ("TRACE", b"TRACE /ping HTTP/1.1\r\nHost: x\r\nX-Secret: y\r\n\r\n", [[b"405"]]),
    ("absolute form", b"GET https://elsewhere/ping HTTP/1.1\r\nHost: x\r\n\r\n", [[b"404"]]),
    ("asterisk form", b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n", [[b"405"]]),
    ("a PROXY header inside TLS", b"PROXY TCP4 10.9.9.9 10.0.0.1 1 2\r\nGET /ping HTTP/1.1\r\n\r\n", [[b"400"]]),
]


def smuggling(server, full):
    """Requests whose end two readers could see in two places, each with a second request behind it."""
    wrong = []
    heard_all = all_at_once([lambda sent=sent: server.raw(sent) for _, sent, _ in SHAPES])
    for (what, _, allowed), heard in zip(SHAPES, heard_all):
        if status_lines(heard) not in allowed:
            wrong.append(f"{what}: {heard[:80]!r} has {status_lines(heard)}")
    need(not wrong, "; ".join(wrong))
    return f"{len(SHAPES)} shapes: none has a second request answered that one reader does not see"


def pipelining(server, full):
    """Thousands of requests in one breath."""
    many = 20000 if full else 2000
    asked, sent, heard = memoryview(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * many), 0, 0
    # One thread: a TLS connection is not to be read and written at the same time by two.
    with server.tls(60) as link:
        link.setblocking(False)
        began = heard_at = time.monotonic()
        while heard < many:
            need(time.monotonic() - heard_at < 60, f"silent after {heard} replies")
            try:
                if sent < len(asked):
                    sent += link.send(asked[sent:sent + 65536])
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                pass
            try:
                chunk = link.recv(1 << 20)
                need(chunk, f"closed after {heard} replies")
                heard, heard_at = heard + chunk.count(b"HTTP/1.1 200"), time.monotonic()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):
                select.select([link], [link] if sent < len(asked) else [], [], 1)
    return f"{heard} replies in order, {many / (time.monotonic() - began):.0f}/s on one connection"


def tls_tricks(server, full):
    """Renegotiation, early data, tickets, old versions, weak ciphers, a PROXY header of somebody who is no proxy."""
    at = ["openssl", "s_client", "-connect", f"127.0.0.1:{server.port}", "-CAfile", os.path.join(server.data, "tls", "server-ca.crt")]

    def said(words, talk=b"Q\n"):
        done = subprocess.run(at + words, input=talk, capture_output=True, timeout=60)
        return (done.stdout + done.stderr).decode(errors="replace")

    out = subprocess.run(["sh", "-c", "(sleep 0.5; echo R; sleep 1) | \"$@\"", "sh", *at, "-tls1_2"], capture_output=True, timeout=60)
    out = (out.stdout + out.stderr).decode(errors="replace")
    need("RENEGOTIATING" in out and ("no renegotiation" in out or "no_renegotiation" in out), "renegotiation: " + out[-300:])
    session, early = os.path.join(server.work, "session"), os.path.join(server.work, "early")
    with open(early, "wb") as file:
        file.write(b"GET /cacerts HTTP/1.1\r\nHost: x\r\n\r\n")
    out = said(["-tls1_3", "-sess_out", session], b"GET /ping HTTP/1.0\r\n\r\n")
    need("New Session Ticket" not in out and not os.path.exists(session), "a ticket was given out")
    need("Early data was not sent" in out or "Max Early Data: 0" in out or "Early data" not in out, "early data: " + out[-300:])
    # The client is made to offer what it would not: the refusal is the server's alert.
    weak = "@SECLEVEL=0"
    for words in (["-tls1", "-cipher", "DEFAULT:" + weak], ["-tls1_1", "-cipher", "DEFAULT:" + weak], ["-tls1_2", "-cipher", "aNULL:" + weak],
                  ["-tls1_2", "-cipher", "eNULL:" + weak], ["-tls1_2", "-cipher", "PSK:" + weak, "-psk", "00"]):
        out = said(words)
        need("Cipher is (NONE)" in out and " alert " in out, f"{words}: {out[-400:]}")
    need("Cipher is ECDHE" in said(["-tls1_2"]) or "Cipher is TLS" in said(["-tls1_3"]), "nobody is let in")
    before = server.records()
    with server.tcp() as link:
        link.sendall(b"PROXY TCP4 10.66.66.66 10.0.0.1 1234 6443\r\n")
        try:
            while link.recv(100):
                pass
        except ConnectionError:
            pass
    with server.tcp() as link:
        link.sendall(b"GET /cacerts HTTP/1.1\r\n\r\n")
        heard = link.recv(1000)
        need(b"BEGIN" not in heard, "plain HTTP is answered")
    need(server.records() >= before, "no records")
    need(b"10.66.66.66" not in server.command("export"), "a PROXY header of a stranger was believed")
    return "no renegotiation, no tickets, so no early data; TLS 1.0, 1.1, anonymous, NULL and PSK ciphers refused; a stranger's PROXY header is no handshake"


def bad_tokens(server, full):
    """As many wrong credentials as the time gives, each with another node's name, on connections that stay open."""
    seconds, threads, counts = (FLOOD_S, 16, []) if full else (3, 2, [])
    refusals = lambda: server.command("export", "--kind", "token_rejected").count(b"\n")
    records, size, refused = server.records(), server.log_bytes(), refusals()
    over = time.monotonic() + seconds

    def flood(number):
        done, link = 0, server.tls()
        file = link.makefile("rb")
        while time.monotonic() < over:
            batch = b"".join(b"GET /v1-k3s/serving-kubelet.crt HTTP/1.1\r\nHost: x\r\nK3s-Node-Name: n-%d-%d\r\nAuthorization: %s\r\n\r\n"
                             % (number, done + i, server.basic(f"guess{number}.{done + i}", ("node", "server", "root\n")[i % 3]).encode()) for i in range(50))
            link.sendall(batch)
            for _ in range(50):
                status, length = file.readline(), 0
                need(b" 401 " in status, f"a bad token: {status!r}")
                while (line := file.readline()) != b"\r\n":
                    if line.lower().startswith(b"content-length:"):
                        length = int(line[15:])
                file.read(length)
            done += 50
        counts.append(done)

    workers = [threading.Thread(target=flood, args=(i,), daemon=True) for i in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(seconds + 60)
    need(len(counts) == threads, "a flood was not answered with 401")
    total, written, grown = sum(counts), server.records() - records, server.log_bytes() - size
    # EVENTS.md, "Storms", 7: 2,000 windows at once and 2 per second, and counts where they close.
    refused = refusals() - refused
    bound = 2000 + 2 * (time.monotonic() - over + seconds) + 100
    need(refused < bound, f"{total} bad tokens wrote {refused} records, over {bound}")
    return f"{total} wrong credentials in {seconds} s ({total / seconds:.0f}/s): {refused} records of them ({written} with the joins), {grown / 1024:.0f} KiB of log, {grown / max(total, 1):.1f} bytes each"


class Page(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.tags = set()

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        need(not any(name.startswith("on") or (value or "").lower().startswith("javascript:") for name, value in attributes), "an active attribute")


def clean(what, data):
    text = data.decode("utf-8")
    bad = re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]", text)
    need(not bad, f"{what} holds the control character {bad and bad.group()!r} in {bad and text[max(0, bad.start() - 60):bad.end() + 20]!r}")


def hostile_names(server, full):
    """Names, users, tokens, addresses and certificates with newlines, NULs, escapes, markup and formulas, in every output."""
    key, cert = os.path.join(server.work, "own.key"), os.path.join(server.work, "own.crt")
    jobs = []
    for i, name in enumerate(HOSTILE_NAMES):
        wire = name.encode("utf-8", "replace")
        head = b"GET /v1-k3s/serving-kubelet.crt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
        for j, line in enumerate((b"K3s-Node-Name: " + wire, b"K3s-Node-Name: web-1\r\nK3s-Node-Ip: " + wire, b"K3s-Node-Name: web-1\r\nUser-Agent: " + wire)):
            for k, authorization in enumerate((server.basic(), "Basic " + base64.b64encode(wire + b":" + wire).decode(), "Bearer " + name)):
                if not full and k != (i + j) % 3:
                    continue
                sent = head + b"Authorization: " + authorization.encode("utf-8", "replace") + b"\r\nK3s-Node-Password: " + wire + b"\r\n" + line + b"\r\n\r\n"
                jobs.append(lambda sent=sent: server.raw(sent, 3))
        jobs.append(lambda wire=wire: server.raw(b"GET /" + wire.replace(b"\r\n", b"") + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 3))
        if i % (1 if full else 6) == 0 and "\0" not in name:
            subject = "/CN=system:node:" + name.replace("\\", "\\\\").replace("/", "\\/").replace("+", "\\+")[:60] + "/O=system:nodes"
            made = subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-utf8", "-keyout", key,
                                   "-out", cert, "-subj", subject, "-days", "1"], capture_output=True)
            if made.returncode == 0:
                context = ssl.create_default_context(cafile=os.path.join(server.data, "tls", "server-ca.crt"))
                context.load_cert_chain(cert, key)
                server.raw(head + b"\r\n", 3, context)
    for heard in all_at_once(jobs):
        clean("a reply", re.sub(rb"\r\n", b"\n", heard))
    # What operators and other servers' files bring: their words are kept.
    bearer = {"Authorization": "Bearer " + server.operator}
    for i, name in enumerate(HOSTILE_NAMES):
        said = {"actor": name, "reason": name, "description": name, "class": "bootstrap", "ttl": "1h"}
        for path, body in ((f"nodes/held-{i}/hold", said), ("tokens", said),
                           ("node-objects", {"actor": name, "release": False, "changes": [{"node": f"web-{i}", "uid": name, "change": "created", "note": name}]})):
            status, reply, _ = server.ask("POST", "/ledger/v1/" + path, bearer, json.dumps(body))
            need(status in (200, 400), f"{path} with {name!r}: {status} {reply[:200]!r}")
        clean("ledger node show", server.command("node", "show", f"held-{i}", expect=(0, 1)))
    hostile = os.path.join(server.work, "hostile.jsonl")
    with open(hostile, "w") as file:
        for i, line in enumerate(server.command("export").decode().splitlines()):
            record, name = json.loads(line), HOSTILE_NAMES[i % len(HOSTILE_NAMES)]
            record.update({field: name for field in ("note", "source", "endpoint", "request_id", "server", "actor", "reason", "via", "generation")})
            record["auth"] = {"method": name, "principal": name, "token": name, "serial": name}
            record["claimed"] = [name]
            record["node"] = "web-1" if i % 2 else name
            file.write(json.dumps(record) + "\n")

    def of_file(*words):
        done = subprocess.run([server.binary, *words, "--input", hostile], capture_output=True, timeout=120)
        need(done.returncode in (0, 1), f"ledger {' '.join(words)} --input ended with {done.returncode}: {done.stderr[-300:]!r}")
        clean("standard error of ledger " + words[0], done.stderr)
        return done.stdout

    looked = 0
    for words in (["replay", "--node", "web-1"], ["diff", "--from", "1"], ["whatif", "--accept-same-address"], ["export", "--format", "csv"], ["export", "--format", "cef"],
                  ["export", "--format", "syslog"], ["export", "--format", "ecs"]):
        said = of_file(*words)
        clean("ledger " + " ".join(words) + " --input", said.replace(b"\r\n", b"\n"))
        if "csv" in words:
            for row in csv.reader(io.StringIO(said.decode())):
                need(not any(cell[:1] in tuple("=+-@\t\r") and cell[1:] for cell in row), f"a formula: {row}")
        looked += 1
    page = Page()
    page.feed(of_file("replay", "--node", "web-1", "--format", "html").decode())
    need("script" not in page.tags and "iframe" not in page.tags, "the page has a script")
    for words in (["replay", "--node", "web-1"], ["triage"], ["diff", "--from", "1h"], ["node", "list"], ["token", "list"], ["verify"],
                  ["export", "--format", "csv"], ["export", "--format", "jsonl"], ["export", "--format", "cef"], ["export", "--format", "syslog"],
                  ["export", "--format", "ocsf"], ["export", "--format", "ecs"], ["export", "--format", "k8s-audit"], ["export", "--format", "cloudevents"]):
        said = server.command(*words, expect=(0, 1))
        clean("ledger " + " ".join(words), said.replace(b"\r\n", b"\n"))
        looked += 1
        if "csv" in words:
            for row in csv.reader(io.StringIO(said.decode())):
                need(not any(cell[:1] in tuple("=+-@\t\r") and cell[1:] for cell in row), f"a formula: {row}")
        if words[-1] in ("jsonl", "ocsf", "ecs", "k8s-audit", "cloudevents"):
            for line in said.splitlines():
                json.loads(line)
    page = Page()
    said = server.command("replay", "--node", "web-1", "--format", "html", expect=(0, 1))
    page.feed(said.decode())
    need("script" not in page.tags and "iframe" not in page.tags, "the page has a script")
    json.loads(server.command("replay", "--node", "web-1", "--format", "json", expect=(0, 1)))
    clean("standard error", server.errors().encode())
    return f"{len(HOSTILE_NAMES)} names wherever a stranger, an operator or a file can write one: {looked + 3} outputs and standard error hold no control character, formula or script"


def certificate_requests(server, full):
    """Certificate requests that are large, deep, odd, or expensive to check."""
    def openssl(*words):
        path = os.path.join(server.work, "bomb")
        made = subprocess.run(["openssl", *words, "-out", path], capture_output=True, timeout=300)
        need(made.returncode == 0, f"openssl {words}: {made.stderr[-200:]!r}")
        return open(path, "rb").read()

    def request(kind, *options, subject="/CN=x", more=()):
        key = os.path.join(server.work, "bomb.key")
        openssl_key = subprocess.run(["openssl", "genpkey", *kind, "-out", key], capture_output=True, timeout=300)
        need(openssl_key.returncode == 0, f"openssl genpkey {kind}: {openssl_key.stderr[-200:]!r}")
        return openssl("req", "-new", "-key", key, "-subj", subject, "-outform", "DER", *options, *more)

    ec = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"]
    names = "subjectAltName=" + ",".join(f"DNS:n{i}.example" for i in range(700))
    good = request(ec)
    bombs = {
        "10 MB": (b"\x30\x84\x00\x98\x96\x80" + b"\0" * 200_000, (413,)),
        "16 KiB of nested sequences": (b"".join(b"\x30\x82" + struct.pack(">H", 16000 - 4 * i) for i in range(4000))[:16000], (400,)),
        "indefinite lengths": (b"\x30\x80" * 8000, (400,)),
        "a length of 2^63": (b"\x30\x88\x7f" + b"\xff" * 7 + b"\0" * 100, (400,)),
        "700 names": (request(ec, "-addext", names), (400, 200)),
        "a subject of 9 KB": (request(ec, subject="".join(f"/OU={'u' * 60}{i}" for i in range(120)) + "/CN=x"), (200, 400)),
        "P-521": (request(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-521"]), (400,)),
        "brainpool": (request(["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:brainpoolP256r1"]), (400,)),
        "explicit parameters": (request([*ec, "-pkeyopt", "ec_param_enc:explicit"]), (400,)),
        "Ed448": (request(["-algorithm", "ED448"]), (400,)),
        "RSA 1024": (request(["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:1024"]), (400,)),
        "RSA 2048, e=1": (b"", (400,)),
        "a broken signature": (good[:-1] + bytes([good[-1] ^ 1]), (400,)),
        "trailing bytes": (good + b"\0", (400,)),
        "PEM": (openssl("req", "-in", os.path.join(server.work, "bomb"), "-inform", "DER"), (400,)),
        "every byte": (bytes(range(256)) * 40, (400,)),
    }
    # A key of 16384 bits takes a minute to make; its public half does not need to be one. The signature is never looked at.
    modulus = b"\0\xc1" + os.urandom(2046) + b"\x01"
    tlv = lambda tag, body: bytes([tag]) + (bytes([len(body)]) if len(body) < 128 else b"\x82" + struct.pack(">H", len(body))) + body
    for name, exponent in (("RSA 16384", b"\x01\0\x01"), ("RSA 16384 with a huge exponent", modulus)):
        key = tlv(0x30, tlv(0x30, bytes.fromhex("06092a864886f70d0101010500")) + tlv(3, b"\0" + tlv(0x30, tlv(2, modulus) + tlv(2, exponent))))
        info = tlv(0x30, tlv(2, b"\0") + tlv(0x30, b"") + key + b"\xa0\0")
        bombs[name] = (tlv(0x30, info + tlv(0x30, bytes.fromhex("06092a864886f70d01010b0500")) + tlv(3, b"\0" + os.urandom(2048))), (400,))
    del bombs["RSA 2048, e=1"]
    worst, asked = 0.0, 0
    for round_ in range(50 if full else 2):
        for name, (body, allowed) in bombs.items():
            began = time.monotonic()
            try:
                status = server.ask("POST", "/v1-k3s/client-kubelet.crt", {"Authorization": server.basic(), "K3s-Node-Name": f"csr-{round_}",
                                                                          "K3s-Node-Password": "pw", "K3s-Node-Ip": "10.0.0.7"}, body)[0]
            except (BrokenPipeError, ConnectionResetError, ssl.SSLError):
                status = 413  # closed while the body was on its way
            took = time.monotonic() - began
            need(status in allowed, f"{name}: {status}")
            worst, asked = max(worst, took), asked + 1
    return f"{len(bombs)} shapes, {asked} requests with a valid token; the slowest answer took {worst * 1000:.0f} ms"


def paths(server, full):
    """Every GET path with dots, encoded slashes, NULs and numbers that overflow."""
    secrets = [server.secret.encode(), server.operator.encode(), b"PRIVATE KEY", b"root:"]
    roots = ["", "/v1-k3s", "/ledger/v1", "/ledger/v1/tile", "/ledger/v1/tile/0", "/ledger/v1/tile/entries", "/ledger/v1/nodes", "/api/v1", "/cacerts", "/v1-k3s/config"]
    tails = ["/../token", "/../../cred/passwd", "/..%2f..%2fcred%2fpasswd", "/%2e%2e/%2e%2e/token", "/....//token", "/..\\..\\token", "//etc/passwd",
             "/%00", "/x%00.crt", "/.", "/..", "/?../../token", "/#", ";/../token", "/tls/client-ca.key", "/cred/checkpoint.key", "/checkpoints/all",
             "/0/999999999999999999999", "/0/x999/x999/x999/x999/x999/999", "/7/000", "/8/000", "/63/000", "/-1/000", "/0/000.p/0", "/0/000.p/256", "/0/000.p/257",
             "/0/000.p/-1", "/00/000", "/0/000.p/1/2", "/0/%30%30%30", "/" + "a" * 8000, "/" + "../" * 1000]
    asked = 0
    heard_all = iter(all_at_once([lambda path=root + tail: server.raw(b"GET " + path.encode() + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 5)
                                  for root in roots for tail in tails]))
    for root in roots:
        for tail in tails:
            heard = next(heard_all)
            statuses = status_lines(heard)
            need(len(statuses) == 1 and statuses[0] in (b"400", b"401", b"404", b"405", b"431") or root + tail in ("/ledger/v1/tile/7/000",) or
                 (statuses == [b"200"] and "?" in tail and root in ("/cacerts",)) or (statuses == [b"200"] and "#" in tail),
                 f"{root}{tail[:60]}: {heard[:80]!r}")
            need(not any(secret in heard for secret in secrets), f"{root}{tail[:60]} shows a secret")
            asked += 1
    return f"{asked} paths: nothing but 400, 401, 404, 405, 431, and no secret"


def frame(opcode, payload=b"", fin=True, masked=True, length=None):
    size = len(payload) if length is None else length
    head = bytes([(0x80 if fin else 0) | opcode])
    flag = 0x80 if masked else 0
    head += bytes([flag | size]) if size < 126 else bytes([flag | 126]) + struct.pack(">H", size) if size < 65536 else bytes([flag | 127]) + struct.pack(">Q", size)
    mask = b"\x01\x02\x03\x04" if masked else b""
    return head + mask + (bytes(b ^ mask[i % 4] for i, b in enumerate(payload)) if masked else payload)


def tunnels(server, full):
    """A node's own certificate, and then a tunnel that does not keep to its protocol."""
    status, body, _ = server.join("tunnel-1", purpose="client-kubelet")
    need(status == 200, f"joining: {status}")
    pem = os.path.join(server.work, "kubelet.pem")
    blocks = re.findall(rb"-----BEGIN ([A-Z ]+)-----.*?-----END \1-----\n", body, re.S)
    with open(pem, "wb") as file:
        file.write(body)
    context = ssl.create_default_context(cafile=os.path.join(server.data, "tls", "server-ca.crt"))
    context.load_cert_chain(pem)
    upgrade = (b"GET /v1-k3s/connect HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
               b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nX-K3s-NodeName: tunnel-1\r\n\r\n")
    abuses = {
        "unmasked": frame(2, b"hello", masked=False), "a length of 2^63 - 1": frame(2, b"", length=2**63 - 1), "a length of 2^40": frame(2, b"x" * 100, length=2**40),
        "reserved bits": b"\xf2" + frame(2, b"x")[1:], "a reserved opcode": frame(7, b"x"), "a fragmented ping": frame(9, b"x", fin=False),
        "a ping of 200 bytes": frame(9, b"x" * 200), "a continuation of nothing": frame(0, b"x"), "text": frame(1, b"hello"),
        "not the tunnel's protocol": frame(2, b"\xff" * 50), "100,000 empty messages": frame(2) * 1000, "endless fragments": frame(2, b"x" * 60000, fin=False) + frame(0, b"x" * 60000, fin=False) * 20,
        "10,000 pings": frame(9, b"x") * 10000, "invalid close": frame(8, b"\x00"),
    }
    ended = []

    def abuse(name, bytes_):
        with server.tls(20, context) as link:
            link.sendall(upgrade)
            heard = b""
            while b"\r\n\r\n" not in heard:
                chunk = link.recv(4096)
                need(chunk, f"the tunnel was not opened: {heard!r}")
                heard += chunk
            need(heard.startswith(b"HTTP/1.1 101"), f"the tunnel was not opened: {heard[:100]!r}")
            try:
                link.sendall(bytes_)
                link.settimeout(2 if "ping" in name or "2^40" in name else 15)
                while link.recv(65536):
                    pass
                ended.append(name)
            except socket.timeout:
                need("ping" in name or "length of 2^40" in name, f"{name}: the tunnel lives on")
            except OSError:
                ended.append(name)

    for _ in range(20 if full else 1):
        all_at_once([lambda name=name, bytes_=bytes_: abuse(name, bytes_) for name, bytes_ in abuses.items()])
    return f"{len(abuses)} abuses, {len(ended)} sessions ended by the server" + ("" if blocks else "")


def symlinks(server, full):
    """Links in the data directory, put there by whoever could: read through, never written through."""
    data = os.path.join(server.work, "links")
    victim = os.path.join(server.work, "victim")
    with open(victim, "w") as file:
        file.write("precious\n")
    os.chmod(victim, 0o644)

    def start(options=()):
        one = Server(server.binary, options, data)
        one.join("web-1")
        return one

    def refused(words):
        done = subprocess.run([server.binary, "serve", "--data-dir", data, "--listen", "127.0.0.1", "--https-port", "0"], capture_output=True, text=True, timeout=60)
        need(done.returncode == 1 and words in done.stderr, f"started, or without '{words}': {done.returncode} {done.stderr}")

    start().stop()
    # Whole directories elsewhere: followed, an operator may want that.
    for name in ("tls", "events"):
        shutil.move(os.path.join(data, name), os.path.join(server.work, "moved-" + name))
        os.symlink(os.path.join(server.work, "moved-" + name), os.path.join(data, name))
    one = start()
    need(one.join("web-1")[0] == 200 and one.join("web-1", "other")[0] == 403, "the log behind a link is not the log")
    one.stop()
    # Files that the server writes: the link goes, what it points to stays as it is.
    for name in ("token", "agent-token", "server.json", "checkpoints/latest", "cred/checkpoint.pub", "token.tmp", "server.json.tmp"):
        path = os.path.join(data, name)
        if os.path.lexists(path):
            os.rename(path, path + ".before")
        os.symlink(victim, path)
        try:
            one = start(["--checkpoint-every-records", "1"])
            one.join("web-2")
            one.stop()
        except Failed as error:
            need("precious" in open(victim).read() and name == "token", f"{name}: {error}")
            os.unlink(path)
        need(open(victim).read() == "precious\n", f"{name}: what the link points to was written")
        if os.path.exists(path + ".before"):
            os.replace(path + ".before", path)
    # Files that are appended to are not opened through a link.
    path = os.path.join(data, "checkpoints", "all")
    os.rename(path, path + ".before")
    os.symlink(victim, path)
    one = start(["--checkpoint-every-records", "1"])
    time.sleep(2.5)
    one.stop()
    need(open(victim).read() == "precious\n", "a checkpoint was written through a link")
    need("checkpoint" in one.errors(), "nothing is said about the checkpoint that cannot be written")
    os.replace(path + ".before", path)
    # What is no file is not waited for.
    for name in ("cred/fingerprint.key", "cred/passwd", "tls/server-ca.crt", "cred/checkpoint.key", "cred/node-password-hashes"):
        path, before = os.path.join(data, name), os.path.exists(os.path.join(data, name))
        if before:
            os.rename(path, path + ".before")
        for make in (lambda: os.symlink("/dev/zero", path), lambda: os.mkfifo(path), lambda: os.mkdir(path), lambda: os.symlink(path, path)):
            make()
            refused(os.path.basename(name))
            os.rmdir(path) if os.path.isdir(path) and not os.path.islink(path) else os.unlink(path)
        if before:
            os.rename(path + ".before", path)
    one = start()
    need(one.join("web-1")[0] == 200, "not as before")
    one.stop()
    os.chmod(data, 0o777)
    one = start()
    need("written by others" in one.errors() or "can be written" in one.errors(), "nothing is said of a directory that everybody may write")
    one.stop()
    return "directories are followed; of 8 links to a file that would be written none was written through; 20 devices, FIFOs, directories and loops refused by name"


ATTACKS = [slow_headers, idle_connections, symlinks, hostile_names, slow_readers, huge, smuggling, pipelining, tls_tricks, bad_tokens, certificate_requests, paths, tunnels]
# For deadlines and restarts: in the small size the others go on meanwhile.
WAIT_MUCH = [slow_headers, idle_connections, symlinks]


def run(attack, server, full):
    before, began = server.rss_mib(), time.monotonic()
    agent = Agent(server, attack.__name__.replace("_", "-"))
    try:
        did = attack(server, full)
        joined = agent.end()
        need(server.process.poll() is None, "the server ended: " + server.errors()[-1000:])
        print(f"{attack.__name__}: {did}; {joined}; memory {before:.0f} -> {server.rss_mib():.0f} MiB; {time.monotonic() - began:.0f} s", flush=True)
        return True
    except (Failed, OSError, subprocess.SubprocessError) as error:
        agent.over.set()
        print(f"{attack.__name__}: FAILED: {type(error).__name__} {error}", flush=True)
        return False


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("binary")
    parser.add_argument("--full", action="store_true")
    parser.add_argument("--only", choices=[a.__name__ for a in ATTACKS])
    parser.add_argument("--seconds", type=int, default=FLOOD_S, help="of wrong credentials, with --full (default %(default)s)")
    arguments = parser.parse_args()
    globals()["FLOOD_S"] = arguments.seconds
    server, failed, waiting = Server(os.path.abspath(arguments.binary)), [], []
    try:
        for attack in ATTACKS:
            if arguments.only and attack.__name__ != arguments.only:
                continue
            if attack in WAIT_MUCH and not arguments.full and not arguments.only:
                waiting.append(threading.Thread(target=lambda one=attack: failed.append(1) if not run(one, server, False) else None))
                waiting[-1].start()
            elif not run(attack, server, arguments.full):
                failed.append(1)
        for attack in waiting:
            attack.join()
        server.stop()
        said = server.command("verify").decode()
        print("afterwards: " + said.strip().splitlines()[0])
        print("standard error: %d lines" % server.errors().count("\n"))
    except Failed as error:
        failed.append(1)
        print(f"FAILED: {error}")
    finally:
        server.remove()
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
