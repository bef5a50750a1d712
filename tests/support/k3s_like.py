"""A k3s-like server as a process with its own directory, the ledger in front of it, and played agents. Standard library only."""
import base64
import json
import os
import pathlib
import re
import signal
import socket
import ssl
import subprocess
import time


def eventually(ready, seconds=30):
    until = time.monotonic() + seconds
    while not ready():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def basic(user, password):
    return "Basic " + base64.b64encode(("%s:%s" % (user, password)).encode()).decode()


class K3sLike:
    """`k3s-like` on a directory made for it; killed and started again on the same port."""

    def __init__(self, binary, directory, generation="G7", init=(), **options):
        self.binary, self.dir, self.generation = binary, pathlib.Path(directory) / "server", generation
        self.log_file, self.port, self.options = pathlib.Path(directory) / "requests.log", 0, options
        subprocess.run([binary, "init", "--dir", str(self.dir), *init], check=True)
        self.token = self.dir / "node-token"
        self.authorization = basic("node", self.token.read_text().strip().rsplit(":", 1)[1])
        self.start()

    def start(self):
        command = [self.binary, "serve", "--dir", str(self.dir), "--port", str(self.port), "--generation", self.generation, "--log",
                   str(self.log_file)]
        for name, value in self.options.items():
            command += ["--" + name.replace("_", "-"), str(value)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE)
        said = self.process.stdout.readline().decode()
        assert said.startswith("ready "), "k3s-like did not start: " + said
        self.port = int(said.split()[1])

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        self.process.wait()
        self.process.stdout.close()

    def control(self, **what):
        """Spoils it on purpose: tools/k3s_like/server.h. Nothing: it is as it was."""
        path = self.dir / "control.json"
        fresh = path.with_suffix(".tmp")
        fresh.write_text(json.dumps(what))
        fresh.replace(path)

    def events(self, kind="request"):
        if not self.log_file.exists():
            return []
        lines = [json.loads(line) for line in self.log_file.read_text(errors="replace").splitlines()]
        return [line for line in lines if line["event"] == kind]

    def issue(self, name, cn, org=(), ca="client-ca", **more):
        """A client certificate: (certificate, key)."""
        out = self.dir.parent / name
        command = [self.binary, "issue", "--dir", str(self.dir), "--ca", ca, "--cn", cn, "--out", str(out)]
        for one in org:
            command += ["--org", one]
        for key, value in more.items():
            command += ["--" + key.rstrip("_"), str(value)]
        subprocess.run(command, check=True)
        return str(out) + ".crt", str(out) + ".key"

    def client(self, certificate=None):
        context = ssl.create_default_context(cafile=str(self.dir / "tls/server-ca.crt"))
        if certificate:
            context.load_cert_chain(*certificate)
        return context

    def tls(self, name):
        return str(self.dir / "tls" / (name + ".crt")), str(self.dir / "tls" / (name + ".key"))


class Front:
    """`ledger serve --upstream` on the adopted directory of a k3s-like server."""

    def __init__(self, binary, directory, upstream, mode="observe", options=()):
        self.binary, self.data, self.port, self.upstream = binary, pathlib.Path(directory) / "data", 0, upstream
        self.errors = pathlib.Path(directory) / "ledger.err"
        adopted = subprocess.run([binary, "adopt", "--k3s-server-dir", str(upstream.dir), "--data-dir", str(self.data)],
                                 capture_output=True, text=True)
        assert adopted.returncode == 0, adopted.stdout + adopted.stderr
        self.options = ["--upstream", "https://127.0.0.1:%d" % upstream.port, *options]
        self.start(mode)

    def start(self, mode=None):
        command = [self.binary, "serve", "--data-dir", str(self.data), "--listen", "127.0.0.1", "--https-port", str(self.port),
                   "--min-free-bytes", "0", "--log-level", "warn", *self.options] + (["--mode", mode] if mode else [])
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=open(self.errors, "ab"))
        said = self.process.stdout.readline().decode()
        found = re.search(r"https://127\.0\.0\.1:(\d+)", said)
        assert found, "the ledger did not start: " + said + self.errors.read_text(errors="replace")[-2000:]
        self.port = int(found.group(1))
        self.operator = "Bearer " + (self.data / "cred/operator-token").read_text().strip()

    def stop(self, how=signal.SIGTERM):
        if self.process.poll() is None:
            self.process.send_signal(how)
        status = self.process.wait(60)
        self.process.stdout.close()
        return status

    def records(self, *options):
        done = subprocess.run([self.binary, "export", "--data-dir", str(self.data), *options], capture_output=True)
        assert done.returncode == 0, done.stderr.decode()
        return [json.loads(line) for line in done.stdout.decode().splitlines()]

    def memory_mib(self, which="VmHWM"):
        """0 with AddressSanitizer, which keeps what was freed."""
        if "libasan" in open("/proc/%d/maps" % self.process.pid).read():
            return 0.0
        for line in open("/proc/%d/status" % self.process.pid):
            if line.startswith(which):
                return int(line.split()[1]) / 1024
        return 0.0

    def forget_peak(self):
        """VmHWM begins anew."""
        with open("/proc/%d/clear_refs" % self.process.pid, "w") as file:
            file.write("5")


def join(ledger, port, token, name, state, generation="G5", tunnel=None, timeout=60):
    """One played agent's start: (exit status, what it said)."""
    command = [ledger, "agent", "--server", "https://127.0.0.1:%d" % port, "--token-file", str(token), "--node-name", name, "--state-dir",
               str(state), "--generation", generation]
    if tunnel is not None:
        command += ["--tunnel", str(tunnel)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    return done.returncode, done.stdout + done.stderr


class Link:
    """A TLS connection on which a test writes and reads bytes."""

    def __init__(self, port, context, timeout=20):
        self.raw = socket.create_connection(("127.0.0.1", port), timeout=timeout)
        self.raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.tls = context.wrap_socket(self.raw, server_hostname="127.0.0.1")
        self.buffer = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.tls.close()

    def send(self, data):
        self.tls.sendall(data if isinstance(data, bytes) else data.encode("latin1"))

    def end_writing(self):
        """close_notify, and reading goes on: what kubectl exec does at the end of its input.

        OpenSSL looks for the peer's close_notify at once, and takes data that it finds for an error that cannot be undone; so the socket is
        another one, and empty, while it does.
        """
        near, far = socket.socketpair()
        number = self.tls.fileno()
        real = os.dup(number)
        os.dup2(near.fileno(), number)
        self.tls.setblocking(False)
        try:
            self.tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        os.dup2(real, number)
        os.close(real)
        self.tls.settimeout(20)
        os.write(number, far.recv(4096))
        near.close()
        far.close()

    def more(self):
        """False at the end."""
        try:
            some = self.tls.recv(65536)
        except (ssl.SSLEOFError, ssl.SSLZeroReturnError, ConnectionError):
            some = b""
        self.buffer += some
        return bool(some)

    def all(self):
        """Until the end of the connection."""
        while self.more():
            pass
        whole, self.buffer = self.buffer, b""
        return whole

    def until(self, end):
        while end not in self.buffer:
            if not self.more():
                raise ConnectionError("the connection ended")
        head, self.buffer = self.buffer.split(end, 1)
        return head + end

    def exactly(self, size):
        while len(self.buffer) < size:
            if not self.more():
                raise ConnectionError("the connection ended")
        some, self.buffer = self.buffer[:size], self.buffer[size:]
        return some

    def answer(self, method="GET"):
        """One whole answer, as it came: (status, head, body with its framing)."""
        head = self.until(b"\r\n\r\n")
        status = int(head.split(None, 2)[1])
        if status == 101 or method == "HEAD" or status in (204, 304) or 100 <= status < 200:
            return status, head, b""
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            body = b""
            while True:
                line = self.until(b"\r\n")
                size = int(line.split(b";")[0], 16)
                body += line
                if size == 0:
                    while True:
                        line = self.until(b"\r\n")
                        body += line
                        if line == b"\r\n":
                            return status, head, body
                body += self.exactly(size + 2)
        found = re.search(rb"\r\ncontent-length: *(\d+)", lower)
        return status, head, self.exactly(int(found.group(1))) if found else self.all()
