"""tools/check_layers.py sees what it should, and nothing else."""
import pathlib
import sys
import unittest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "tools"))
import check_layers  # noqa: E402


def rules(path, code):
    return [rule for _, rule in check_layers.problems_of(path, code)]


class Layers(unittest.TestCase):
    def test_downwards_is_allowed(self):
        self.assertEqual(rules("replay/explain.cpp", '#include "ledger/event.h"\n#include "replay/facts.h"\n'), [])
        self.assertEqual(rules("api/server.cpp", '#include "ledger/ledger.h"\n#include "replay/explain.h"\n'), [])
        self.assertEqual(rules("tools/main.cpp", '#include "api/server.h"\n'), [])

    def test_upwards_is_not(self):
        for path, header in [("ledger/types.h", "replay/explain.h"), ("ledger/types.h", "api/http.h"),
                             ("replay/explain.cpp", "api/http.h"), ("api/http.h", "tools/commands.h"),
                             ("ledger/types.cpp", "tests/support/temp_dir.h")]:
            self.assertEqual(len(rules(path, f'#include "{header}"\n')), 1, (path, header))

    def test_third_parties_have_their_places(self):
        for header, place in [("rocksdb/db.h", "ledger/event_log.cpp"), ("cereal/cereal.hpp", "ledger/event_codec.cpp"),
                              ("openssl/ssl.h", "api/tls_link.cpp"), ("boost/beast/http.hpp", "api/listener.cpp"),
                              ("CLI/CLI.hpp", "tools/main.cpp")]:
            self.assertEqual(rules(place, f"#include <{header}>\n"), [], header)
            self.assertEqual(len(rules("replay/facts.cpp", f"#include <{header}>\n")), 1, header)
        self.assertEqual(len(rules("ledger/ledger.cpp", "#include <boost/asio/post.hpp>\n")), 1)
        self.assertEqual(rules("ledger/ledger.cpp", "#include <boost/json.hpp>\n"), [])

    def test_tls_streams_are_named_once_each(self):
        self.assertEqual(len(rules("api/routes.cpp", "#include <boost/asio/ssl/stream.hpp>\n")), 1)

    def test_coroutines_stay_above(self):
        self.assertEqual(len(rules("replay/facts.cpp", "  co_return 1;\n")), 1)
        self.assertEqual(rules("replay/facts.cpp", '  // no co_await here\n  log("co_await");\n'), [])
        self.assertEqual(rules("api/listener.cpp", "  co_return;\n"), [])

    def test_headers_are_named_from_the_root(self):
        self.assertEqual(len(rules("api/http.cpp", '#include "http.h"\n')), 1)

    def test_the_line_is_named(self):
        found = check_layers.problems_of("ledger/a.h", '#pragma once\n\n#include "api/http.h"\n')
        self.assertEqual([line for line, _ in found], [3])


if __name__ == "__main__":
    unittest.main()
