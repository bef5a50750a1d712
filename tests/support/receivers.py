"""Consumers of records, each real sockets in a thread: a receiver of syslog frames over TCP or TLS, and a webhook.

Both can be told to misbehave: to close, to stop reading, to answer with errors.
"""
import base64
import hashlib
import hmac
import http.server
import pathlib
import re
import socket
import ssl
import subprocess
import threading


def make_certificate(directory, name="server", host="127.0.0.1"):
    """A self-signed certificate for `host` and its key, as PEM files."""
    cert, key = pathlib.Path(directory) / (name + ".crt"), pathlib.Path(directory) / (name + ".key")
    kind = "IP" if re.fullmatch(r"[0-9.]+", host) else "DNS"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=" + name, "-addext", "subjectAltName=%s:%s" % (kind, host), "-keyout", str(key),
                    "-out", str(cert)], check=True, capture_output=True)
    return cert, key


class FrameError(Exception):
    pass


def take_frames(buffer):
    """(messages, rest) of octet-counted frames (RFC 6587, 3.4.1)."""
    messages = []
    while True:
        space = buffer.find(b" ")
        if space < 0:
            if not re.fullmatch(rb"([1-9][0-9]{0,9})?", buffer):
                raise FrameError("no length: %r" % buffer[:40])
            return messages, buffer
        if not re.fullmatch(rb"[1-9][0-9]{0,9}", buffer[:space]):
            raise FrameError("no length: %r" % buffer[:40])
        length = int(buffer[:space])
        if len(buffer) - space - 1 < length:
            return messages, buffer
        messages.append(buffer[space + 1:space + 1 + length].decode())
        buffer = buffer[space + 1 + length:]


class Receiver:
    """Messages by connection, in `connections`. `close_after()` says after how many messages of a connection it is cut
    (None: never); `reading` cleared: nothing is read. A cut leaves unread bytes behind, as a killed program does."""

    def __init__(self, close_after=lambda: None, tls=None, buffer_bytes=0, lines=False, port=0):
        self.connections, self.errors = [], []
        self.close_after, self.tls, self.lines = close_after, tls, lines
        self.reading = threading.Event()
        self.reading.set()
        self.changed = threading.Condition()
        self.stopping = False
        self.server = socket.socket()
        self.server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if buffer_bytes:
            self.server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        self.server.bind(("127.0.0.1", port))
        self.server.listen(5)
        self.port = self.server.getsockname()[1]
        self.thread = threading.Thread(target=self.accept, daemon=True)
        self.thread.start()

    def accept(self):
        while not self.stopping:
            try:
                connection, _ = self.server.accept()
                if self.tls:
                    connection = self.tls.wrap_socket(connection, server_side=True)
            except (ssl.SSLError, ConnectionError) as error:
                self.errors.append(str(error))
                continue
            except OSError:
                return
            self.serve(connection)

    def serve(self, connection):
        with self.changed:
            messages = []
            self.connections.append(messages)
        limit, buffer = self.close_after(), b""
        connection.settimeout(0.2)
        while not self.stopping and (limit is None or len(messages) < limit):
            if not self.reading.wait(0.2):
                continue
            try:
                got = connection.recv(2048)
            except TimeoutError:
                continue
            except OSError:
                break
            if not got:
                break
            try:
                found, buffer = self.split(buffer + got)
            except FrameError as error:
                self.errors.append(str(error))
                break
            with self.changed:
                messages.extend(found[:None if limit is None else limit - len(messages)])
                self.changed.notify_all()
        connection.close()

    def split(self, buffer):
        if not self.lines:
            return take_frames(buffer)
        parts = buffer.split(b"\n")
        return [part.decode() for part in parts[:-1]], parts[-1]

    def all(self):
        with self.changed:
            return [message for messages in self.connections for message in messages]

    def wait(self, ready, seconds=60):
        with self.changed:
            return self.changed.wait_for(lambda: ready([m for c in self.connections for m in c]), seconds)

    def stop(self):
        self.stopping = True
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()
        self.thread.join()


class Hook:
    """`answer(n, headers, body)` gives the status (or (status, headers), or None: hang up) of the n-th POST, from 0."""

    def __init__(self, cert, key, sign_keys, answer=lambda n, headers, body: 200):
        self.posts, self.errors = [], []  # (id, status, body)
        self.changed = threading.Condition()
        hook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with hook.changed:
                    n = len(hook.posts)
                    if not signed(self.headers, body, sign_keys):
                        hook.errors.append("bad signature: %s" % self.headers.get("webhook-signature"))
                    status = answer(n, self.headers, body)
                    extra = {}
                    if isinstance(status, tuple):
                        status, extra = status
                    hook.posts.append((self.headers["webhook-id"], status, body))
                    hook.changed.notify_all()
                if status is None:
                    self.close_connection = True
                    return
                self.send_response(status)
                for name, value in extra.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.handle_error = lambda *peer: None  # who was killed does not hear the answer
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def wait(self, ready, seconds=60):
        with self.changed:
            return self.changed.wait_for(lambda: ready(self.posts), seconds)

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def signed(headers, body, keys):
    """As the Standard Webhooks specification has it; every key must have its signature."""
    text = ("%s.%s." % (headers["webhook-id"], headers["webhook-timestamp"])).encode() + body
    given = (headers.get("webhook-signature") or "").split()
    wanted = ["v1," + base64.b64encode(hmac.new(base64.b64decode(key[len("whsec_"):]), text, hashlib.sha256).digest()).decode()
              for key in keys]
    return sorted(given) == sorted(wanted)
