#!/usr/bin/env python3
"""Refuses what compiles and must not be written: forms that g++ 12.2 miscompiles, and words we do not use.

    tools/check_style.py [ROOT]      prints file:line: what to write instead; exit status 1 when there is any

That every header compiles alone is checked by the build (tests/CMakeLists.txt, headers_alone).

The co_await rules: g++ 12.2 destroys temporaries twice when a full expression holds a co_await beside an aggregate
written with braces or a capturing lambda, and miscompiles ?: with a co_await in an arm (clang is right, and
AddressSanitizer shows it). Name the value, then await: one co_await per statement.
"""
import pathlib
import re
import sys

FOLDERS = ("ledger", "replay", "api", "tools", "tests")

# Pattern, what to write instead. For every line of code, comments included where `comments` is set.
WORDS = [
    (r"\b(TODO|FIXME|XXX|HACK)\b", "do it, or open an issue; code holds no wishes", True),
    (r"\bstd::endl\b", "write '\\n': std::endl flushes", False),
    (r"^using\s+namespace\s+(?!.*literals\b)",
     "no `using namespace` at file scope: name what you use, or make an alias", False),
    (r"\bcatch\s*\(\s*\.\.\.\s*\)\s*\{\s*\}", "an exception that nobody sees: say what it means", False),
]


def blank_out(text, comments=True):
    """The text with strings (and comments) replaced by blanks, line ends kept: positions stay true."""
    out = []
    i = 0
    while i < len(text):
        rest = text[i:]
        raw = re.match(r'R"([^()\s\\]{0,16})\(', rest)
        if raw:
            end = text.find(")" + raw.group(1) + '"', i)
            end = len(text) if end < 0 else end + len(raw.group(1)) + 2
        elif comments and rest.startswith("//"):
            end = text.find("\n", i)
            end = len(text) if end < 0 else end
        elif comments and rest.startswith("/*"):
            end = text.find("*/", i)
            end = len(text) if end < 0 else end + 2
        elif text[i] == '"' or (text[i] == "'" and not (i > 0 and text[i - 1].isalnum())):
            end = i + 1
            while end < len(text) and text[end] not in (text[i], "\n"):
                end += 2 if text[end] == "\\" else 1
            end = min(end + 1, len(text))
            out.append(text[i] + re.sub(r"[^\n]", " ", text[i + 1:end - 1]) + text[end - 1:end])
            i = end
            continue
        else:
            out.append(text[i])
            i += 1
            continue
        out.append(re.sub(r"[^\n]", " ", text[i:end]))
        i = end
    return "".join(out)


def statements_of(code):
    """(position, text) of every statement; blocks inside a statement (a lambda's body) read `{}` there and are
    taken apart on their own. `code` has no strings and no comments."""
    out = []
    # Open brackets: "(", "[", "i" for an initialiser's brace, or a block as [start, characters of its statement].
    stack = [[0, []]]

    def block():
        return next(entry for entry in reversed(stack) if isinstance(entry, list))

    def end_statement(position):
        entry = block()
        text = "".join(entry[1])
        if text.strip():
            out.append((entry[0] + len(text) - len(text.lstrip()), text.strip()))
        entry[0], entry[1] = position + 1, []

    for position, c in enumerate(code):
        entry = block()
        top = stack[-1]
        if c == "{":
            before = "".join(entry[1]).rstrip()
            after_head = re.search(r"(\)|\]|\bmutable|\bnoexcept|->\s*[\w:<>,&*\s]+)$", before)
            if isinstance(top, list):
                opens_block = (after_head or before == "" or before[-1] in "}:" or
                               re.search(r"\b(else|do|try|const|override|final)$", before) or
                               re.match(r"(template\b.*>\s*)?(inline\s+)?(namespace|struct|class|union|enum|extern)\b", before.strip(),
                                        re.DOTALL) and "(" not in before)
            else:
                opens_block = after_head
            if opens_block:
                entry[1].append("{")
                stack.append([position + 1, []])
            else:
                entry[1].append("{")
                stack.append("i")
            continue
        if c == "}":
            while len(stack) > 1 and stack[-1] in ("(", "["):  # unbalanced: a macro; go on
                stack.pop()
            if top == "i":
                stack.pop()
                entry[1].append("}")
            elif len(stack) > 1:
                end_statement(position)
                stack.pop()
                block()[1].append("}")
                # A lambda's body is followed by more of its statement; other blocks end theirs.
                if isinstance(stack[-1], list) and not re.match(r"\s*[;,)(.]", code[position + 1:position + 80]):
                    end_statement(position)
            continue
        if c in "([":
            stack.append(c)
        elif c in ")]" and top in ("(", "["):
            stack.pop()
        if c == ";" and isinstance(top, list):
            end_statement(position)
        else:
            entry[1].append(c)
    end_statement(len(code))
    return out


def coroutine_problem(statement):
    """Why g++ 12.2 must not see this statement, or None."""
    awaits = len(re.findall(r"\bco_await\b", statement))
    if awaits == 0:
        return None
    if awaits > 1:
        return "two co_await in one statement: give each its own"
    if re.search(r"(?<![\w\])])\[\s*[^\]\s][^\]]*\]\s*(\(|\{|mutable|->)", statement):
        return "a capturing lambda beside a co_await: name it first, then await"
    if re.search(r"[\w>,(=]\s*\{(?!\}?$)", statement):
        return "a value written with braces beside a co_await: name it first, then await"
    if re.search(r"\?[^;]*\bco_await\b", statement) and ":" in statement:
        return "?: with a co_await in an arm: use if"
    return None


def coroutine_lambda_problem(code):
    """Capturing lambdas that are coroutines: the captures die with the lambda, the coroutine goes on."""
    for match in re.finditer(r"(?<![\w\])])\[\s*[^\]\s][^\]]*\]\s*\([^()]*\)\s*(mutable\s*)?->\s*[\w:]*awaitable\b", code):
        yield match.start(), "a capturing lambda as a coroutine: its captures die before it ends; use a function"


def line_at(text, position):
    return text.count("\n", 0, position) + 1


def problems_of(path, text):
    """(line number, message) for every problem of one file."""
    out = []
    code = blank_out(text)
    if path.endswith(".h") and not re.search(r"^#pragma once$", text, re.MULTILINE):
        out.append((1, "a header needs `#pragma once`"))
    without_strings = blank_out(text, comments=False)
    for pattern, message, comments in WORDS:
        for match in re.finditer(pattern, without_strings if comments else code, re.MULTILINE):
            out.append((line_at(text, match.start()), message))
    for position, statement in statements_of(code):
        message = coroutine_problem(statement)
        if message:
            out.append((line_at(text, code.index("co_await", position)), message))
    for position, message in coroutine_lambda_problem(code):
        out.append((line_at(text, position), message))
    return sorted(out)


def check_sources(root):
    found = files = 0
    for folder in FOLDERS:
        for path in sorted((root / folder).rglob("*")):
            if path.suffix not in (".h", ".cpp"):
                continue
            files += 1
            relative = path.relative_to(root).as_posix()
            for number, message in problems_of(relative, path.read_text()):
                print(f"{relative}:{number}: {message}")
                found += 1
    if files == 0:
        print(f"check_style: no sources below {root}", file=sys.stderr)
        return 2
    return 1 if found else 0


def main(arguments):
    return check_sources(pathlib.Path(arguments[1] if len(arguments) > 1 else ".").resolve())


if __name__ == "__main__":
    sys.exit(main(sys.argv))
