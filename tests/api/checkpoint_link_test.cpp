#include "api/checkpoint_link.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <mutex>

#include "tests/support/bare_listener.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using test::BareListener;
using ::testing::HasSubstr;
using ::testing::SizeIs;

// Keeps what is PUT, and gives it back.
struct Shelf {
  BareListener::Serve serve() {
    return [this](std::shared_ptr<const Request> request, Reply reply) {
      const std::lock_guard lock(mutex);
      Response response;
      if (request->method == "PUT") {
        kept[request->path] = request->body;
        response.status = 201;
      } else if (kept.count(request->path) > 0) {
        response.body = kept[request->path];
      } else {
        response.status = 404;
      }
      if (broken) response.status = 500;
      reply(std::move(response));
    };
  }
  std::mutex mutex;
  std::map<std::string, std::string> kept;
  bool broken = false;
};

TEST(HttpsPlace, KeepsACheckpointAndGivesItBack) {
  Shelf shelf;
  BareListener audit({}, shelf.serve());
  const auto place = https_place("https://127.0.0.1:" + std::to_string(audit.port()) + "/ledger/checkpoint",
                                 audit.https_options().bundle_pem);
  ASSERT_TRUE(place.has_value()) << place.error().message;
  EXPECT_EQ(place->get().error().code, Errc::not_found);
  ASSERT_TRUE(place->put("a note\n").has_value());
  EXPECT_EQ(shelf.kept["/ledger/checkpoint"], "a note\n");
  EXPECT_EQ(*place->get(), "a note\n");
  shelf.broken = true;
  EXPECT_THAT(place->put("another\n").error().message, HasSubstr("500"));
}

TEST(HttpsPlace, WhatIsNoAddressIsSaid) {
  for (const char* url :
       {"http://audit.example.org/x", "https://", "ftp://x/y", "https://user:secret@host/x", "https://h/x#y"})
    EXPECT_FALSE(https_place(url, "").has_value()) << url;
  EXPECT_FALSE(https_place("https://host/x", "not a certificate").has_value());
}

TEST(HttpsPlace, AServerSendsItsCheckpointsThere) {
  Shelf shelf;
  BareListener audit({}, shelf.serve());
  test::TempDir dir;
  test::put_file(dir / "ca.pem", audit.https_options().bundle_pem);
  test::RunningServer server([&](ServerOptions& options) {
    options.checkpoint_to = {"https://127.0.0.1:" + std::to_string(audit.port()) + "/ledger",
                             (dir / "copy").string()};
    options.checkpoint_ca = dir / "ca.pem";
  });
  server.stop();
  const std::string latest = test::file_bytes(latest_checkpoint_file(server.data_dir()));
  EXPECT_THAT(latest, HasSubstr("ledger/"));
  EXPECT_EQ(shelf.kept["/ledger"], latest);
  EXPECT_EQ(test::file_bytes(dir / "copy"), latest);
}

TEST(HttpsWitness, IsAskedAsTheProtocolSays) {
  const NoteSigner signer = std::move(*NoteSigner::make("example.org/w1", NoteSigner::Type::witness));
  BareListener witness({}, [&](std::shared_ptr<const Request> request, Reply reply) {
    Response response;
    const std::size_t blank = request->body.find("\n\n");
    if (request->method != "POST" || request->path != "/w1/add-checkpoint" || blank == std::string::npos ||
        !request->body.starts_with("old 0\n")) {
      response.status = 400;
    } else {
      const auto checkpoint = parse_checkpoint(request->body.substr(blank + 2));
      response.status = checkpoint ? 200 : 400;
      if (checkpoint) response.body = signer.sign(checkpoint->note.text, Time::now()).line();
    }
    reply(std::move(response));
  });
  test::TempDir dir;
  test::put_file(dir / "ca.pem", witness.https_options().bundle_pem);
  test::RunningServer server([&](ServerOptions& options) {
    options.witnesses = {signer.verifier().str() + ",https://127.0.0.1:" + std::to_string(witness.port()) + "/w1/"};
    options.checkpoint_ca = dir / "ca.pem";
  });
  server.stop();
  const auto key = read_checkpoint_key(checkpoint_public_file(server.data_dir()));
  const auto latest = open_checkpoint(test::file_bytes(latest_checkpoint_file(server.data_dir())), *key);
  ASSERT_TRUE(latest.has_value()) << latest.error().message;
  EXPECT_THAT(latest->note.signatures, SizeIs(2));
  EXPECT_TRUE(check_note(latest->note, signer.verifier()).has_value());
}

TEST(HttpsWitness, NeedsAWitnessesKey) {
  const NoteSigner log = std::move(*NoteSigner::make("ledger/0123456789abcdef"));
  EXPECT_THAT(https_witness(log.verifier().str() + ",https://w.example.org", "").error().message,
              HasSubstr("is not a witness's"));
  EXPECT_FALSE(https_witness("https://w.example.org", "").has_value());
  EXPECT_FALSE(https_witness("nonsense,https://w.example.org", "").has_value());
}

}  // namespace
}  // namespace ledger::api
