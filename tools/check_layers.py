#!/usr/bin/env python3
"""Holds the layers: who may include what (docs/ARCHITECTURE.md). CMake alone does not stop an #include.

    tools/check_layers.py [ROOT]      prints file:line: rule; exit status 1 when there is any

The rules are the data below. tests/ are free.
"""
import pathlib
import re
import sys

# A folder may include headers of its own and of these folders.
FOLDERS = {
    "ledger": (),
    "replay": ("ledger",),
    "api": ("replay", "ledger"),
    "tools": ("api", "replay", "ledger", "tests"),
}
OURS = ("ledger", "replay", "api", "tools", "tests")

# Third parties: which includes, and the only files (or folders) that may have them.
# A path that ends in / stands for everything below it.
BORDERS = [
    ("RocksDB", r"rocksdb/", ("ledger/event_log.cpp",)),
    ("zstd", r"zstd\.h", ("ledger/archive_file.cpp", "tools/export_file.h")),
    ("cereal", r"cereal/", ("ledger/event_codec.cpp",)),
    ("OpenSSL", r"openssl/",
     ("ledger/credentials.cpp", "ledger/issuer.cpp", "ledger/certificate_request.cpp", "ledger/openssl_handles.h",
      "ledger/node_hash.cpp", "ledger/merkle.cpp", "ledger/note.cpp", "api/listener.cpp", "api/forward.cpp",
      "api/upstream.cpp", "api/tls_link.cpp",
      "api/kubelet_probe.cpp", "api/agent_keys.cpp",
      "tools/bench/", "tools/k3s_like/")),
    ("Boost.Asio's TLS", r"boost/(asio|beast)/ssl",
     ("api/listener.cpp", "api/tls_stream.h", "api/upstream_link.h", "tools/bench/", "tools/k3s_like/")),
    ("Boost.Beast", r"boost/beast",
     ("api/listener.cpp", "api/tls_stream.h", "api/forward.h", "api/forward.cpp", "api/upstream_link.h", "api/upstream.cpp",
      "api/https_client.cpp", "tools/bench/", "tools/k3s_like/")),
    ("Boost.Asio", r"boost/asio", ("api/", "tools/bench/", "tools/k3s_like/")),
    ("libarchive", r"archive(_entry)?\.h", ("replay/bundle_files.cpp",)),
    ("yaml-cpp", r"yaml-cpp/", ("api/kubeconfig.cpp",)),
    ("CLI11", r"CLI/", ("tools/",)),
    ("spdlog", r"spdlog/", ("api/", "tools/")),
]

# Words of the language, the same way.
WORDS = [
    ("coroutines", r"\bco_(await|yield|return)\b", ("api/", "tools/bench/")),
]

INCLUDE = re.compile(r'^\s*#\s*include\s*([<"])([^>"]+)[>"]')


def allowed(path, places):
    return any(path == place or (place.endswith("/") and path.startswith(place)) for place in places)


def code_of(line):
    """The line without strings and // comments."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    return line.split("//", 1)[0]


def problems_of(path, text):
    """(line number, rule) for every break in one file; `path` is relative to the root, with /."""
    folder = path.split("/", 1)[0]
    out = []
    for number, line in enumerate(text.splitlines(), 1):
        include = INCLUDE.match(line)
        if include:
            quoted, target = include.group(1) == '"', include.group(2)
            other = target.split("/", 1)[0]
            if quoted and "/" not in target:
                out.append((number, f'include "{target}" by its path from the root, such as "{folder}/{target}"'))
            elif other in OURS and other != folder and other not in FOLDERS[folder]:
                may = ", ".join(f"{name}/" for name in FOLDERS[folder]) or "nothing of ours"
                out.append((number, f"{folder}/ may include {may} besides itself, not {other}/"))
            for name, pattern, places in BORDERS:
                if re.match(pattern, target) and not allowed(path, places):
                    out.append((number, f"{name} is seen by {', '.join(places)} only"))
        else:
            for name, pattern, places in WORDS:
                if re.search(pattern, code_of(line)) and not allowed(path, places):
                    out.append((number, f"{name} belong in {', '.join(places)} only"))
    return out


def sources(root):
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix in (".h", ".cpp"):
                yield path


def main(arguments):
    root = pathlib.Path(arguments[1] if len(arguments) > 1 else ".").resolve()
    found = 0
    files = 0
    for path in sources(root):
        files += 1
        relative = path.relative_to(root).as_posix()
        for number, rule in problems_of(relative, path.read_text()):
            print(f"{relative}:{number}: {rule}")
            found += 1
    if files == 0:
        print(f"check_layers: no sources below {root}", file=sys.stderr)
        return 2
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
