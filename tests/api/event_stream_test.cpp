// GET /ledger/v1/events as its consumers have it: a real server, real TLS, real streams.
#include "api/event_stream.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>
#include <future>
#include <mutex>

#include "ledger/token_life.h"
#include "tests/support/raw_link.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using test::eventually;
using test::request_of;
using test::RunningServer;
using testing::HasSubstr;

struct SeenEvent {
  std::string id, event, data;
};

// What a browser's EventSource makes of a stream, by the HTML standard: comments are nothing, an id without data is
// kept.
class Parser {
 public:
  void feed(std::string_view piece) {
    text_ += piece;
    for (std::size_t end; (end = text_.find('\n')) != std::string::npos; text_.erase(0, end + 1))
      take(text_.substr(0, end));
  }
  std::vector<SeenEvent> events;
  std::string last_id;
  int comments = 0;

 private:
  void take(const std::string& line) {
    if (line.empty()) {
      if (!next_.id.empty()) last_id = next_.id;
      if (!next_.data.empty()) events.push_back(next_);
      next_ = {};
    } else if (line.starts_with(":")) {
      ++comments;
    } else {
      const auto colon = line.find(": ");
      ASSERT_NE(colon, std::string::npos) << line;
      const std::string name = line.substr(0, colon), value = line.substr(colon + 2);
      ASSERT_TRUE(name == "id" || name == "event" || name == "data") << line;
      (name == "id" ? next_.id : name == "event" ? next_.event : next_.data) += value;
    }
  }
  std::string text_;
  SeenEvent next_;
};

class Stream {
 public:
  Stream(const RunningServer& server, const std::string& query, const std::string& last_id = "",
         const std::string& bearer = "")
      : thread_([=, this, client = std::make_shared<HttpsClient>(server.client()),
                 authorization = bearer.empty() ? server.operator_bearer() : bearer] {
          HttpsRequest request = request_of("GET", "/ledger/v1/events" + query, authorization);
          if (!last_id.empty()) request.headers = {{"Last-Event-ID", last_id}};
          const auto response = client->stream(request, 60s, [this](std::string_view piece) {
            const std::lock_guard lock(mutex_);
            parser_.feed(piece);
            return !enough_;
          });
          const std::lock_guard lock(mutex_);
          status_ = response ? response->status : -1;
          body_ = response ? response->body : response.error().message;
          if (response) type_ = response->header("Content-Type");
        }) {}
  ~Stream() { leave(); }

  std::vector<SeenEvent> events() const {
    const std::lock_guard lock(mutex_);
    return parser_.events;
  }
  std::size_t count() const {
    const std::lock_guard lock(mutex_);
    return parser_.events.size();
  }
  std::vector<Seq> seqs() const {
    std::vector<Seq> seqs;
    for (const SeenEvent& event : events()) seqs.push_back(std::stoull(event.id));
    return seqs;
  }
  std::string last_id() const {
    const std::lock_guard lock(mutex_);
    return parser_.last_id;
  }
  // Ends it from this side.
  void leave() {
    {
      const std::lock_guard lock(mutex_);
      enough_ = true;
    }
    wait();
  }
  // For one that the server ends. Its status; -1: it broke off.
  int wait() {
    if (thread_.joinable()) thread_.join();
    return status_;
  }
  bool over() const {
    const std::lock_guard lock(mutex_);
    return status_ != 0;
  }
  const std::string& body() const { return body_; }
  const std::string& type() const { return type_; }

 private:
  mutable std::mutex mutex_;
  Parser parser_;
  bool enough_ = false;
  int status_ = 0;
  std::string body_, type_;
  std::thread thread_;  // last: it uses the others
};

std::vector<Seq> all_seqs(const RunningServer& server, Seq after = 0) {
  std::vector<Seq> seqs;
  for (const Record& record : server.records())
    if (record.seq > after) seqs.push_back(record.seq);
  return seqs;
}

TEST(EventStream, HasTheLogAndThenWhatComes) {
  RunningServer server;
  server.join("web-1", "pw");
  Stream stream(server, "?after=0");
  ASSERT_TRUE(eventually([&] { return stream.seqs() == all_seqs(server); }));
  server.join("web-2", "pw2");
  ASSERT_TRUE(eventually([&] { return stream.seqs() == all_seqs(server); }));
  const auto events = stream.events();
  const auto records = server.records();
  for (std::size_t i = 0; i < events.size(); ++i) {
    EXPECT_EQ(events[i].event, name_of(records[i].kind()));
    EXPECT_EQ(boost::json::parse(events[i].data).at("seq"), records[i].seq);
  }
  stream.leave();
  EXPECT_EQ(stream.type(), "text/event-stream");
}

TEST(EventStream, GoesOnBehindTheLastEventWithoutGapOrDouble) {
  RunningServer server;
  for (int i = 0; i < 20; ++i) server.join("web-" + std::to_string(i), "pw" + std::to_string(i));
  std::vector<Seq> seen;
  std::string last = "0";
  while (seen.size() < all_seqs(server).size()) {
    // The URL stays what it was, as a browser's does; the header counts.
    Stream stream(server, "?after=0", last);
    const std::size_t before = seen.size();
    ASSERT_TRUE(eventually([&] { return !stream.seqs().empty(); }));
    stream.leave();
    for (const Seq seq : stream.seqs()) seen.push_back(seq);
    last = std::to_string(seen.back());
    ASSERT_GT(seen.size(), before);
    if (seen.size() < 100) server.join("more-" + last, "pw" + last);
  }
  EXPECT_EQ(seen, all_seqs(server));
}

TEST(EventStream, WithoutAPlaceItBeginsNow) {
  RunningServer server;
  server.join("web-1", "pw");
  const Seq before = all_seqs(server).back();
  Stream stream(server, "");
  ASSERT_TRUE(eventually([&] { return stream.last_id() == std::to_string(before); })) << "it says where it stands";
  server.join("web-2", "pw2");
  ASSERT_TRUE(eventually([&] { return !stream.seqs().empty() && stream.seqs() == all_seqs(server, before); }));
}

TEST(EventStream, FiltersByNodeAndKind) {
  RunningServer server;
  Stream stream(server, "?after=0&node=WEB-2&kind=password_stored,password_rejected");
  server.join("web-1", "pw");
  server.join("web-2", "pw2");
  server.join("web-2", "other");
  ASSERT_TRUE(eventually([&] { return stream.events().size() == 2; }));
  EXPECT_EQ(stream.events()[0].event, "password_stored");
  EXPECT_EQ(stream.events()[1].event, "password_rejected");
  EXPECT_THAT(stream.events()[1].data, HasSubstr("\"web-2\""));
}

TEST(EventStream, RefusalsAreSaid) {
  RunningServer server;
  const auto get = [&](const std::string& query, const std::string& bearer) {
    return server.get("/ledger/v1/events" + query, bearer);
  };
  const std::string bearer = server.operator_bearer();
  EXPECT_EQ(get("", "").status, 401);
  EXPECT_EQ(get("", "Bearer wrong").status, 401);
  EXPECT_EQ(get("", server.agent()).status, 401);
  for (const char* query : {"?after=x", "?after=", "?after=-1", "?after=99999999999999999999", "?kind=nonsense",
                            "?node=no%20name", "?since=1"})
    EXPECT_EQ(get(query, bearer).status, 400) << query;
  const auto beyond = get("?after=1000000", bearer);
  EXPECT_EQ(beyond.status, 409);
  EXPECT_THAT(beyond.body, HasSubstr("behind the end of the log"));
  HttpsRequest bad_id = request_of("GET", "/ledger/v1/events", bearer);
  bad_id.headers = {{"Last-Event-ID", "abc"}};
  EXPECT_EQ(server.send(bad_id).status, 400);
  EXPECT_EQ(server.send(request_of("POST", "/ledger/v1/events", bearer)).status, 405);
}

TEST(EventStream, EndsWithTheServer) {
  RunningServer server;
  auto stream = std::make_unique<Stream>(server, "?after=0");
  ASSERT_TRUE(eventually([&] { return !stream->seqs().empty(); }));
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(server.stop());
  EXPECT_LT(std::chrono::steady_clock::now() - began, 8s) << "it does not wait to be cut off";
  EXPECT_EQ(stream->wait(), 200) << "a whole answer: " << stream->body();
}

TEST(EventStream, EndsWithItsToken) {
  RunningServer server;
  HttpsRequest create = request_of("POST", "/ledger/v1/tokens", server.operator_bearer());
  create.body = R"({"actor":"me","reason":"test","class":"operator","role":"read"})";
  const auto made = server.send(create);
  ASSERT_EQ(made.status, 200) << made.body;
  const auto token = boost::json::parse(made.body);
  Stream stream(server, "", "", "Bearer " + std::string(token.at("secret").as_string()));
  ASSERT_TRUE(eventually([&] { return !stream.last_id().empty(); }));
  HttpsRequest revoke = request_of(
      "POST", "/ledger/v1/tokens/" + std::string(token.at("id").as_string()) + "/revoke", server.operator_bearer());
  revoke.body = R"({"actor":"me","reason":"test","force":true})";
  ASSERT_EQ(server.send(revoke).status, 200);
  ASSERT_TRUE(eventually([&] { return stream.over(); }));
  EXPECT_EQ(stream.wait(), 200);
}

TEST(EventStream, ThereIsABoundAndWhoLeavesMakesRoom) {
  RunningServer server;
  std::vector<std::unique_ptr<Stream>> streams;
  for (int i = 0; i < EventStreams::kMaxStreams; ++i) streams.push_back(std::make_unique<Stream>(server, ""));
  ASSERT_TRUE(eventually([&] {
    return std::all_of(streams.begin(), streams.end(),
                       [](const auto& stream) { return !stream->last_id().empty(); });
  }));
  EXPECT_EQ(server.get("/ledger/v1/events", server.operator_bearer()).status, 429);
  EXPECT_EQ(server.join("web-1", "pw").status, 200);
  streams.pop_back();
  ASSERT_TRUE(eventually([&] {
    Stream next(server, "");
    return eventually([&] { return next.over() || !next.last_id().empty(); }) && !next.over();
  })) << "a place is free as soon as its consumer has left";
}

// More than the two ends of a socket hold.
void fill(RunningServer& server) {
  server.stop();
  Ledger::Options options;
  options.log.dir = server.data_dir() / "events";
  options.server_name = "srv";
  options.min_free_bytes = 0;
  auto opened = Ledger::open(std::move(options));
  ASSERT_TRUE(opened) << opened.error().message;
  std::unique_ptr<Ledger> ledger = std::move(*opened);
  for (int batch = 0; batch < 24; ++batch) {
    Proposal proposal;
    for (int i = 0; i < 500; ++i) {
      Record record;
      record.event = PasswordVerified{{"f"}};
      record.node = "n" + std::to_string(i);
      record.note = std::string(600, 'x');
      proposal.records.push_back(std::move(record));
    }
    ASSERT_TRUE(ledger->append_and_wait(std::move(proposal)));
  }
  ASSERT_TRUE(ledger->close());
  ledger.reset();
  server.start();
}

// It costs a piece, and nobody waits for it.
TEST(EventStream, WhoDoesNotReadHoldsNobody) {
  RunningServer server;
  fill(server);
  test::RawTls idle(server.https_options());
  ASSERT_TRUE(idle.opened());
  ASSERT_TRUE(idle.say("GET /ledger/v1/events?after=0 HTTP/1.1\r\nHost: x\r\nAuthorization: " +
                       server.operator_bearer() + "\r\n\r\n"));
  Stream reader(server, "?after=0");
  for (int i = 0; i < 20; ++i)
    ASSERT_EQ(server.join("web-" + std::to_string(i), "pw" + std::to_string(i)).status, 200);
  const auto all = all_seqs(server);  // of now: a checkpoint may still be recorded
  ASSERT_TRUE(eventually([&] { return reader.count() >= all.size(); }));
  auto seen = reader.seqs();
  seen.resize(all.size());
  EXPECT_EQ(seen, all);
  reader.leave();
  const auto began = std::chrono::steady_clock::now();
  EXPECT_TRUE(server.stop());
  EXPECT_LT(std::chrono::steady_clock::now() - began, 8s) << "nor does the server's stop";
}

}  // namespace
}  // namespace ledger::api
