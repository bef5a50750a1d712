// Connections to upstreams, as the coroutines of upstream.cpp and forward.cpp use them; nobody else sees this.
//
// Threads: a link belongs to one coroutine at a time, whatever strand that runs on; State's members from any thread.
#pragma once

#include <atomic>
#include <boost/asio.hpp>
#include <boost/asio/as_tuple.hpp>
#include <boost/asio/ssl.hpp>
#include <boost/beast/http.hpp>
#include <chrono>
#include <list>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "api/upstream.h"

namespace ledger::api {

namespace link_detail {
using error_code = boost::system::error_code;
using tcp = boost::asio::ip::tcp;
inline constexpr auto kAwait = boost::asio::as_tuple(boost::asio::use_awaitable);
}  // namespace link_detail

// What a socket does ends when the time is over. For one strand, like what it guards.
class Deadline {
 public:
  explicit Deadline(boost::asio::any_io_executor executor)
      : watch_(std::make_shared<Watch>(boost::asio::steady_timer(std::move(executor)))) {}
  ~Deadline() { cancel(); }
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

  // `end` must stay callable until the deadline is cancelled, renewed or gone.
  void start(std::chrono::milliseconds time, std::function<void()> end) {
    cancel();
    watch_->end = std::move(end);
    watch_->timer.expires_after(time);
    watch_->timer.async_wait([watch = watch_, round = watch_->round](const boost::system::error_code& cancelled) {
      if (cancelled || round != watch->round) return;
      watch->over = true;
      watch->end();
    });
  }
  void cancel() {
    ++watch_->round;
    watch_->timer.cancel();
  }
  bool over() const { return watch_->over; }

 private:
  struct Watch {
    explicit Watch(boost::asio::steady_timer made) : timer(std::move(made)) {}
    boost::asio::steady_timer timer;
    std::function<void()> end;
    int round = 0;
    bool over = false;
  };
  std::shared_ptr<Watch> watch_;
};

// A body that nobody wants to have: the parser is only to say where the message ends.
struct IgnoredBody {
  struct value_type {};
  struct reader {
    template <bool isRequest, class Fields>
    reader(boost::beast::http::header<isRequest, Fields>&, value_type&) {}
    void init(const boost::optional<std::uint64_t>&, boost::system::error_code& error) { error = {}; }
    template <class Buffers>
    std::size_t put(const Buffers& bytes, boost::system::error_code& error) {
      error = {};
      return boost::asio::buffer_size(bytes);
    }
    void finish(boost::system::error_code& error) { error = {}; }
  };
};
using AnswerParser = boost::beast::http::response_parser<IgnoredBody>;

struct UpstreamLink {
  UpstreamLink(boost::asio::io_context& io, std::shared_ptr<boost::asio::ssl::context> context)
      : tls(std::move(context)), stream(io, *tls) {}
  boost::asio::ip::tcp::socket& socket() { return stream.next_layer(); }
  void close() {
    boost::system::error_code ignored;
    socket().close(ignored);
  }

  const std::shared_ptr<boost::asio::ssl::context> tls;  // outlives the stream
  boost::asio::ssl::stream<boost::asio::ip::tcp::socket> stream;
  std::string in;        // read, not used yet
  std::string upstream;  // "10.0.0.1:6443"
  std::string key;       // whose connections may be used for whom
  bool reused = false;
  std::chrono::steady_clock::time_point idle_since;
};
using LinkPtr = std::unique_ptr<UpstreamLink>;

// How a connection may be had for a request.
enum class Reuse {
  no,
  fresh_only,  // one that was used a moment ago: the request cannot be repeated
  yes,
};

struct Upstreams::State : std::enable_shared_from_this<Upstreams::State> {
  struct Target {
    std::string url, host, name;  // name: "10.0.0.1:6443"
    std::uint16_t port = 0;
    bool answers = true;
    std::string cause;
    Time since;
    std::string certificate;  // PEM, the last one that it showed
    std::chrono::steady_clock::time_point changed = std::chrono::steady_clock::now();
    std::chrono::seconds held{0};  // so long it counts as lost, once it is
  };
  State(boost::asio::io_context& context, Options given, const Issuer& signer)
      : io(context), options(std::move(given)), issuer(signer), timer(io) {}

  // A connection to the first upstream that can be had, connected and proven. Errc::unavailable: none.
  boost::asio::awaitable<Result<LinkPtr>> acquire(Plane plane, const UpstreamIdentity& as, Reuse reuse);
  boost::asio::awaitable<Result<LinkPtr>> open_link(std::size_t target, const UpstreamIdentity& as);
  // For later requests of the same caller.
  void keep(LinkPtr link);

  Result<std::shared_ptr<boost::asio::ssl::context>> context_for(const UpstreamIdentity& as);
  std::vector<std::size_t> candidates(Plane plane);
  LinkPtr take_idle(const std::string& key, Reuse reuse);
  void note(std::size_t target, bool answers, const std::string& cause);
  void note_certificate(std::size_t target, SSL* session);
  void check_all();
  boost::asio::awaitable<void> check(std::size_t target);
  boost::asio::awaitable<Result<UpstreamAnswer>> ask(std::shared_ptr<const Request> request, UpstreamIdentity as);
  boost::asio::awaitable<Result<UpstreamAnswer>> ask_on(UpstreamLink& link, const std::string& text, bool is_head,
                                                        bool* nothing_came);

  boost::asio::io_context& io;
  const Options options;
  const Issuer& issuer;
  std::vector<std::size_t> supervisors, kubernetes;  // indexes of targets
  std::atomic<bool> stopping{false};
  boost::asio::steady_timer timer;  // of check_all

  mutable std::mutex mutex;
  // Guarded by mutex.
  std::vector<Target> targets;
  std::list<LinkPtr> idle;  // newest first
  struct Context {
    std::shared_ptr<boost::asio::ssl::context> tls;
    std::chrono::steady_clock::time_point made;
  };
  std::map<std::string, Context> contexts;
};

// Reads until the head of the next message is there and returns its bytes as they came; what follows stays in
// link.in. Errors as Upstreams::exchange().
boost::asio::awaitable<Result<std::string>> read_answer_head(UpstreamLink& link, AnswerParser& parser);

}  // namespace ledger::api
