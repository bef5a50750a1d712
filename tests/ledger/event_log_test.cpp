#include "ledger/event_log.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <rocksdb/db.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <map>
#include <set>
#include <thread>

#include "ledger/credentials.h"
#include "ledger/event_codec.h"
#include "tests/support/fault_fs.h"
#include "tests/support/generators.h"
#include "tests/support/overwrite_record.h"
#include "tests/support/run_command.h"
#include "tests/support/temp_dir.h"
#include "tests/support/verify_log.h"

namespace ledger {
namespace {

namespace fs = std::filesystem;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using test::all_records;
using test::broken_promises;
using test::Face;
using test::overwrite_record;
using test::WritePoint;

std::vector<std::string> none() { return {}; }

// A log in a directory of its own. Records are numbered, and the projection is kept, as the writer does it.
class EventLogTest : public ::testing::Test {
 protected:
  explicit EventLogTest(const fs::path& parent = fs::temp_directory_path()) : dir_(parent) {
    options_.dir = dir_ / "events";
  }

  Result<void> try_open() {
    log_.reset();
    Result<std::unique_ptr<EventLog>> opened = EventLog::open(options_);
    if (!opened) return opened.error();
    log_ = std::move(*opened);
    nodes_ = NodeTable();
    for (const Record& record : all_records(*log_)) nodes_.apply(record);
    return {};
  }
  void open() {
    const Result<void> opened = try_open();
    ASSERT_TRUE(opened.has_value()) << opened.error().message;
  }
  // Opening must fail; returns how.
  Error open_error() {
    const Result<void> opened = try_open();
    if (opened) {
      ADD_FAILURE() << "it opened";
      return {};
    }
    EXPECT_THAT(opened.error().message, Not(HasSubstr("\n"))) << "one line";
    return opened.error();
  }
  void use_faults() { options_.env = disk_.env.get(); }

  static Record record(Event event, std::string node = "") {
    Record made;
    made.event = std::move(event);
    made.node = std::move(node);
    made.source = "10.0.0.5:41000";
    made.request_id = "r1";
    return made;
  }
  static Record stored(const std::string& node, const std::string& fingerprint = "aa") {
    return record(PasswordStored{{fingerprint}}, node);
  }

  Result<void> try_append(std::vector<Record> records) {
    NodeTable after = nodes_;
    std::map<std::string, NodeState> changed;
    Seq seq = log_->head();
    for (Record& made : records) {
      made.seq = ++seq;
      made.time = Time{1'718'000'000'000'000 + static_cast<std::int64_t>(seq)};
      if (const NodeState* state = after.apply(made)) changed[made.node] = *state;
    }
    const std::vector<EventLog::NodeEntry> entries(changed.begin(), changed.end());
    Result<void> appended = log_->append(records, entries);
    if (appended) nodes_ = std::move(after);
    return appended;
  }
  void append(std::vector<Record> records) {
    const Result<void> appended = try_append(std::move(records));
    ASSERT_TRUE(appended.has_value()) << appended.error().message;
  }

  std::vector<Seq> find(Index index, std::string_view value, Seq from = 1, Seq to = UINT64_MAX,
                        std::size_t latest = SIZE_MAX) {
    const Result<std::vector<Seq>> found = log_->find(index, value, from, to, latest);
    EXPECT_TRUE(found.has_value());
    return found ? *found : std::vector<Seq>{};
  }

  // The write-ahead log that is being written.
  fs::path wal() const {
    std::vector<fs::path> logs;
    for (const auto& entry : fs::directory_iterator(options_.dir))
      if (entry.path().extension() == ".log") logs.push_back(entry.path());
    std::sort(logs.begin(), logs.end());
    return logs.empty() ? fs::path() : logs.back();
  }

  test::TempDir dir_;
  test::FaultEnv disk_;
  EventLog::Options options_;
  std::unique_ptr<EventLog> log_;
  NodeTable nodes_;
};

// ---- writing and reading ---------------------------------------------------------------------------------

TEST_F(EventLogTest, ANewLogIsEmptyAndHasAnId) {
  open();
  EXPECT_EQ(log_->head(), 0U);
  EXPECT_EQ(log_->id().size(), 16U);
  EXPECT_EQ(log_->id().find_first_not_of("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(log_->read(1).error().code, Errc::not_found);
  EXPECT_EQ(broken_promises(*log_), none());
}

TEST_F(EventLogTest, WhatIsAppendedIsThereAfterReopening) {
  open();
  const std::string id = log_->id();
  append({stored("n1"), stored("n2")});
  append({record(TunnelOpened{"s1"}, "n1")});
  for (int round = 0; round < 2; ++round) {
    EXPECT_EQ(log_->head(), 3U);
    EXPECT_EQ(log_->id(), id);
    EXPECT_EQ(log_->read(2)->node, "n2");
    EXPECT_EQ(as<TunnelOpened>(*log_->read(3))->session, "s1");
    EXPECT_EQ(log_->read(4).error().code, Errc::not_found);
    EXPECT_EQ(log_->read(0).error().code, Errc::not_found);
    EXPECT_EQ(broken_promises(*log_), none());
    open();
  }
}

TEST_F(EventLogTest, AppendingGoesOnAfterReopening) {
  open();
  for (int i = 1; i <= 5; ++i) {
    append({stored("n" + std::to_string(i))});
    open();
  }
  EXPECT_EQ(log_->head(), 5U);
  EXPECT_EQ(broken_promises(*log_), none());
}

TEST_F(EventLogTest, TheNewestOfAKindIsFoundAmongTheServerWide) {
  open();
  const auto mode = [](const char* to) { return record(ModeChanged{.mode = to, .from = {}, .upstreams = {}, .actor = {}}); };
  const auto newest = [&]() -> std::string {
    const Result<std::optional<Record>> found = log_->newest(Kind::mode_changed);
    if (!found) return found.error().message;
    return *found ? as<ModeChanged>(**found)->mode + " " + std::to_string((*found)->seq) : "none";
  };
  EXPECT_EQ(newest(), "none");
  append({stored("n1"), record(ServerStarted{})});
  EXPECT_EQ(newest(), "none");
  append({mode("observe"), stored("n2")});
  EXPECT_EQ(newest(), "observe 3");
  append({mode("enforce"), record(ServerStopped{}), stored("n3"), record(UpstreamLost{"gone"})});
  EXPECT_EQ(newest(), "enforce 5");
  EXPECT_EQ(log_->newest(Kind::upstream_lost)->value().seq, 8U);
  EXPECT_FALSE(log_->newest(Kind::upstream_found)->has_value());
  open();
  EXPECT_EQ(newest(), "enforce 5");
  EXPECT_EQ(log_->newest(Kind::password_stored).error().code, Errc::invalid) << "not listed there";
  log_.reset();
  overwrite_record(options_.dir, 6, "x");
  open();
  EXPECT_THAT(newest(), HasSubstr("record 6")) << "an older one might not be the newest";
}

TEST_F(EventLogTest, AppendingNothingIsNothing) {
  open();
  append({});
  EXPECT_EQ(log_->head(), 0U);
}

TEST_F(EventLogTest, AGapIsABug) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  open();
  Record gap = stored("n1");
  gap.seq = 2;
  EXPECT_DEATH((void)log_->append(std::span(&gap, 1), {}), "numbered records with a gap");
}

TEST_F(EventLogTest, ScanVisitsARangeInOrderAndStopsWhenTold) {
  open();
  for (int batch = 0; batch < 10; ++batch) append(std::vector<Record>(30, stored("n" + std::to_string(batch))));
  std::vector<Seq> seen;
  const auto visit = [&](Seq seq, const Result<Record>& read) {
    EXPECT_TRUE(read.has_value() && read->seq == seq);
    seen.push_back(seq);
    return seen.size() < 4;
  };
  ASSERT_TRUE(log_->scan(255, 258, visit).has_value());
  EXPECT_THAT(seen, ElementsAre(255, 256, 257, 258));
  seen.clear();
  ASSERT_TRUE(log_->scan(1, UINT64_MAX, visit).has_value());
  EXPECT_THAT(seen, ElementsAre(1, 2, 3, 4));
  seen.clear();
  ASSERT_TRUE(log_->scan(299, UINT64_MAX, visit).has_value());
  EXPECT_THAT(seen, ElementsAre(299, 300));
  seen.clear();
  ASSERT_TRUE(log_->scan(301, UINT64_MAX, visit).has_value());
  ASSERT_TRUE(log_->scan(5, 4, visit).has_value());
  EXPECT_THAT(seen, IsEmpty());
}

// ---- the index -------------------------------------------------------------------------------------------

TEST(IndexTerms, SayWhatARecordCanBeFoundBy) {
  const auto terms = [](Record made) {
    std::string text;
    for (const auto& [index, value] : index_terms(made)) text += std::string(1, static_cast<char>(index)) + value + " ";
    return text;
  };
  Record made;
  made.node = "n1", made.source = "[fd00::1]:443", made.request_id = "r1";
  made.event = PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}, .status = 403};
  EXPECT_EQ(terms(made), "nn1 fbb faa afd00::1 rr1 ");
  made.event = BindingChanged{.actor = "", .by = "", .from = {"aa"}, .to = {"aa"}};
  EXPECT_EQ(terms(made), "nn1 faa afd00::1 rr1 ") << "listed once";
  made.event = CertificateIssued{.purpose = "", .subject = "", .serial = "5f", .sha256 = "", .not_before = {},
                                 .not_after = {}, .key = "", .public_key = ""};
  EXPECT_EQ(terms(made), "nn1 s5f rr1 ") << "a healthy fleet is not listed by address";
  made.event = TokenAccepted{};
  EXPECT_EQ(terms(made), "nn1 rr1 ");
  made = {};
  made.event = ServerStarted{};
  EXPECT_EQ(terms(made), "w ");
  made.event = TokenAccepted{};
  EXPECT_EQ(terms(made), "");
}

TEST_F(EventLogTest, FindListsByEveryIndex) {
  open();
  append({stored("n1", "aa"), stored("n2", "bb"), stored("n10", "aa"), record(ServerStarted{}),
          record(CertificateIssued{.purpose = "", .subject = "", .serial = "5f", .sha256 = "", .not_before = {},
                                   .not_after = {}, .key = "", .public_key = ""},
                 "n1"),
          record(PasswordRejected{.fingerprint = {"bb"}, .bound = {"aa"}, .status = 403}, "n1")});
  EXPECT_THAT(find(Index::node, "n1"), ElementsAre(1, 5, 6)) << "n10 is another name";
  EXPECT_THAT(find(Index::fingerprint, "aa"), ElementsAre(1, 3, 6));
  EXPECT_THAT(find(Index::fingerprint, "a"), IsEmpty());
  EXPECT_THAT(find(Index::serial, "5f"), ElementsAre(5));
  EXPECT_THAT(find(Index::address, "10.0.0.5"), ElementsAre(1, 2, 3, 4, 6));
  EXPECT_THAT(find(Index::request, "r1"), ElementsAre(1, 2, 3, 4, 5, 6));
  EXPECT_THAT(find(Index::server_wide, ""), ElementsAre(4));
  EXPECT_THAT(find(Index::node, ""), IsEmpty());
  EXPECT_THAT(find(Index::node, "n"), IsEmpty());
  EXPECT_THAT(find(Index::node, std::string("n1\0\0\0\0\0\0\0\0\1", 11)), Not(testing::Contains(2)));
}

TEST_F(EventLogTest, FindKeepsToRangeAndLatest) {
  open();
  for (int batch = 0; batch < 20; ++batch) {
    std::vector<Record> records;
    for (int i = 0; i < 15; ++i) records.push_back(stored("odd")), records.push_back(stored("even"));
    append(std::move(records));
  }
  EXPECT_EQ(find(Index::node, "even").size(), 300U);
  EXPECT_THAT(find(Index::node, "even", 255, 260), ElementsAre(256, 258, 260));
  EXPECT_THAT(find(Index::node, "even", 1, UINT64_MAX, 2), ElementsAre(598, 600));
  EXPECT_THAT(find(Index::node, "even", 1, 511, 3), ElementsAre(506, 508, 510)) << "the newest up to `to`, ascending";
  EXPECT_THAT(find(Index::node, "even", 509, 511, 3), ElementsAre(510));
  EXPECT_THAT(find(Index::node, "even", 1, UINT64_MAX, 0), IsEmpty());
  EXPECT_THAT(find(Index::node, "even", 10, 5), IsEmpty());
  std::vector<Seq> seen;
  ASSERT_TRUE(log_->scan(Index::node, "odd", 250, 256, [&](Seq seq, const Result<Record>& read) {
                    EXPECT_EQ(read->node, "odd");
                    seen.push_back(seq);
                    return true;
                  }).has_value());
  EXPECT_THAT(seen, ElementsAre(251, 253, 255));
}

TEST_F(EventLogTest, IndexEntriesCanBeAskedForOneByOne) {
  open();
  append({stored("n1")});
  EXPECT_TRUE(*log_->has_index_entry(Index::node, "n1", 1));
  EXPECT_FALSE(*log_->has_index_entry(Index::node, "n1", 2));
  EXPECT_FALSE(*log_->has_index_entry(Index::node, "n2", 1));
  EXPECT_FALSE(*log_->has_index_entry(Index::address, "n1", 1));
}

TEST_F(EventLogTest, NodeStatesAreStoredWithTheirRecords) {
  open();
  append({stored("b"), stored("a"), record(BindingHeld{"ops"}, "b")});
  open();
  std::vector<std::string> names;
  ASSERT_TRUE(log_->each_node([&](std::string_view name, const Result<NodeState>& state) {
                    EXPECT_TRUE(state.has_value());
                    names.emplace_back(name);
                    return true;
                  }).has_value());
  EXPECT_THAT(names, ElementsAre("a", "b"));
  EXPECT_TRUE((*log_->node("b"))->held);
  EXPECT_EQ((*log_->node("a"))->version, 2U);
  EXPECT_FALSE(log_->node("c")->has_value());
}

// ---- a record that does not decode -----------------------------------------------------------------------

TEST_F(EventLogTest, ARecordThatDoesNotDecodeIsAVisibleHole) {
  open();
  append({stored("n1"), stored("n1"), stored("n1")});
  log_.reset();
  overwrite_record(options_.dir, 2, "garbage");
  open();
  EXPECT_EQ(log_->read(2).error().code, Errc::corrupt);
  std::vector<std::string> seen;
  const auto visit = [&](Seq seq, const Result<Record>& read) {
    seen.push_back(std::to_string(seq) + (read ? "" : " hole"));
    return true;
  };
  ASSERT_TRUE(log_->scan(1, UINT64_MAX, visit).has_value());
  EXPECT_THAT(seen, ElementsAre("1", "2 hole", "3"));
  seen.clear();
  ASSERT_TRUE(log_->scan(Index::node, "n1", 1, UINT64_MAX, visit).has_value());
  EXPECT_THAT(seen, ElementsAre("1", "2 hole", "3"));
}

TEST_F(EventLogTest, ARecordUnderAnothersNumberIsAHole) {
  open();
  append({stored("n1"), stored("n1")});
  Record moved = *log_->read(1);
  log_.reset();
  overwrite_record(options_.dir, 2, encode(moved));
  open();
  EXPECT_THAT(log_->read(2).error().message, HasSubstr("stored under seq 2 but says it is seq 1"));
}

// ---- who may open ----------------------------------------------------------------------------------------

TEST_F(EventLogTest, ASecondOpenerInThisProcessIsRefused) {
  open();
  const auto second = EventLog::open(options_);
  ASSERT_FALSE(second.has_value());
  EXPECT_EQ(second.error().code, Errc::locked);
  EXPECT_THAT(second.error().message, HasSubstr("another ledger process uses"));
  append({stored("n1")});
  EXPECT_EQ(broken_promises(*log_), none()) << "the first is not disturbed";
}

// RocksDB's lock is a POSIX record lock on LOCK: a child of ours takes it as another server would.
TEST_F(EventLogTest, AnotherProcessIsRefused) {
  open();
  append({stored("n1")});
  log_.reset();
  const std::string lock_file = (options_.dir / "LOCK").string();
  int ready[2], done[2];
  ASSERT_EQ(::pipe(ready), 0);
  ASSERT_EQ(::pipe(done), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    const int file = ::open(lock_file.c_str(), O_RDWR);
    struct flock lock = {};
    lock.l_type = F_WRLCK, lock.l_whence = SEEK_SET;
    const char locked = ::fcntl(file, F_SETLK, &lock) == 0 ? 'y' : 'n';
    char byte = 0;
    ::close(done[1]);
    const bool told = ::write(ready[1], &locked, 1) == 1 && ::read(done[0], &byte, 1) == 0;
    ::_exit(told ? 0 : 1);
  }
  char locked = 0;
  ASSERT_EQ(::read(ready[0], &locked, 1), 1);
  ASSERT_EQ(locked, 'y');
  EXPECT_EQ(open_error().code, Errc::locked);
  for (const int end : {ready[0], ready[1], done[0], done[1]}) ::close(end);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0);
  open();
  EXPECT_EQ(log_->head(), 1U);
}

TEST_F(EventLogTest, NoLogAndNotToMakeOne) {
  options_.create = false;
  const Error error = open_error();
  EXPECT_EQ(error.code, Errc::not_found);
  EXPECT_EQ(error.message, "there is no log in " + options_.dir.string());
}

TEST_F(EventLogTest, ADirectoryThatCannotBeMade) {
  test::put_file(dir_ / "file", "x");
  options_.dir = dir_ / "file" / "events";
  EXPECT_EQ(open_error().code, Errc::io);
}

// Root is let in everywhere, so a child that is not root asks.
TEST_F(EventLogTest, NoPermission) {
  open();
  log_.reset();
  fs::permissions(options_.dir, fs::perms::none);
  fs::permissions(dir_.path(), fs::perms::owner_all | fs::perms::others_exec | fs::perms::group_exec);
  int out[2];
  ASSERT_EQ(::pipe(out), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    if (::geteuid() == 0 && ::setresuid(65534, 65534, 65534) != 0) ::_exit(2);
    const auto opened = EventLog::open(options_);
    const std::string said = opened ? "opened" : opened.error().message;
    const bool told = ::write(out[1], said.data(), said.size()) == static_cast<ssize_t>(said.size());
    ::_exit(told && !opened && opened.error().code == Errc::io ? 0 : 1);
  }
  ::close(out[1]);
  std::string said;
  char buffer[1000];
  for (ssize_t got = 0; (got = ::read(out[0], buffer, sizeof buffer)) > 0;) said.append(buffer, static_cast<std::size_t>(got));
  ::close(out[0]);
  int status = -1;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(status, 0) << said;
  EXPECT_THAT(said, HasSubstr("cannot open " + options_.dir.string()));
  EXPECT_THAT(said, HasSubstr("run as its owner"));
  EXPECT_THAT(said, Not(HasSubstr("\n")));
  fs::permissions(options_.dir, fs::perms::owner_all);
}

// Changes what the store says about itself, and gives it column families that we do not know. The log must be closed.
void set_meta(const fs::path& dir, const std::map<std::string, std::string>& meta,
              const std::vector<std::string>& further = {}) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const char* name : {"default", "events", "index", "nodes", "tree"})
    families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, dir.string(), families, &handles, &db).ok());
  for (const auto& [key, value] : meta) EXPECT_TRUE(db->Put({}, handles[0], key, value).ok());
  for (const std::string& name : further) {
    handles.push_back(nullptr);
    EXPECT_TRUE(db->CreateColumnFamily({}, name, &handles.back()).ok());
  }
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;
}

TEST_F(EventLogTest, ANewerStoreFormatIsRefused) {
  open();
  append({stored("n1")});
  log_.reset();
  set_meta(options_.dir, {{"format", "99"}, {"program", "9.4.1"}});
  const std::string words = std::string("has store format 99, written by ledger 9.4.1; this is ledger ") +
                            LEDGER_VERSION + ", which reads formats up to 2: use the release that wrote it";
  EXPECT_EQ(open_error().code, Errc::invalid);
  EXPECT_THAT(open_error().message, HasSubstr(words));
  EXPECT_EQ(EventLog::follow(options_).error().code, Errc::invalid);
  EXPECT_THAT(EventLog::follow(options_).error().message, HasSubstr(words));
  // The same where RocksDB sees the difference first.
  set_meta(options_.dir, {}, {"shards", "tombs"});
  EXPECT_EQ(open_error().code, Errc::invalid);
  EXPECT_THAT(open_error().message, HasSubstr(words));
  EXPECT_THAT(EventLog::follow(options_).error().message, HasSubstr(words));
}

TEST_F(EventLogTest, AFormatThatIsNoneIsDamage) {
  open();
  log_.reset();
  for (const char* text : {"", "0", "-1", "two", "2x"}) {
    set_meta(options_.dir, {{"format", text}});
    EXPECT_EQ(open_error().code, Errc::corrupt) << text;
  }
}

// ---- copies ----------------------------------------------------------------------------------------------

TEST_F(EventLogTest, NobodyButItsOwnCopierWritesToACopy) {
  using CopyOf = EventLog::Options::CopyOf;
  const auto error_of = [&](std::optional<CopyOf> copy_of) {
    EventLog::Options options = options_;
    options.copy_of = std::move(copy_of);
    const auto opened = EventLog::open(options);
    return opened ? Error{} : opened.error();
  };
  options_.copy_of = CopyOf{"00112233445566ff", CopyPurpose::backup};
  open();
  EXPECT_EQ(log_->id(), "00112233445566ff");
  EXPECT_EQ(log_->copy_purpose(), CopyPurpose::backup);
  log_.reset();
  EXPECT_THAT(error_of(std::nullopt).message, HasSubstr("is a backup, which only `ledger backup` writes to"));
  EXPECT_EQ(error_of(CopyOf{"00112233445566ff", CopyPurpose::restore}).code, Errc::invalid);
  EXPECT_EQ(error_of(CopyOf{"ff112233445566ff", CopyPurpose::backup}).code, Errc::conflict);
  EXPECT_TRUE(EventLog::follow(options_).has_value()) << "everybody may read it";

  options_.dir = options_.dir.string() + "-restored";
  options_.copy_of->purpose = CopyPurpose::restore;
  open();
  Record record = stored("n1");
  record.seq = 1;
  record.time = *Time::parse("2024-06-11T07:00:00Z");
  NodeState state;
  ASSERT_TRUE(apply(record, state));
  ASSERT_TRUE(log_->append_copies(std::vector<EventLog::Copied>{{record, encode(record)}},
                                  std::vector<EventLog::NodeEntry>{{"n1", state}}));
  log_.reset();
  EXPECT_THAT(error_of(std::nullopt).message, HasSubstr("half a restore, which was interrupted"));
  open();
  Record epoch = record;
  epoch.seq = 2;
  epoch.node.clear();
  epoch.event = EpochStarted{.cause = "restored", .head_before = 1, .head_after = 1};
  ASSERT_TRUE(log_->end_copy(epoch));
  log_.reset();
  EXPECT_THAT(error_of(options_.copy_of).message, HasSubstr("nothing is copied into it"));
  options_.copy_of.reset();
  open();
  EXPECT_EQ(log_->head(), 2U);
  EXPECT_EQ(broken_promises(*log_), none());
}

// ---- following -------------------------------------------------------------------------------------------

class Follow : public EventLogTest {
 protected:
  std::unique_ptr<EventLog> follow() {
    Result<std::unique_ptr<EventLog>> opened = EventLog::follow(options_);
    if (opened) return std::move(*opened);
    ADD_FAILURE() << opened.error().message;
    return nullptr;
  }
  std::set<std::string> files() const {
    std::set<std::string> names;
    for (const auto& entry : fs::directory_iterator(options_.dir)) names.insert(entry.path().filename());
    return names;
  }
};

TEST_F(Follow, SeesNewRecordsAfterCatchingUp) {
  open();
  append({stored("n1")});
  const auto follower = follow();
  ASSERT_NE(follower, nullptr);
  EXPECT_EQ(follower->id(), log_->id());
  EXPECT_EQ(follower->head(), 1U);
  for (int i = 2; i <= 20; ++i) {
    append({stored("n" + std::to_string(i)), stored("n1")});
    ASSERT_TRUE(follower->catch_up().has_value());
    EXPECT_EQ(follower->head(), log_->head());
    EXPECT_EQ(broken_promises(*follower), none());
  }
}

TEST_F(Follow, OpensAloneAndLeavesTheDirectoryAsItIs) {
  open();
  append({stored("n1"), stored("n2")});
  log_.reset();
  const std::set<std::string> before = files();
  {
    const auto follower = follow();
    ASSERT_NE(follower, nullptr);
    EXPECT_EQ(follower->head(), 2U);
    EXPECT_EQ(broken_promises(*follower), none());
  }
  EXPECT_EQ(files(), before);
  open();
  EXPECT_EQ(log_->head(), 2U);
}

// A flush moves records from the write-ahead log to a table while the follower looks at both.
TEST_F(Follow, SurvivesFlushesAndReopening) {
  open();
  append({stored("n0")});
  const auto follower = follow();
  ASSERT_NE(follower, nullptr);
  for (int round = 1; round <= 3; ++round) {
    for (int i = 0; i < 50; ++i) append({stored("n" + std::to_string(i))});
    open();  // recovery flushes, and deletes the write-ahead log
    append({stored("after")});
    ASSERT_TRUE(follower->catch_up().has_value());
    EXPECT_EQ(follower->head(), log_->head());
    EXPECT_EQ(broken_promises(*follower), none());
  }
}

TEST_F(Follow, NoLog) {
  const auto follower = EventLog::follow(options_);
  ASSERT_FALSE(follower.has_value());
  EXPECT_EQ(follower.error().code, Errc::not_found);
  EXPECT_THAT(follower.error().message, HasSubstr("there is no log in " + options_.dir.string()));
  EXPECT_FALSE(fs::exists(options_.dir));
}

TEST_F(Follow, ATemporaryDirectoryThatIsNoneIsAnErrorNotAnException) {
  open();
  append({stored("n1")});
  const char* const before = std::getenv("TMPDIR");
  const std::string saved = before == nullptr ? "" : before;
  ::setenv("TMPDIR", (dir_ / "nowhere").c_str(), 1);
  const auto follower = EventLog::follow(options_);
  before == nullptr ? ::unsetenv("TMPDIR") : ::setenv("TMPDIR", saved.c_str(), 1);
  ASSERT_FALSE(follower.has_value());
  EXPECT_EQ(follower.error().code, Errc::io);
  EXPECT_THAT(follower.error().message, HasSubstr("TMPDIR"));
}

// ---- damage ----------------------------------------------------------------------------------------------

class Damage : public EventLogTest {
 protected:
  Damage() : EventLogTest(test::memory_directory()) { use_faults(); }  // none is armed: only to be quick

  // Eight batches of one record each; remembers how long the write-ahead log was after each.
  void SetUp() override {
    open();
    sizes_ = {fs::file_size(wal())};
    for (int i = 1; i <= 8; ++i) {
      append({stored("n" + std::to_string(i), "fingerprint" + std::to_string(i))});
      sizes_.push_back(fs::file_size(wal()));
    }
    wal_ = wal();
    log_.reset();
    bytes_ = test::file_bytes(wal_);
    ASSERT_EQ(bytes_.size(), sizes_.back());
    ASSERT_GT(sizes_[1], sizes_[0]);
    pristine_ = dir_ / "pristine";
    fs::copy(options_.dir, pristine_, fs::copy_options::recursive);
  }
  void damage(const std::string& bytes) {
    fs::remove_all(options_.dir);
    fs::copy(pristine_, options_.dir, fs::copy_options::recursive);
    test::put_file(wal_, bytes);
  }

  std::vector<std::uintmax_t> sizes_;
  fs::path wal_, pristine_;
  std::string bytes_;
};

TEST_F(Damage, ATornTailIsDroppedAndEverythingBeforeItIsKept) {
  // Every byte of the head and of the end, some between.
  for (std::uintmax_t cut = sizes_[7]; cut < sizes_[8]; cut += cut < sizes_[7] + 8 || cut + 4 >= sizes_[8] ? 1 : 37) {
    damage(bytes_.substr(0, cut));
    open();
    EXPECT_EQ(log_->head(), 7U) << "cut to " << cut << " of " << sizes_[8];
    EXPECT_EQ(broken_promises(*log_), none());
    append({stored("n9")});
    EXPECT_EQ(log_->head(), 8U);
    open();
    EXPECT_EQ(broken_promises(*log_), none());
    log_.reset();
  }
}

TEST_F(Damage, DamageInTheMiddleIsRefused) {
  for (const std::size_t batch : {1U, 3U, 6U}) {
    std::string bytes = bytes_;
    const std::size_t middle = (sizes_[batch] + sizes_[batch + 1]) / 2;
    bytes[middle] = static_cast<char>(~bytes[middle]);
    damage(bytes);
    const Error error = open_error();
    EXPECT_EQ(error.code, Errc::corrupt) << "batch " << batch + 1;
    EXPECT_THAT(error.message, HasSubstr("restore a backup"));
  }
}

// RocksDB takes a length that leads beyond the end, and the type of a recycled file, for the end of the file.
TEST_F(Damage, NoFlippedBitOfAFrameMakesRecordsDisappear) {
  int refused = 0;
  for (const std::size_t batch : {0U, 4U, 7U})
    for (std::size_t bit = 0; bit < 24; ++bit) {
      std::string bytes = bytes_;
      char& byte = bytes[sizes_[batch] + 4 + bit / 8];
      byte = static_cast<char>(byte ^ (1 << bit % 8));
      damage(bytes);
      EXPECT_EQ(EventLog::follow(options_).has_value(), false) << "batch " << batch + 1 << " bit " << bit;
      const Error error = open_error();
      EXPECT_EQ(error.code, Errc::corrupt) << "batch " << batch + 1 << " bit " << bit;
      refused += error.message.find("would pass for never written") != std::string::npos ? 1 : 0;
    }
  EXPECT_GT(refused, 10) << "these RocksDB itself would have opened";
}

TEST_F(Damage, AWriteAheadLogThatIsGoneIsRefused) {
  fs::remove(wal_);
  for (int attempt = 0; attempt < 2; ++attempt) {
    const Error error = open_error();
    EXPECT_EQ(error.code, Errc::corrupt);
    EXPECT_THAT(error.message, HasSubstr("has lost its write-ahead log"));
  }
  test::put_file(wal_, bytes_);  // put back: nothing has been made worse
  open();
  EXPECT_EQ(log_->head(), 8U);
}

TEST_F(Damage, AManifestThatIsDamagedIsRefused) {
  damage(bytes_);
  for (const auto& entry : fs::directory_iterator(options_.dir)) {
    if (!entry.path().filename().string().starts_with("MANIFEST-")) continue;
    std::string bytes = test::file_bytes(entry.path());
    bytes[bytes.size() / 2] = static_cast<char>(~bytes[bytes.size() / 2]);
    test::put_file(entry.path(), bytes);
  }
  EXPECT_EQ(open_error().code, Errc::corrupt);
}

// ---- failing writes and power loss -----------------------------------------------------------------------

class PowerLoss : public EventLogTest {
 protected:
  PowerLoss() : EventLogTest(test::memory_directory()) { use_faults(); }
  void lose_power() {
    disk_.fs->cut_power();
    log_.reset();
    disk_.fs->restore_power();
  }
};

TEST_F(PowerLoss, NothingAcknowledgedIsLost) {
  for (int round = 0; round < 12; ++round) {
    open();
    const Seq before = log_->head();
    for (int i = 0; i <= round; ++i) append({stored("n" + std::to_string(i)), stored("m")});
    const Seq acknowledged = log_->head();
    EXPECT_EQ(acknowledged, before + 2 * static_cast<Seq>(round + 1));
    lose_power();
    open();
    EXPECT_EQ(log_->head(), acknowledged);
    EXPECT_EQ(broken_promises(*log_), none());
  }
}

// The test of the test: without the sync, power loss does take records away.
TEST_F(PowerLoss, WhatIsNotSyncedIsLost) {
  open();
  append({stored("n1")});
  disk_.fs->fail(WritePoint::wal_sync, Face::absent);
  EXPECT_FALSE(try_append({stored("n2")}).has_value());
  EXPECT_TRUE(disk_.fs->failed());
  lose_power();
  open();
  EXPECT_EQ(log_->head(), 1U);
}

struct FailureRow {
  const char* name;
  WritePoint point;
  Face face;
  bool power_loss;
  Seq head_after;  // with one record acknowledged before
};

class FailedAppend : public PowerLoss, public ::testing::WithParamInterface<FailureRow> {};

// After a failed append the record may be there or not; after opening again it is known, and the log is whole.
TEST_P(FailedAppend, IsThereOrNotAndTheLogIsWhole) {
  const FailureRow& row = GetParam();
  open();
  append({stored("n1")});
  disk_.fs->fail(row.point, row.face);
  const Result<void> appended = try_append({stored("n2"), stored("n3")});
  ASSERT_FALSE(appended.has_value());
  EXPECT_EQ(appended.error().code, Errc::io);
  EXPECT_EQ(log_->head(), 1U) << "a failed append is not acknowledged";
  if (row.power_loss) lose_power();
  open();
  EXPECT_EQ(log_->head(), row.head_after);
  EXPECT_EQ(broken_promises(*log_), none());
  append({stored("n4")});
  open();
  EXPECT_EQ(log_->head(), row.head_after + 1);
  EXPECT_EQ(broken_promises(*log_), none());
}

INSTANTIATE_TEST_SUITE_P(
    Faces, FailedAppend,
    ::testing::Values(FailureRow{"append_absent", WritePoint::wal_append, Face::absent, false, 1},
                      FailureRow{"append_torn", WritePoint::wal_append, Face::torn, false, 1},
                      FailureRow{"append_present", WritePoint::wal_append, Face::present, false, 3},
                      FailureRow{"append_present_power_loss", WritePoint::wal_append, Face::present, true, 1},
                      FailureRow{"sync_absent", WritePoint::wal_sync, Face::absent, false, 3},
                      FailureRow{"sync_absent_power_loss", WritePoint::wal_sync, Face::absent, true, 1},
                      FailureRow{"sync_torn_power_loss", WritePoint::wal_sync, Face::torn, true, 1},
                      FailureRow{"sync_present_power_loss", WritePoint::wal_sync, Face::present, true, 3}),
    [](const auto& row) { return std::string(row.param.name); });

// Every write of creating a log and appending to it fails once, in every face, with and without power loss.
TEST_F(PowerLoss, AnyWriteMayFailAndNothingAcknowledgedIsLost) {
  int failures = 0;
  const std::vector<WritePoint> points = {WritePoint::wal_append,      WritePoint::wal_sync,
                                          WritePoint::table_append,    WritePoint::table_sync,
                                          WritePoint::manifest_append, WritePoint::manifest_sync,
                                          WritePoint::other_append,    WritePoint::other_sync,
                                          WritePoint::rename,          WritePoint::directory_sync};
  for (const WritePoint point : points)
    for (const Face face : {Face::absent, Face::torn, Face::present})
      for (int skip = 0; skip < 2; ++skip) {
        fs::remove_all(options_.dir);
        Seq acknowledged = 0;
        disk_.fs->fail(point, face, skip);
        for (int life = 0; life < 2; ++life) {
          const Result<void> opened = try_open();
          for (int i = 0; opened && i < 3; ++i) {
            if (!try_append({stored("n" + std::to_string(i))})) break;  // the owner stops
            acknowledged = log_->head();
          }
          lose_power();
        }
        failures += disk_.fs->failed() ? 1 : 0;
        disk_.fs->disarm();
        const std::string where = "point " + std::to_string(static_cast<int>(point)) + " face " +
                                  std::to_string(static_cast<int>(face)) + " skip " + std::to_string(skip);
        const Result<void> opened = try_open();
        ASSERT_TRUE(opened.has_value()) << where << ": " << opened.error().message;
        EXPECT_GE(log_->head(), acknowledged) << where;
        EXPECT_EQ(broken_promises(*log_), none()) << where;
        log_.reset();
      }
  EXPECT_GT(failures, 40) << "the faults must be met to mean something";
}

// What a log looks like that was written before there was a tree.
void remove_tree(const fs::path& dir) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const char* name : {"default", "events", "index", "nodes", "tree"})
    families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, dir.string(), families, &handles, &db).ok());
  ASSERT_TRUE(db->Delete({}, "tree").ok());
  ASSERT_TRUE(db->DropColumnFamily(handles[4]).ok());
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;
}

TEST_F(EventLogTest, AnOlderFormatIsMadeThePresentOneAndThatIsKnown) {
  open();
  EXPECT_FALSE(log_->upgrade().has_value());
  for (int i = 0; i < 9; ++i) append({stored("n" + std::to_string(i))});
  const TreeHead head = *log_->tree();
  log_.reset();
  set_meta(options_.dir, {{"format", "1"}});
  remove_tree(options_.dir);
  EXPECT_EQ((*EventLog::follow(options_))->head(), 9U) << "readers need no upgrade";
  open();
  EXPECT_EQ(*log_->tree(), head);
  ASSERT_TRUE(log_->upgrade().has_value());
  EXPECT_EQ(log_->upgrade()->from, 1);
  EXPECT_EQ(log_->upgrade()->head, 9U);
  append({stored("n10")});
  open();
  EXPECT_EQ(log_->upgrade()->head, 9U) << "it stays known";
  EXPECT_EQ(broken_promises(*log_), none());
}

TEST_F(EventLogTest, MergingTheFilesChangesNothingButTheirSize) {
  open();
  for (int round = 0; round < 40; ++round) {
    std::vector<Record> records;
    for (int i = 0; i < 50; ++i) records.push_back(stored("n" + std::to_string(i)));
    append(records);
    ASSERT_TRUE(log_->flush());
  }
  const TreeHead head = *log_->tree();
  const std::uint64_t before = log_->disk_bytes();
  std::atomic<bool> stop{true};
  EXPECT_EQ(log_->compact(&stop, 0).error().code, Errc::unavailable);
  stop = false;
  EXPECT_THAT(log_->compact(&stop, std::uint64_t{1} << 60).error().message, HasSubstr("make room first"));
  ASSERT_TRUE(log_->compact(&stop, 0));
  EXPECT_LT(log_->disk_bytes(), before);
  EXPECT_EQ(*log_->tree(), head);
  append({stored("n1")});
  EXPECT_EQ(broken_promises(*log_), none());
}

// Takes away, or puts, one entry of a family of a closed log.
void spoil(const fs::path& dir, std::size_t family, Seq seq, const std::optional<std::string>& value) {
  std::vector<rocksdb::ColumnFamilyDescriptor> families;
  for (const char* name : {"default", "events", "index", "nodes", "tree"})
    families.emplace_back(name, rocksdb::ColumnFamilyOptions());
  std::vector<rocksdb::ColumnFamilyHandle*> handles;
  rocksdb::DB* db = nullptr;
  ASSERT_TRUE(rocksdb::DB::Open({}, dir.string(), families, &handles, &db).ok());
  std::string key(8, '\0');
  key[7] = static_cast<char>(seq);
  ASSERT_TRUE((value ? db->Put({}, handles[family], key, *value) : db->Delete({}, handles[family], key)).ok());
  for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
  delete db;
}

TEST_F(EventLogTest, TheTreeGrowsWithTheRecordsAndIsFoundAgain) {
  open();
  EXPECT_EQ(log_->tree()->size, 0U);
  EXPECT_EQ(to_hex(view_of(log_->tree()->root)), sha256_hex(""));
  std::vector<TreeHead> heads = {*log_->tree()};
  for (int i = 1; i <= 70; ++i) {
    append({stored("n" + std::to_string(i % 5))});
    heads.push_back(*log_->tree());
    EXPECT_EQ(heads.back().size, static_cast<std::uint64_t>(i));
    if (i % 9 == 0) open();
    EXPECT_EQ(*log_->tree(), heads.back());
  }
  // The past can be proved from what is stored.
  for (std::uint64_t from = 0; from <= 70; ++from) {
    EXPECT_EQ(*root_at(from, log_->tree_nodes()), heads[from].root);
    EXPECT_TRUE(shows_consistency(*consistency_proof(from, 70, log_->tree_nodes()), heads[from], heads[70]));
    if (from == 0) continue;
    EXPECT_TRUE(shows_inclusion(*inclusion_proof(from - 1, 70, log_->tree_nodes()), from - 1,
                                leaf_hash(*log_->read_bytes(from)), heads[70]));
  }
  EXPECT_EQ(broken_promises(*log_), none());
}

TEST_F(EventLogTest, BatchesOfAnySizeMakeTheSameTree) {
  open();
  std::vector<Record> many;
  for (int i = 0; i < 37; ++i) many.push_back(stored("n" + std::to_string(i)));
  append(many);
  append({stored("n1")});
  append(many);
  EXPECT_EQ(log_->tree()->size, 75U);
  EXPECT_EQ(broken_promises(*log_), none());
}

TEST_F(EventLogTest, AnOlderLogGetsItsTreeWhenItsOwnerOpensIt) {
  open();
  std::vector<Record> many;
  for (int i = 0; i < 5000; ++i) many.push_back(stored("n" + std::to_string(i % 7)));
  append(many);
  const TreeHead before = *log_->tree();
  log_.reset();
  remove_tree(options_.dir);
  {
    const auto follower = EventLog::follow(options_);
    ASSERT_TRUE(follower.has_value()) << follower.error().message;
    EXPECT_EQ((*follower)->head(), 5000U) << "the records can be read";
    EXPECT_EQ((*follower)->tree().error().code, Errc::not_found);
    EXPECT_THAT((*follower)->tree().error().message, HasSubstr("when a server of this release starts"));
  }
  std::vector<std::uint64_t> told;
  options_.on_tree_progress = [&](std::uint64_t done, std::uint64_t total) {
    EXPECT_EQ(total, 5000U);
    told.push_back(done);
  };
  open();
  EXPECT_THAT(told, ElementsAre(4096U, 5000U));
  EXPECT_EQ(*log_->tree(), before);
  append({stored("new")});
  EXPECT_EQ(broken_promises(*log_), none());
  told.clear();
  open();
  EXPECT_THAT(told, IsEmpty()) << "made once";
}

TEST_F(EventLogTest, MakingTheTreeGoesOnWhereItWasInterrupted) {
  use_faults();
  open();
  std::vector<Record> many;
  for (int i = 0; i < 9000; ++i) many.push_back(stored("n" + std::to_string(i % 7)));
  append(many);
  const TreeHead before = *log_->tree();
  log_.reset();
  remove_tree(options_.dir);
  options_.on_tree_progress = [&](std::uint64_t done, std::uint64_t) {
    if (done == 4096) disk_.fs->fail(WritePoint::wal_append, Face::torn);
  };
  EXPECT_EQ(open_error().code, Errc::io);
  std::vector<std::uint64_t> told;
  options_.on_tree_progress = [&](std::uint64_t done, std::uint64_t) { told.push_back(done); };
  open();
  EXPECT_THAT(told, ElementsAre(8192U, 9000U));
  EXPECT_EQ(*log_->tree(), before);
  EXPECT_EQ(broken_promises(*log_), none());
}

TEST_F(EventLogTest, ATreeThatDoesNotEndWithTheRecordsIsRefused) {
  open();
  append({stored("a"), stored("b"), stored("c")});
  log_.reset();
  spoil(options_.dir, 1, 3, std::nullopt);  // the last record
  Error error = open_error();
  EXPECT_EQ(error.code, Errc::corrupt);
  EXPECT_THAT(error.message, HasSubstr("has 2 records and a tree over 3"));
  spoil(options_.dir, 4, 3, std::nullopt);
  open();  // both are gone: only a checkpoint can tell
  append({stored("c")});
  log_.reset();
  spoil(options_.dir, 4, 3, std::nullopt);
  EXPECT_THAT(open_error().message, HasSubstr("has 3 records and a tree over 2"));
  spoil(options_.dir, 4, 3, "short");
  EXPECT_THAT(open_error().message, HasSubstr("is damaged at node 0/2"));
}

TEST_F(EventLogTest, AnOlderLogWithAGapGetsNoTree) {
  open();
  append({stored("a"), stored("b"), stored("c")});
  log_.reset();
  remove_tree(options_.dir);
  {
    std::vector<rocksdb::ColumnFamilyDescriptor> families;
    for (const char* name : {"default", "events", "index", "nodes"})
      families.emplace_back(name, rocksdb::ColumnFamilyOptions());
    std::vector<rocksdb::ColumnFamilyHandle*> handles;
    rocksdb::DB* db = nullptr;
    ASSERT_TRUE(rocksdb::DB::Open({}, options_.dir.string(), families, &handles, &db).ok());
    ASSERT_TRUE(db->Delete({}, handles[1], std::string("\0\0\0\0\0\0\0\2", 8)).ok());
    for (rocksdb::ColumnFamilyHandle* handle : handles) db->DestroyColumnFamilyHandle(handle);
    delete db;
  }
  const Error error = open_error();
  EXPECT_EQ(error.code, Errc::corrupt);
  EXPECT_THAT(error.message, HasSubstr("has no record 2"));
}

// RocksDB would ask for room in a thread of its own, and write on where it finds some.
TEST_F(PowerLoss, AFullDiskIsNotRecoveredFromBehindOurBack) {
  open();
  append({stored("n1")});
  disk_.fs->fail(WritePoint::wal_append, Face::absent, 0, rocksdb::IOStatus::NoSpace("the disk is full"));
  const Result<void> appended = try_append({stored("n2")});
  ASSERT_FALSE(appended.has_value());
  EXPECT_THAT(appended.error().message, HasSubstr("no space left for"));
  // That nothing happens can only be watched for a while; that thread would begin at once.
  const auto until = std::chrono::steady_clock::now() + std::chrono::milliseconds(300);
  while (!disk_.fs->others_asked_for_room() && std::chrono::steady_clock::now() < until)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  EXPECT_FALSE(disk_.fs->others_asked_for_room());
  EXPECT_FALSE(try_append({stored("n3")}).has_value()) << "room or not: the owner opens it anew";
}

TEST_F(EventLogTest, FreeBytesAreThoseOfTheFileSystem) {
  use_faults();
  open();
  ASSERT_TRUE(log_->free_bytes().has_value());
  EXPECT_GT(*log_->free_bytes(), 0U);
  disk_.fs->set_free_bytes(123);
  EXPECT_EQ(log_->free_bytes(), 123U);
}

}  // namespace
}  // namespace ledger
