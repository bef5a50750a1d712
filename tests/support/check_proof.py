#!/usr/bin/env python3
"""An independent checker of the log's proofs: Python's standard library, written from the RFCs, nothing shared.

    check_proof.py VKEY FILE...      one line per file: "holds <what>" or "fails <why>"; exit status 1 when any fails

Merkle proofs are folded by the recursive definitions of RFC 9162, 2.1.3.1 and 2.1.4.1 (the C++ code uses the
iterative ones of 2.1.3.2 and 2.1.4.2); Ed25519 is RFC 8032, 5.1.7, in whole numbers.
"""
import base64
import hashlib
import sys

# ---- Ed25519 ---------------------------------------------------------------------------------------------

P = 2**255 - 19
Q = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, P - 2, P) % P
SQRT_M1 = pow(2, (P - 1) // 4, P)


def add(a, b):
    """Points are (X, Y, Z, T) with x = X/Z, y = Y/Z, T = XY/Z."""
    e = (a[1] - a[0]) * (b[1] - b[0]) % P
    f = (a[1] + a[0]) * (b[1] + b[0]) % P
    g = 2 * a[3] * b[3] * D % P
    h = 2 * a[2] * b[2] % P
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def times(n, point):
    result = (0, 1, 1, 0)
    while n > 0:
        if n & 1:
            result = add(result, point)
        point = add(point, point)
        n >>= 1
    return result


def decompress(data):
    y = int.from_bytes(data, "little")
    sign, y = y >> 255, y & (2**255 - 1)
    if y >= P:
        raise ValueError("not a point")
    x2 = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(x2, (P + 3) // 8, P)
    if (x * x - x2) % P != 0:
        x = x * SQRT_M1 % P
    if (x * x - x2) % P != 0 or (x == 0 and sign):
        raise ValueError("not a point")
    if x & 1 != sign:
        x = P - x
    return x, y, 1, x * y % P


BASE = decompress(bytes.fromhex("58" + "66" * 31))


def verify_ed25519(key, message, signature):
    a, r = decompress(key), decompress(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or s >= Q:
        return False
    h = int.from_bytes(hashlib.sha512(signature[:32] + key + message).digest(), "little") % Q
    left, right = times(s, BASE), add(r, times(h, a))
    return (left[0] * right[2] - right[0] * left[2]) % P == 0 and (left[1] * right[2] - right[1] * left[2]) % P == 0


# ---- the tree --------------------------------------------------------------------------------------------

def leaf(entry):
    return hashlib.sha256(b"\0" + entry).digest()


def node(left, right):
    return hashlib.sha256(b"\1" + left + right).digest()


def split(n):
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def root_of_path(index, size, hash_, path):
    """The root that PATH(index, D_size) leads to."""
    if size == 1:
        if path:
            raise ValueError("the proof is too long")
        return hash_
    if not path:
        raise ValueError("the proof is too short")
    k = split(size)
    if index < k:
        return node(root_of_path(index, k, hash_, path[:-1]), path[-1])
    return node(path[-1], root_of_path(index - k, size - k, hash_, path[:-1]))


def roots_of_subproof(m, n, old_root, path, whole):
    """(old root, new root) that SUBPROOF(m, D_n, whole) leads to."""
    if m == n:
        if whole:
            if path:
                raise ValueError("the proof is too long")
            return old_root, old_root
        if len(path) != 1:
            raise ValueError("the proof has the wrong length")
        return path[0], path[0]
    if not path:
        raise ValueError("the proof is too short")
    k = split(n)
    if m <= k:
        old, new = roots_of_subproof(m, k, old_root, path[:-1], whole)
        return old, node(new, path[-1])
    old, new = roots_of_subproof(m - k, n - k, old_root, path[:-1], False)
    return node(path[-1], old), node(path[-1], new)


# ---- files -----------------------------------------------------------------------------------------------

class Key:
    def __init__(self, vkey):
        self.name, self.id, encoded = vkey.strip().split("+", 2)
        data = base64.b64decode(encoded, validate=True)
        if hashlib.sha256(self.name.encode() + b"\n" + data).hexdigest()[:8] != self.id or data[0] != 1:
            raise ValueError("not a key")
        self.public = data[1:]


def checkpoint(note, key):
    text, _, signatures = note.rpartition("\n\n")
    text += "\n"
    origin, size, root = text.splitlines()[:3]
    if origin != key.name:
        raise ValueError("another log")
    for line in signatures.splitlines():
        dash, name, encoded = line.split(" ")
        data = base64.b64decode(encoded, validate=True)
        if dash == "\u2014" and name == key.name and data[:4].hex() == key.id:
            if not verify_ed25519(key.public, text.encode(), data[4:]):
                raise ValueError("the signature is wrong")
            return int(size), base64.b64decode(root, validate=True)
    raise ValueError("not signed by the key")


def check(text, key):
    head, _, rest = text.partition("\n\n")
    lines = head.split("\n")
    if lines[0] == "c2sp.org/tlog-proof@v1":
        record = base64.b64decode(lines[1].removeprefix("extra "), validate=True)
        index = int(lines[2].removeprefix("index "))
        size, root = checkpoint(rest, key)
        if not 0 <= index < size:
            raise ValueError("no such entry")
        path = [base64.b64decode(line, validate=True) for line in lines[3:]]
        if root_of_path(index, size, leaf(record), path) != root:
            raise ValueError("another root")
        return f"inclusion {index + 1} {size}"
    if lines[0] == "ledger/consistency-proof@v1":
        # Two notes; the second begins after the signature lines of the first.
        body, _, more = rest.partition("\n\n")
        signed = more.split("\n")
        count = next(i for i, line in enumerate(signed) if not line.startswith("\u2014 "))
        older = checkpoint(body + "\n\n" + "\n".join(signed[:count]) + "\n", key)
        newer = checkpoint("\n".join(signed[count:]), key)
        path = [base64.b64decode(line, validate=True) for line in lines[1:]]
        if roots_of_subproof(older[0], newer[0], older[1], path, True) != (older[1], newer[1]):
            raise ValueError("another root")
        return f"consistency {older[0]} {newer[0]}"
    raise ValueError("not a proof")


def main(arguments):
    key, failed = Key(arguments[0]), False
    for name in arguments[1:]:
        try:
            with open(name, encoding="utf-8") as file:
                print("holds", check(file.read(), key))
        except (ValueError, IndexError, StopIteration) as problem:
            print("fails", problem)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
