// Sockets, TLS and HTTP under people who do not keep to them. After each of them the server must be as healthy as
// before.
#include "api/listener.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <thread>

#include "tests/support/bare_listener.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using namespace std::chrono_literals;
using test::BareListener;
using test::eventually;
using test::RawTcp;
using test::RawTls;
using test::RunningServer;
using testing::AnyOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;
using testing::Not;
using testing::StartsWith;

std::string get(const std::string& path, const std::string& more = "") {
  return "GET " + path + " HTTP/1.1\r\nHost: x\r\n" + more + "\r\n";
}

// ---- HTTP that is as it should be ------------------------------------------------------------------------

TEST(ListenerHttp, RequestsArriveAsTheyWereSent) {
  BareListener server;
  RawTls link(server.https_options());
  link.say("POST /a%20b/?x=1&y=%3f?z HTTP/1.1\r\nHost: h\r\nX-One: 1\r\nx-one:  2 \r\nK3s-Node-Name: W\r\n"
           "Content-Length: 5\r\n\r\nhello");
  EXPECT_EQ(test::status_of(link.hear_response()), 200);
  const auto request = server.requests().at(0);
  EXPECT_EQ(request->method, "POST");
  EXPECT_EQ(request->path, "/a%20b/");
  EXPECT_EQ(request->query, "x=1&y=%3f?z");
  EXPECT_EQ(request->body, "hello");
  EXPECT_EQ(request->header("k3s-node-name"), "W");
  EXPECT_EQ(request->header_count("x-one"), 2U);
  EXPECT_EQ(request->header("x-one"), "1");
  EXPECT_EQ(request->source, link.local());
  EXPECT_EQ(request->id.size(), 16U);
  EXPECT_TRUE(request->certificate.empty());
  EXPECT_FALSE(request->websocket);
}

TEST(ListenerHttp, PipelinedRequestsAreAnsweredInOrder) {
  BareListener server;
  RawTls link(server.https_options());
  link.say(get("/1") + "POST /2 HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc" + get("/3", "Connection: close\r\n") + get("/4"));
  EXPECT_THAT(link.hear_response(), HasSubstr("GET /1|"));
  EXPECT_THAT(link.hear_response(), HasSubstr("POST /2|abc"));
  EXPECT_THAT(link.hear_response(), HasSubstr("GET /3|"));
  EXPECT_EQ(link.hear_all(), "") << "nothing after the one that said close";
  EXPECT_TRUE(link.closed());
  EXPECT_EQ(server.requests().size(), 3U);
  EXPECT_NE(server.requests()[0]->id, server.requests()[1]->id);
}

TEST(ListenerHttp, ChunkedBodiesArrive) {
  BareListener server;
  RawTls link(server.https_options());
  link.say("POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3;note=x\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: t\r\n\r\n" + get("/next"));
  EXPECT_THAT(link.hear_response(), HasSubstr("POST /c|abcde"));
  EXPECT_THAT(link.hear_response(), HasSubstr("GET /next|"));
}

TEST(ListenerHttp, OldHttp) {
  BareListener server;
  {
    RawTls link(server.https_options());
    link.say("GET /old HTTP/1.0\r\n\r\n");
    const std::string answer = link.hear_all();
    EXPECT_TRUE(link.closed());
    EXPECT_THAT(answer, AllOf(StartsWith("HTTP/1.0 200"), HasSubstr("GET /old|")));
  }
  RawTls link(server.https_options());
  link.say("GET /kept HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_THAT(to_lower(link.hear_response()), HasSubstr("connection: keep-alive"));
  link.say("GET /again HTTP/1.0\r\n\r\n");
  EXPECT_THAT(link.hear_all(), HasSubstr("/again|"));
}

TEST(ListenerHttp, HeadHasTheLengthAndNoBody) {
  BareListener server;
  RawTls link(server.https_options());
  link.say("HEAD /h HTTP/1.1\r\n\r\n" + get("/after", "Connection: close\r\n"));
  const std::string answers = link.hear_all();
  EXPECT_THAT(answers, HasSubstr("Content-Length: 8\r\n"));  // "HEAD /h|"
  EXPECT_THAT(answers, Not(HasSubstr("HEAD /h|")));
  EXPECT_THAT(answers, HasSubstr("GET /after|"));
}

TEST(ListenerHttp, RepliesMayComeLateAndFromElsewhere) {
  std::vector<std::thread> threads;
  BareListener server({}, [&](std::shared_ptr<const Request> request, Reply reply) {
    threads.emplace_back([request, reply] {
      std::this_thread::sleep_for(20ms);
      Response response;
      response.status = 201;
      response.body = request->path;
      response.headers.emplace_back("X-Ours", "yes");
      reply(std::move(response));
    });
  });
  RawTls link(server.https_options());
  link.say(get("/late"));
  const std::string answer = link.hear_response();
  EXPECT_EQ(test::status_of(answer), 201);
  EXPECT_THAT(answer, HasSubstr("X-Ours: yes"));
  for (std::thread& thread : threads) thread.join();
}

// ---- limits ----------------------------------------------------------------------------------------------

TEST(ListenerLimits, HeadersOver16KiBAre431) {
  BareListener server;
  {
    RawTls link(server.https_options());
    link.say(get("/fits", "X: " + std::string(15'000, 'x') + "\r\n"));
    EXPECT_EQ(test::status_of(link.hear_response()), 200);
  }
  for (const std::string& large : {get("/", "X: " + std::string(17'000, 'x') + "\r\n"),
                                   get("/" + std::string(17'000, 'x')), "GET /" + std::string(40'000, 'x')}) {
    RawTls link(server.https_options());
    link.say(large);
    const std::string answer = link.hear_all();
    EXPECT_EQ(test::status_of(answer), 431) << answer.substr(0, 300);
    EXPECT_TRUE(link.closed());
  }
  std::string many = "GET /many HTTP/1.1\r\n";
  for (int i = 0; i < 2000; ++i) many += "X-" + std::to_string(i) + ": y\r\n";
  RawTls link(server.https_options());
  link.say(many + "\r\n");
  EXPECT_EQ(test::status_of(link.hear_all()), 431);
  EXPECT_EQ(server.requests().size(), 1U);
  EXPECT_THAT(server.bad_requests(), ElementsAre(431, 431, 431, 431));
  EXPECT_TRUE(server.serves());
}

TEST(ListenerLimits, BodiesOver64KiBAre413) {
  BareListener server;
  {
    RawTls link(server.https_options());
    link.say("POST /fits HTTP/1.1\r\nContent-Length: 65536\r\n\r\n" + std::string(65536, 'b'));
    EXPECT_EQ(test::status_of(link.hear_response()), 200);
  }
  for (const std::string& large :
       {"POST / HTTP/1.1\r\nContent-Length: 65537\r\n\r\n" + std::string(65537, 'b'),
        std::string("POST / HTTP/1.1\r\nContent-Length: 18446744073709551615\r\n\r\n"),
        "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n8000\r\n" + std::string(0x8000, 'b') + "\r\n8001\r\n" +
            std::string(0x8001, 'b') + "\r\n0\r\n\r\n",
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffff0\r\n")}) {
    RawTls link(server.https_options());
    link.say(large);
    const std::string answer = link.hear_all();
    EXPECT_EQ(test::status_of(answer), 413) << answer;
    EXPECT_TRUE(link.closed());
  }
  EXPECT_EQ(server.requests().size(), 1U);
  EXPECT_TRUE(server.serves());
}

// What is neither header nor body has a limit too, or one stranger takes all the memory.
TEST(ListenerLimits, ChunkDecorationsAreBounded) {
  BareListener server;
  for (const std::string& start :
       {std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1;x="),
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0;x="),
        std::string("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nTrailer: ")}) {
    RawTls link(server.https_options());
    link.say(start);
    const std::string more(1 << 16, 'x');
    int sent = 0;
    while (sent < 256 && link.say(more)) ++sent;
    EXPECT_LT(sent, 256) << "16 MiB were taken without a word";
    const std::string answer = link.hear_all();
    EXPECT_TRUE(link.closed());
  }
  EXPECT_THAT(server.requests(), IsEmpty());
  EXPECT_EQ(server.bad_requests().size(), 3U);
  EXPECT_TRUE(server.serves());
}

// ---- HTTP that is not ------------------------------------------------------------------------------------

TEST(ListenerHttp, UnreadableRequestsAre400AndClose) {
  BareListener server;
  const std::string kBad[] = {
      "nonsense\r\n\r\n",
      "GET\r\n\r\n",
      "GET / HTTP/2.0\r\n\r\n",
      "GET / HTTP/9.9\r\n\r\n",
      "GET /a b HTTP/1.1\r\n\r\n",
      "GET / HTTP/1.1\r\nno colon\r\n\r\n",
      "GET / HTTP/1.1\r\n: no name\r\n\r\n",
      "GET / HTTP/1.1\r\nName : blank before colon\r\n\r\n",
      "GET / HTTP/1.1\nHost: bare line feeds\n\n",
      std::string("GET / HTTP/1.1\r\nX: a\0b\r\n\r\n", 26),
      "GET / HTTP/1.1\r\nX: \x1b[2J\r\n\r\n",
      "GET / HTTP/1.1\r\nK3s-Node-Name: web\x7f\r\n\r\n",
      "GET /\x1b[31m HTTP/1.1\r\n\r\n",
      std::string("GET /a\0b HTTP/1.1\r\n\r\n", 21),
      "G\x80T / HTTP/1.1\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: \r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999999\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n0\r\n\r\n",
      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
  };
  int number = 0;
  for (const std::string& bad : kBad) {
    RawTls link(server.https_options());
    link.say(bad + get("/smuggled"));
    const std::string answer = link.hear_all();
    EXPECT_EQ(test::status_of(answer), 400) << number << " " << bad << "\n" << answer;
    EXPECT_TRUE(link.closed()) << bad;
    EXPECT_THAT(to_lower(answer), HasSubstr("connection: close")) << bad;
    EXPECT_THAT(answer, HasSubstr("Ledger-Request-Id: ")) << bad;
    EXPECT_THAT(answer, HasSubstr(R"("kind":"Status")")) << bad;
    EXPECT_EQ(server.requests().size(), 0U) << bad;
    EXPECT_EQ(server.bad_requests().size(), static_cast<std::size_t>(++number)) << bad;
  }
  EXPECT_TRUE(server.serves());
}

// Two readings of one message: behind a proxy, the second request would be somebody else's.
TEST(ListenerHttp, AmbiguousLengthsAre400) {
  BareListener server;
  const char* kAmbiguous[] = {
      "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
      "Content-Length: 4\r\nContent-Length: 5\r\n",
      "Content-Length: 4, 5\r\n",
      "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: identity\r\n",
      "Transfer-Encoding: xchunked\r\n",
      "Transfer-Encoding: chunked, identity\r\n",
      "Transfer-Encoding: gzip, chunked\r\n",
      "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
      "Transfer-Encoding: \"chunked\"\r\n",
      "Transfer-Encoding: \r\n",
      "Transfer-Encoding : chunked\r\n",
  };
  for (const char* ambiguous : kAmbiguous) {
    RawTls link(server.https_options());
    link.say(std::string("POST /first HTTP/1.1\r\nHost: x\r\n") + ambiguous + "\r\n0\r\n\r\n" + get("/smuggled"));
    const std::string answer = link.hear_all();
    EXPECT_EQ(test::status_of(answer), 400) << ambiguous << "\n" << answer;
    EXPECT_TRUE(link.closed()) << ambiguous;
    EXPECT_EQ(answer.find("HTTP/1.1 ", 9), std::string::npos) << ambiguous << ": one answer only";
  }
  EXPECT_THAT(server.requests(), IsEmpty());
  EXPECT_TRUE(server.serves());
}

// ---- the slow and the silent -----------------------------------------------------------------------------

Listener::Limits short_limits() {
  Listener::Limits limits;
  limits.handshake = 400ms;
  limits.request = 400ms;
  limits.idle = 400ms;
  limits.reply = 400ms;
  return limits;
}

TEST(ListenerDeadlines, ASteadyDripIsCutOff) {
  BareListener server(short_limits());
  for (const std::string& start : {std::string("GET / HTTP/1.1\r\n"), std::string("POST / HTTP/1.1\r\nContent-Length: 60000\r\n\r\n")}) {
    RawTls link(server.https_options());
    ASSERT_TRUE(link.say(start));
    // Something every 20 ms for ever: each byte is timely, the whole is not.
    bool cut = false;
    for (int i = 0; i < 1000 && !cut; ++i) {
      std::this_thread::sleep_for(20ms);
      cut = !link.say("X") || server.bad_requests().size() == (start[0] == 'G' ? 1U : 2U);
    }
    EXPECT_TRUE(cut);
    link.hear_all();
    EXPECT_TRUE(link.closed());
  }
  EXPECT_THAT(server.bad_requests(), ElementsAre(408, 408));
  EXPECT_THAT(server.requests(), IsEmpty());
  EXPECT_TRUE(eventually([&] { return server.listener().connections() == 0; }));
}

TEST(ListenerDeadlines, SilenceIsNoRequest) {
  BareListener server(short_limits());
  RawTls never(server.https_options());
  never.hear_all();
  EXPECT_TRUE(never.closed());
  RawTls once(server.https_options());
  once.say(get("/once"));
  EXPECT_EQ(test::status_of(once.hear_response()), 200);
  once.hear_all();
  EXPECT_TRUE(once.closed());
  EXPECT_THAT(server.bad_requests(), IsEmpty()) << "a connection that is not used is nobody's fault";
}

TEST(ListenerDeadlines, AReaderWhoDoesNotReadIsCutOff) {
  BareListener server(short_limits(), [](std::shared_ptr<const Request>, Reply reply) {
    Response response;
    response.body = std::string(64 << 20, 'b');  // more than the sockets' buffers hold
    reply(std::move(response));
  });
  RawTls link(server.https_options());
  link.say(get("/"));
  ASSERT_TRUE(eventually([&] { return server.requests().size() == 1; }));
  EXPECT_TRUE(eventually([&] { return server.listener().connections() == 0; }));
}

TEST(ListenerDeadlines, HandshakesThatDoNotComeToAnEnd) {
  BareListener server(short_limits());
  RawTcp silent(server.port()), half(server.port()), gone(server.port());
  // The first bytes of a ClientHello: handshake record, TLS 1.0, 512 bytes to come.
  ASSERT_TRUE(half.say(std::string("\x16\x03\x01\x02\x00\x01\x00", 7)));
  const std::string half_name = half.local();
  bool closed = false;
  silent.hear_all(&closed);
  EXPECT_TRUE(closed);
  half.hear_all(&closed);
  EXPECT_TRUE(closed);
  gone.break_off();
  EXPECT_TRUE(eventually([&] { return server.listener().connections() == 0; }));
  // A port that was only looked at is not worth a record; one who began and stopped is.
  EXPECT_THAT(server.tls_failures(), ElementsAre(testing::Pair(half_name, "timed_out")));
}

TEST(ListenerDeadlines, TheLedgerMayTakeItsTime) {
  std::atomic<bool> answer{false};
  std::thread late;
  BareListener server(short_limits(), [&](std::shared_ptr<const Request>, Reply reply) {
    late = std::thread([&answer, reply] {
      while (!answer) std::this_thread::sleep_for(10ms);
      reply(Response{});
    });
  });
  RawTls link(server.https_options());
  link.say(get("/slow"));
  std::this_thread::sleep_for(1s);  // more than any of the deadlines
  answer = true;
  EXPECT_EQ(test::status_of(link.hear_response()), 200);
  late.join();
}

TEST(ListenerLimits, AtTheLimitAcceptingPauses) {
  Listener::Limits limits;
  limits.max_connections = 3;
  limits.patience = 1h;
  BareListener server(limits);
  std::vector<std::unique_ptr<RawTls>> links;
  for (int i = 0; i < 3; ++i) {
    links.push_back(std::make_unique<RawTls>(server.https_options()));
    ASSERT_TRUE(links.back()->opened());
  }
  RawTcp waiting(server.port());
  ASSERT_TRUE(waiting.connected()) << "the kernel holds it";
  std::thread fourth([&] { EXPECT_TRUE(server.serves()); });
  // Those who are in are served meanwhile.
  for (int i = 0; i < 20; ++i) {
    links[0]->say(get("/" + std::to_string(i)));
    EXPECT_EQ(test::status_of(links[0]->hear_response()), 200);
    EXPECT_LE(server.listener().connections(), 3U);
  }
  EXPECT_EQ(server.requests().size(), 20U) << "the fourth is not served before there is room";
  links.clear();
  waiting.hang_up();
  fourth.join();
  EXPECT_EQ(server.requests().size(), 21U);
}

// Whoever only holds connections, at whatever stage, does not keep others out.
TEST(ListenerLimits, AtTheLimitTheSilentMakeRoom) {
  Listener::Limits limits;
  limits.max_connections = 4;
  limits.patience = 100ms;  // all other deadlines are far away
  BareListener server(limits);
  RawTls idle(server.https_options()), slow(server.https_options()), sound(server.https_options());
  RawTcp half(server.port());
  ASSERT_TRUE(half.say(std::string("\x16\x03\x01\x02\x00\x01\x00", 7)));
  ASSERT_TRUE(slow.say("GET / HTTP/1.1\r\nX: "));
  ASSERT_TRUE(eventually([&] { return server.listener().connections() == 4; }));
  for (int i = 0; i < 5; ++i) EXPECT_TRUE(server.serves()) << "somebody had to go";
  idle.hear_all();
  EXPECT_TRUE(idle.closed()) << "the longest silence";
  EXPECT_THAT(server.bad_requests(), IsEmpty()) << "a request that was given up is not a bad one";
}

// ---- stop ------------------------------------------------------------------------------------------------

TEST(ListenerStop, RequestsUnderWayFinishIdleOnesEnd) {
  std::mutex mutex;
  Reply waiting;
  BareListener server({}, [&](std::shared_ptr<const Request>, Reply reply) {
    const std::lock_guard lock(mutex);
    waiting = std::move(reply);
  });
  RawTls busy(server.https_options()), idle(server.https_options());
  RawTcp shaking(server.port());
  shaking.say("\x16");
  busy.say(get("/busy"));
  ASSERT_TRUE(eventually([&] { return server.requests().size() == 1; }));
  server.listener().stop();
  EXPECT_EQ(idle.hear_all(), "");
  EXPECT_TRUE(idle.closed());
  bool closed = false;
  shaking.hear_all(&closed);
  EXPECT_TRUE(closed);
  {
    const std::lock_guard lock(mutex);
    waiting(Response{});
    waiting = nullptr;  // a reply must not outlive the io_context it answers on
  }
  const std::string answer = busy.hear_all();
  EXPECT_EQ(test::status_of(answer), 200) << "its reply still leaves";
  EXPECT_THAT(to_lower(answer), HasSubstr("connection: close"));
  EXPECT_TRUE(eventually([&] { return server.listener().connections() == 0; }));
  EXPECT_THAT(server.tls_failures(), IsEmpty()) << "our stop is not their failure";
  EXPECT_FALSE(server.serves());
}

TEST(ListenerStop, AtAnyMoment) {
  for (int round = 0; round < 20; ++round) {
    BareListener server;
    std::atomic<bool> done{false};
    std::vector<std::thread> clients;
    for (int i = 0; i < 4; ++i)
      clients.emplace_back([&] {
        while (!done && server.serves()) {
        }
      });
    std::this_thread::sleep_for(std::chrono::milliseconds(3 * round));
    server.listener().stop();
    EXPECT_TRUE(eventually([&] { return server.listener().connections() == 0; }, 9s)) << "round " << round;
    done = true;
    for (std::thread& client : clients) client.join();
  }
}

// ---- certificates ----------------------------------------------------------------------------------------

TEST(ListenerTls, ARenewedCertificateServesNewConnections) {
  BareListener server;
  const auto serial = [&] {
    return to_lower(test::run_command("openssl s_client -connect 127.0.0.1:" + std::to_string(server.port()) +
                                      " </dev/null 2>/dev/null | openssl x509 -noout -serial")
                        .output);
  };
  RawTls before(server.https_options());
  const std::string renewed = server.renew();
  EXPECT_EQ(serial(), "serial=" + renewed + "\n");
  before.say(get("/still"));
  EXPECT_EQ(test::status_of(before.hear_response()), 200) << "the old connection goes on";
  EXPECT_FALSE(server.listener().set_certificate("nonsense", Secret("nonsense")));
  EXPECT_EQ(serial(), "serial=" + renewed + "\n");
}

// ---- failed handshakes, in the log -----------------------------------------------------------------------

class TlsRecords : public testing::Test {
 protected:
  // After the server has stopped: what is still waiting for an explanation has been written then.
  std::vector<std::pair<std::string, bool>> failures() {
    EXPECT_TRUE(server_.stop());
    std::vector<std::pair<std::string, bool>> found;
    for (const Record& record : server_.records_of<TlsFailed>())
      for (std::int64_t i = 0; i < record.count; ++i)
        found.emplace_back(as<TlsFailed>(record)->alert, as<TlsFailed>(record)->trust_probe.value_or(false));
    return found;
  }
  // The first connection of an agent's trust round: it does not know our CA yet.
  void distrust() {
    HttpsOptions options = server_.https_options();
    options.trust = HttpsTrust::os_roots;
    options.bundle_pem.clear();
    auto https = *HttpsClient::open(std::move(options));
    EXPECT_FALSE(https.send(test::request_of("GET", "/cacerts")));
  }
  RunningServer server_;
};

TEST_F(TlsRecords, TheAgentsFirstStepIsATrustProbe) {
  distrust();
  // The handshake may fail on our side before the server knows of it.
  ASSERT_TRUE(eventually([&] {
    EXPECT_EQ(server_.get("/cacerts").status, 200);
    return !server_.records_of<TlsFailed>().empty();
  }));
  EXPECT_THAT(failures(), ElementsAre(testing::Pair("bad_certificate", true)));
}

TEST_F(TlsRecords, WithoutWhatFollowsItIsAFailure) {
  distrust();
  EXPECT_EQ(server_.get("/ping").status, 200) << "another request explains nothing";
  // Told at the latest 3 s after it happened.
  ASSERT_TRUE(eventually([&] { return !server_.records_of<TlsFailed>().empty(); }));
  EXPECT_EQ(server_.get("/cacerts").status, 200) << "too late";
  EXPECT_THAT(failures(), ElementsAre(testing::Pair("bad_certificate", false)));
}

TEST_F(TlsRecords, PlainHttpAndGarbage) {
  {
    RawTcp plain(server_.port()), garbage(server_.port()), looked(server_.port()), half(server_.port());
    bool closed = false;
    plain.say("GET /ping HTTP/1.1\r\nHost: x\r\n\r\n");
    EXPECT_THAT(plain.hear_all(&closed), Not(HasSubstr("pong")));
    EXPECT_TRUE(closed);
    garbage.say("\x80\xff garbage garbage garbage garbage");
    garbage.hear_all(&closed);
    EXPECT_TRUE(closed);
    half.say(std::string("\x16\x03\x01\x02\x00\x01\x00", 7));
    half.hang_up();
    looked.hang_up();
  }
  EXPECT_EQ(server_.join("web-1", "pw").status, 200);
  ASSERT_TRUE(eventually([&] { return server_.records_of<TlsFailed>().size() == 3; }));
  const auto found = failures();
  EXPECT_THAT(found, testing::Contains(testing::Pair("http_request", false)));
  EXPECT_THAT(found, testing::Contains(testing::Pair("wrong_version_number", false)));
  EXPECT_THAT(found, testing::Contains(testing::Pair("connection_closed_by_the_peer", false)));
  for (const Record& record : server_.records_of<TlsFailed>()) EXPECT_THAT(record.source, StartsWith("127.0.0.1:"));
}

// ---- the whole server, after all of that -----------------------------------------------------------------

TEST(ListenerHttp, UnreadableRequestsAreRecorded) {
  RunningServer server;
  std::string answer;
  {
    RawTls link(server.https_options());
    link.say("GET / HTTP/1.1\r\nX: \x1b[2J\r\n\r\n");
    answer = link.hear_all();
  }
  EXPECT_EQ(test::status_of(answer), 400);
  const auto at = answer.find("Ledger-Request-Id: ");
  ASSERT_NE(at, std::string::npos);
  const std::string id = answer.substr(at + 19, 16);
  EXPECT_EQ(server.join("web-1", "pw").status, 200);
  ASSERT_TRUE(server.stop());
  const auto rejected = server.records_of<RequestRejected>();
  ASSERT_EQ(rejected.size(), 1U);
  EXPECT_EQ(as<RequestRejected>(rejected[0])->status, 400);
  EXPECT_EQ(as<RequestRejected>(rejected[0])->reason, "bad_request");
  EXPECT_EQ(rejected[0].request_id, id) << "from the answer to the record in one step";
}

}  // namespace
}  // namespace ledger::api
