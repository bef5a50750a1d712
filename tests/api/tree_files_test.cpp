#include "api/tree_files.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "ledger/checkpoint.h"
#include "ledger/event_codec.h"
#include "ledger/event_log.h"
#include "tests/support/running_server.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

using test::RunningServer;
using ::testing::HasSubstr;
using ::testing::SizeIs;

class TreeFilesTest : public ::testing::Test {
 protected:
  void append(Seq count) {
    std::vector<Record> records;
    for (Seq i = 0; i < count; ++i) {
      Record record;
      record.seq = log_->head() + i + 1;
      record.time = Time{1'700'000'000'000'000}.plus_seconds(static_cast<std::int64_t>(record.seq));
      record.event = TokenAccepted{};
      records.push_back(std::move(record));
    }
    ASSERT_TRUE(log_->append(records, {}).has_value());
  }
  Response get(const std::string& path) { return tree_file(*log_, "", "/ledger/v1/tile/" + path); }

  test::TempDir dir_;
  std::unique_ptr<EventLog> log_ = std::move(*EventLog::open({.dir = dir_ / "events"}));
};

TEST_F(TreeFilesTest, TilesAreThoseOfTheTree) {
  append(700);
  const Response first = get("0/000");
  EXPECT_EQ(first.status, 200);
  EXPECT_EQ(first.content_type, "application/octet-stream");
  ASSERT_THAT(first.body, SizeIs(8192));
  EXPECT_EQ(first.body.substr(32, 32), view_of(leaf_hash(*log_->read_bytes(2))));
  EXPECT_THAT(get("0/001").body, SizeIs(8192));
  EXPECT_THAT(get("0/002.p/188").body, SizeIs(188 * 32));
  const Response above = get("1/000.p/2");
  ASSERT_THAT(above.body, SizeIs(64));
  EXPECT_EQ(above.body.substr(0, 32), view_of(*log_->tree_nodes()(8, 0)));
  // The root from the tiles alone.
  TreeEdge edge;
  edge.append(*tree_hash_from(above.body.substr(0, 32)), nullptr, 8);
  edge.append(*tree_hash_from(above.body.substr(32, 32)), nullptr, 8);
  const std::string rest = get("0/002.p/188").body;
  for (std::size_t at = 0; at < rest.size(); at += 32) edge.append(*tree_hash_from(rest.substr(at, 32)));
  EXPECT_EQ(edge.head(), *log_->tree());
}

TEST_F(TreeFilesTest, EntriesAreTheRecordsAsStored) {
  append(300);
  for (const auto& [path, from, count] :
       {std::tuple{"entries/000", 1, 256}, std::tuple{"entries/001.p/44", 257, 44}}) {
    const Response bundle = get(path);
    ASSERT_EQ(bundle.status, 200) << bundle.body;
    std::string_view rest = bundle.body;
    for (int i = 0; i < count; ++i) {
      const std::size_t size =
          static_cast<std::size_t>(static_cast<unsigned char>(rest[0])) << 8 | static_cast<unsigned char>(rest[1]);
      EXPECT_EQ(rest.substr(2, size), *log_->read_bytes(static_cast<Seq>(from + i)));
      rest.remove_prefix(2 + size);
    }
    EXPECT_TRUE(rest.empty());
  }
}

TEST_F(TreeFilesTest, WhatTheTreeDoesNotReachIsNotThere) {
  append(300);
  for (const char* path : {"0/001", "0/001.p/45", "0/002.p/1", "1/000", "1/000.p/2", "2/000.p/1", "0/x001/000",
                           "entries/001", "entries/001.p/45", "7/000.p/1", "8/000.p/1"})
    EXPECT_EQ(get(path).status, 404) << path;
  EXPECT_EQ(get("1/000.p/1").status, 200);
}

TEST_F(TreeFilesTest, NamesHaveOneSpelling) {
  append(300);
  for (const char* path : {"",
                           "0",
                           "0/",
                           "0/0",
                           "0/00",
                           "0/0000",
                           "00/000",
                           "0/000.p/",
                           "0/000.p/0",
                           "0/000.p/01",
                           "0/000.p/256",
                           "0/000.p/1/",
                           "0/x000/000",
                           "0/x000",
                           "0/000/000",
                           "0/-01",
                           "-1/000",
                           "a/000",
                           "0/000.p/-1",
                           "entries/",
                           "entries/0",
                           "0//000",
                           "0/x999/x999/x999/x999/x999/x999/x999/999",
                           "entries"})
    EXPECT_EQ(get(path).status, 404) << path;
  EXPECT_EQ(get("0/000.p/1").status, 200);
  EXPECT_EQ(get("0/000.p/255").status, 200);
}

TEST_F(TreeFilesTest, ARecordTooLongForABundleIsSaid) {
  Record record;
  record.seq = 1;
  record.time = Time{1'700'000'000'000'000};
  record.note = std::string(60'000, 'a');
  record.endpoint = std::string(60'000, 'b');
  record.event = TokenAccepted{};
  const std::vector<Record> records = {record};
  ASSERT_TRUE(log_->append(records, {}).has_value());
  const Response bundle = get("entries/000.p/1");
  EXPECT_EQ(bundle.status, 503);
  EXPECT_THAT(bundle.body, HasSubstr("longer than the 65535 bytes"));
}

TEST(TreeFiles, AServerServesThem) {
  RunningServer server;
  EXPECT_EQ(server.get("/ledger/v1/checkpoint").status, 404) << "none was signed yet";
  server.join("web-1", "0123456789abcdef0123456789abcdef");
  server.restart();  // the stop signs one
  const HttpsResponse checkpoint = server.get("/ledger/v1/checkpoint");
  ASSERT_EQ(checkpoint.status, 200) << checkpoint.body;
  EXPECT_EQ(checkpoint.header("Content-Type"), "text/plain; charset=utf-8");
  const auto key = read_checkpoint_key(checkpoint_public_file(server.data_dir()));
  const auto opened = open_checkpoint(checkpoint.body, *key);
  ASSERT_TRUE(opened.has_value()) << opened.error().message;
  const std::string width = std::to_string(opened->head.size);
  const HttpsResponse tile = server.get("/ledger/v1/tile/0/000.p/" + width);
  ASSERT_EQ(tile.status, 200);
  TreeEdge edge;
  for (std::size_t at = 0; at < tile.body.size(); at += 32) edge.append(*tree_hash_from(tile.body.substr(at, 32)));
  EXPECT_EQ(edge.head(), opened->head);
  const std::string entries = "/ledger/v1/tile/entries/000.p/" + width;
  EXPECT_EQ(server.get(entries).status, 401) << "records are for operators";
  EXPECT_EQ(server.get(entries, server.operator_bearer()).status, 200);
  EXPECT_EQ(server.send(test::request_of("POST", "/ledger/v1/checkpoint")).status, 405);
}

TEST(TreeFiles, AServerWhoseLogWentBackSaysSo) {
  RunningServer server;
  server.join("web-1", "0123456789abcdef0123456789abcdef");
  server.stop();
  test::TempDir backup;
  std::filesystem::copy(server.data_dir() / "events", backup / "events", std::filesystem::copy_options::recursive);
  const Seq before = server.log()->head();
  server.start();
  server.join("web-2", "0123456789abcdef0123456789abcdee");
  server.stop();
  const Seq later = server.log()->head();
  std::filesystem::remove_all(server.data_dir() / "events");
  std::filesystem::copy(backup / "events", server.data_dir() / "events", std::filesystem::copy_options::recursive);
  server.start();
  const std::vector<Record> epochs = server.records_of<EpochStarted>();
  ASSERT_THAT(epochs, SizeIs(1));
  EXPECT_EQ(epochs[0].seq, before + 1) << "before anything else is done with this log";
  EXPECT_EQ(as<EpochStarted>(epochs[0])->cause, "restored");
  EXPECT_EQ(as<EpochStarted>(epochs[0])->head_before, static_cast<std::int64_t>(later));
  EXPECT_EQ(as<EpochStarted>(epochs[0])->head_after, static_cast<std::int64_t>(before));
  EXPECT_THAT(epochs[0].note, HasSubstr("are lost"));
  server.restart();
  EXPECT_THAT(server.records_of<EpochStarted>(), SizeIs(1));
}

}  // namespace
}  // namespace ledger::api
