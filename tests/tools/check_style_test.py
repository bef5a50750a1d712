"""tools/check_style.py sees what it should, and nothing else."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import check_style  # noqa: E402


def messages(code, path="api/x.cpp"):
    return [message for _, message in check_style.problems_of(path, code)]


def in_coroutine(statement):
    return "awaitable<void> f() {\n  " + statement + "\n}\n"


class Coroutines(unittest.TestCase):
    def assert_refused(self, statement, word):
        found = messages(in_coroutine(statement))
        self.assertEqual(len(found), 1, (statement, found))
        self.assertIn(word, found[0])

    def assert_fine(self, statement):
        self.assertEqual(messages(in_coroutine(statement)), [], statement)

    def test_brace_temporaries(self):
        self.assert_refused("co_await g(Point{1, 2});", "braces")
        self.assert_refused("use(Point{1, 2}, co_await g());", "braces")
        self.assert_refused("auto x = co_await g({1, 2});", "braces")
        self.assert_refused("co_await g(std::vector<int>{1});", "braces")
        self.assert_refused("if (co_await g(Point{1, 2})) {\n    h();\n  }", "braces")
        self.assert_refused("co_return Reply{co_await g()};", "braces")

    def test_capturing_lambdas(self):
        self.assert_refused("co_await g([x] { return x; });", "lambda")
        self.assert_refused("co_await g([this](int a) { return a + b_; }, 1);", "lambda")
        self.assert_refused("co_await g([&x](int a) mutable { x = a; });", "lambda")

    def test_lambda_coroutines(self):
        found = messages(in_coroutine("auto run = [x]() -> awaitable<void> { co_await g(x); };"))
        self.assertTrue(any("its captures die" in message for message in found), found)

    def test_conditional(self):
        self.assert_refused("auto x = more ? co_await g() : 0;", "?:")
        self.assert_refused("auto x = more ? 0 : co_await g();", "?:")

    def test_two_awaits(self):
        self.assert_refused("use(co_await g(), co_await h());", "two co_await")

    def test_what_is_fine(self):
        self.assert_fine("auto x = co_await g();")
        self.assert_fine("std::tie(error, bytes) = co_await stream.async_read_some(space, kAwait);")
        self.assert_fine("const Point p{1, 2};\n  co_await g(p);")
        self.assert_fine("while (more) {\n    more = co_await serve_one();\n  }")
        self.assert_fine("for (int i = 0; i < 3; ++i) {\n    co_await g(i);\n  }")
        self.assert_fine("if (co_await g()) {\n    h(Point{1, 2});\n  }")
        self.assert_fine("auto decorate = [headers](Reply& r) { r.set(headers); };\n  co_await g(decorate);")
        self.assert_fine("co_await g([](int a) { return a; });")
        self.assert_fine("values[i] = co_await g(values[0]);")
        self.assert_fine('log("co_await Point{1}"); // co_await Point{1}')
        self.assert_fine("switch (x) {\n    case 1: {\n      co_await g();\n      break;\n    }\n  }")

    def test_the_line_is_named(self):
        text = in_coroutine("int a = 1;\n  co_await g(Point{1, 2});")
        self.assertEqual([line for line, _ in check_style.problems_of("api/x.cpp", text)], [3])

    def test_statements_after_a_class_and_a_function(self):
        text = "struct A {\n  int x{1};\n};\nA::A() : x{1}, y{2} {\n}\n" + in_coroutine("co_await g(Point{1});")
        self.assertEqual([line for line, _ in check_style.problems_of("api/x.cpp", text)], [7])


class Words(unittest.TestCase):
    def test_wishes_in_comments(self):
        # Spelled in two parts so that this file passes its own check.
        self.assertEqual(len(messages("int a;  // TO" + "DO: later\n")), 1)
        self.assertEqual(messages("int method_todo;\n"), [])

    def test_endl(self):
        self.assertEqual(len(messages("void f() { std::cout << std::endl; }\n")), 1)
        self.assertEqual(messages('const char* text = "std::endl";\n'), [])

    def test_using_namespace(self):
        self.assertEqual(len(messages("using namespace std;\n")), 1)
        self.assertEqual(messages("using namespace std::chrono_literals;\n"), [])
        self.assertEqual(messages("void f() {\n  using namespace testing;\n}\n"), [])

    def test_pragma_once(self):
        self.assertEqual(len(messages("int f();\n", "api/x.h")), 1)
        self.assertEqual(messages("// About.\n#pragma once\nint f();\n", "api/x.h"), [])


if __name__ == "__main__":
    unittest.main()
