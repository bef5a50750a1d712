#include "api/forward.h"

#include <openssl/ssl.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/beast/http.hpp>
#include <utility>

#include "api/problem.h"
#include "api/upstream_link.h"

namespace ledger::api {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
namespace ssl = asio::ssl;
using link_detail::error_code;
using link_detail::kAwait;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kMostUnparsed = 64 << 10;
constexpr std::chrono::seconds kLeaving{5};    // for the answer, after the client has said its last word
constexpr std::chrono::seconds kHalfOpen{60};  // of silence, after one side of an upgraded connection has ended
constexpr std::chrono::seconds kNextPiece{60};  // of a request's body
constexpr std::chrono::milliseconds kLastWords{1'000};  // for an answer without an end, when the server stops

Problem problem_of_upstream(const Error& error) {
  switch (error.code) {
    case Errc::unavailable: return {503, error.message, 5};
    case Errc::overloaded: return {504, error.message, 0};
    default: return {502, error.message, 0};
  }
}

// Says that nothing more will be written, and leaves reading as it is. An async_shutdown() would take what the peer still
// has to say for an error: so OpenSSL is told, while it writes its alert, that there will be nothing.
template <class Stream>
asio::awaitable<void> end_writing(Stream& stream) {
  const auto executor = co_await asio::this_coro::executor;
  const auto done = std::make_shared<asio::steady_timer>(executor, steady_clock::time_point::max());
  SSL* const native = stream.native_handle();
  const int before = SSL_get_shutdown(native);
  SSL_set_shutdown(native, before | SSL_RECEIVED_SHUTDOWN);
  stream.async_shutdown(asio::bind_executor(executor, [done](error_code) { done->cancel(); }));
  SSL_set_shutdown(native, before | SSL_SENT_SHUTDOWN);
  error_code woken;
  std::tie(woken) = co_await done->async_wait(kAwait);
}

bool is_clean_end(const error_code& error) { return error == asio::error::eof; }

// Two coroutines on the connection's strand: run() talks to the upstream and says its answer; the other one takes the
// client's body to the upstream, and then waits for the client to leave.
class Forwarding : public std::enable_shared_from_this<Forwarding> {
 public:
  Forwarding(std::shared_ptr<Upstreams::State> upstreams, ClientSide client, std::shared_ptr<const Request> head,
             std::shared_ptr<Passage> passage, asio::any_io_executor executor)
      : upstreams_(std::move(upstreams)),
        client_(std::move(client)),
        head_(std::move(head)),
        passage_(std::move(passage)),
        executor_(executor),
        deadline_(executor),
        side_ended_(executor, steady_clock::time_point::max()) {}

  asio::awaitable<ForwardEnd> run();

 private:
  asio::awaitable<Result<std::string>> ask(AnswerParser& answer);
  asio::awaitable<std::optional<Response>> consult(const AnswerParser& answer);
  asio::awaitable<ForwardEnd> give_body(AnswerParser& answer);
  asio::awaitable<ForwardEnd> fail(Error why);
  asio::awaitable<void> talk_to_client(std::shared_ptr<Forwarding> self);
  asio::awaitable<bool> send_body();
  asio::awaitable<void> await_leaving();
  asio::awaitable<void> end_side();
  asio::awaitable<ForwardEnd> converse();
  asio::awaitable<void> carry_up(std::shared_ptr<Forwarding> self);
  asio::awaitable<bool> say(const char* bytes, std::size_t size);
  std::string framing() const;

  auto& client_socket() { return beast::get_lowest_layer(client_.stream); }
  void await_answer() {
    deadline_.start(upstreams_->options.answer, [this] { hang_up(); });
  }
  void tell_of_no_answer() {
    if (passage_->on_answer) passage_->on_answer({}, [](const std::optional<Response>&) {});
  }
  void hang_up() {
    if (link_ != nullptr) link_->close();
  }
  void end_both() {
    hang_up();
    client_socket().cancel();
  }
  // A watch has no end of its own, and a list in chunks is soon over.
  void stop() {
    const bool endless = upgraded_ || (answering_ && !answer_has_end_);
    if (!endless) return;
    stopped_ = true;
    deadline_.start(upgraded_ ? std::chrono::milliseconds(0) : kLastWords, [this] { end_both(); });
  }
  // The first cause is the one that counts.
  void note_end(std::string cause) {
    if (cause_.empty()) cause_ = stopped_ ? "server stopped" : std::move(cause);
  }

  const std::shared_ptr<Upstreams::State> upstreams_;
  ClientSide client_;
  const std::shared_ptr<const Request> head_;
  const std::shared_ptr<Passage> passage_;
  const asio::any_io_executor executor_;
  Deadline deadline_;
  LinkPtr link_;
  asio::steady_timer side_ended_;
  bool side_runs_ = false;
  bool has_body_ = false, body_sent_ = false;
  bool is_upgrade_ = false, upgraded_ = false;
  bool client_left_ = false, stopped_ = false, over_ = false;
  bool answering_ = false, answer_has_end_ = true;
  bool one_ended_ = false;  // of an upgraded connection's directions
  bool said_all_ = false;   // the client ended in order, and the upstream was told
  asio::steady_timer* leaving_ = nullptr;  // runs since the client's last word
  const steady_clock::time_point began_ = steady_clock::now();
  std::string cause_;
  std::string malformed_;  // not empty: what is wrong with the request's body
};

std::string Forwarding::framing() const {
  std::string lines;
  const auto length = client_.parser.content_length();
  if (client_.parser.chunked())
    lines = "transfer-encoding: chunked\r\n";
  else if (length)
    lines = "content-length: " + std::to_string(*length) + "\r\n";
  if (is_upgrade_)
    lines += "connection: Upgrade\r\nupgrade: " + std::string(head_->header("upgrade")) + "\r\n";
  else if (!client_.parser.get().keep_alive())
    lines += "connection: close\r\n";
  return lines;
}

asio::awaitable<bool> Forwarding::say(const char* bytes, std::size_t size) {
  error_code error;
  std::size_t written = 0;
  client_.waits(true);
  const auto out = asio::buffer(bytes, size);
  std::tie(error, written) = co_await asio::async_write(client_.stream, out, kAwait);
  client_.waits(false);
  if (error) client_left_ = true;
  co_return !error;
}

// A connection, the request's head on it, and the head of the answer.
asio::awaitable<Result<std::string>> Forwarding::ask(AnswerParser& answer) {
  const std::string& method = head_->method;
  const bool repeatable = !has_body_ && (method == "GET" || method == "HEAD" || method == "OPTIONS");
  const bool on_kube = passage_->plane == Plane::kubernetes;
  const std::string lines = framing();
  const std::string text = upstream_head(*head_, passage_->as, lines, on_kube);
  Reuse reuse = head_->version < 11 || is_upgrade_ ? Reuse::no : repeatable ? Reuse::yes : Reuse::fresh_only;
  while (true) {
    Result<LinkPtr> link = co_await upstreams_->acquire(passage_->plane, passage_->as, reuse);
    if (!link) co_return link.error();
    link_ = std::move(*link);
    if (client_left_) co_return Error{Errc::io, "the client left"};
    await_answer();
    error_code error;
    std::size_t bytes = 0;
    const auto out = asio::buffer(text);
    std::tie(error, bytes) = co_await asio::async_write(link_->stream, out, kAwait);
    if (!error && !side_runs_ && !is_upgrade_) {
      side_runs_ = true;
      asio::co_spawn(executor_, talk_to_client(shared_from_this()), asio::detached);
    }
    Result<std::string> head = Error{Errc::io, "the upstream " + link_->upstream + " does not take the request"};
    if (!error) head = co_await read_answer_head(*link_, answer);
    if (head) co_return head;
    if (client_left_) co_return Error{Errc::io, "the client left"};
    if (deadline_.over())
      co_return Error{Errc::overloaded, "the upstream " + link_->upstream + " did not answer in time"};
    // It left between two requests: nobody has seen this one.
    const bool again = link_->reused && link_->in.empty() && repeatable;
    if (!again) co_return head.error();
    reuse = Reuse::no;
  }
}

asio::awaitable<std::optional<Response>> Forwarding::consult(const AnswerParser& answer) {
  if (!passage_->on_answer) co_return std::nullopt;
  Passage::Head head;
  head.upstream = link_->upstream;
  head.status = static_cast<int>(answer.get().result_int());
  head.took = std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - began_);
  const auto executor = executor_;
  const auto passage = passage_;
  auto initiate = [executor, passage, head](auto handler) {
    auto waiting = std::make_shared<decltype(handler)>(std::move(handler));
    passage->on_answer(head, [waiting, executor](std::optional<Response> instead) {
      auto said = std::make_shared<std::optional<Response>>(std::move(instead));
      asio::post(executor, [waiting, said] { std::move (*waiting)(std::move(*said)); });
    });
  };
  auto token = asio::use_awaitable;
  std::optional<Response> instead =
      co_await asio::async_initiate<decltype(token), void(std::optional<Response>)>(initiate, token);
  co_return instead;
}

asio::awaitable<ForwardEnd> Forwarding::fail(Error why) {
  over_ = true;
  deadline_.cancel();
  hang_up();
  co_await end_side();
  tell_of_no_answer();
  ForwardEnd end;
  if (!client_left_ && !answering_ && !malformed_.empty()) {
    end.kind = ForwardEnd::Kind::close;
    end.instead = to_response(Problem{400, "the request's body cannot be read: " + malformed_});
    co_return end;
  }
  if (client_left_ || answering_ || passage_->drop_on_failure) co_return end;
  end.kind = body_sent_ || !has_body_ ? ForwardEnd::Kind::keep : ForwardEnd::Kind::close;
  end.instead = to_response(problem_of_upstream(why));
  co_return end;
}

asio::awaitable<ForwardEnd> Forwarding::run() {
  const auto self = shared_from_this();
  const auto length = client_.parser.content_length();
  has_body_ = client_.parser.chunked() || (length && *length > 0);
  is_upgrade_ = !has_body_ && head_->version >= 11 && client_.parser.upgrade();
  client_.stop = [weak = weak_from_this()] {
    if (const auto alive = weak.lock()) alive->stop();
  };
  ForwardEnd end;
  std::optional<AnswerParser> answer;
  while (true) {
    answer.emplace();
    answer->skip(head_->method == "HEAD");
    Result<std::string> head = Error{Errc::io, ""};
    if (link_ == nullptr)
      head = co_await ask(*answer);
    else
      head = co_await read_answer_head(*link_, *answer);
    if (!head && deadline_.over())
      head = Error{Errc::overloaded, "the upstream " + link_->upstream + " did not answer in time"};
    if (!head) {
      Error why = head.error();
      end = co_await fail(std::move(why));
      break;
    }
    const unsigned status = answer->get().result_int();
    const bool interim = status < 200 && status != 101;
    if (!interim) {
      deadline_.cancel();
      if (status == 101 && !is_upgrade_) {
        Error unasked{Errc::io, "the upstream " + link_->upstream + " switches protocols unasked"};
        end = co_await fail(std::move(unasked));
        break;
      }
      std::optional<Response> instead = co_await consult(*answer);
      if (instead) {
        over_ = true;
        hang_up();
        co_await end_side();
        end.kind = ForwardEnd::Kind::close;
        end.instead = std::move(instead);
        break;
      }
      answering_ = true;
      answer_has_end_ = answer->content_length().has_value() || answer->is_done();
    }
    const bool said = co_await say(head->data(), head->size());
    if (!said) {
      over_ = true;
      hang_up();
      co_await end_side();
      if (status == 101 && passage_->on_end) passage_->on_end("connection to the client lost");
      break;
    }
    if (interim) continue;
    if (status == 101)
      end = co_await converse();
    else
      end = co_await give_body(*answer);
    break;
  }
  client_.stop = nullptr;
  co_return end;
}

asio::awaitable<ForwardEnd> Forwarding::give_body(AnswerParser& answer) {
  answer.eager(true);
  error_code error;
  std::size_t bytes = 0;
  bool whole = answer.is_done();
  const bool is_keepable = !answer.need_eof();
  while (!whole && !client_left_) {
    if (!link_->in.empty()) {
      const std::size_t used = answer.put(asio::buffer(link_->in), error);
      if (error && error != http::error::need_more) break;
      bool said = true;
      if (used > 0) said = co_await say(link_->in.data(), used);
      if (!said) break;
      link_->in.erase(0, used);
      whole = answer.is_done();
      if (whole || link_->in.size() > kMostUnparsed) break;
    }
    char buffer[kReadBytes];
    const auto into = asio::buffer(buffer);
    std::tie(error, bytes) = co_await link_->stream.async_read_some(into, kAwait);
    if (error && is_clean_end(error) && answer.need_eof()) {
      answer.put_eof(error);
      whole = !error;
    }
    if (error || whole) break;
    link_->in.append(buffer, bytes);
  }
  over_ = true;
  const bool is_whole = whole && !client_left_;
  ForwardEnd end;
  if (is_whole && is_keepable && answer.keep_alive() && (body_sent_ || !has_body_)) {
    co_await end_side();
    const bool keeps = client_.parser.get().keep_alive();
    end.kind = keeps && !client_left_ ? ForwardEnd::Kind::keep : ForwardEnd::Kind::close;
    if (keeps) upstreams_->keep(std::move(link_));
    co_return end;
  }
  hang_up();
  co_await end_side();
  end.kind = is_whole ? ForwardEnd::Kind::close : ForwardEnd::Kind::drop;
  co_return end;
}

// ---- the client's side -------------------------------------------------------------------------------------

asio::awaitable<void> Forwarding::talk_to_client([[maybe_unused]] std::shared_ptr<Forwarding> self) {
  bool go_on = true;
  if (has_body_) go_on = co_await send_body();
  if (go_on && !over_ && client_.buffer.size() == 0) co_await await_leaving();
  side_runs_ = false;
  side_ended_.cancel();
}

asio::awaitable<bool> Forwarding::send_body() {
  PieceParser& parser = client_.parser;
  parser.body_limit(boost::none);
  client_.buffer.reserve(kReadBytes);  // that is how much one read takes
  const bool chunked = parser.chunked();
  Deadline silence(executor_);
  error_code error;
  std::size_t bytes = 0;
  std::string out;
  while (!parser.is_done() && !over_) {
    silence.start(kNextPiece, [this] { client_socket().cancel(); });
    std::tie(error, bytes) = co_await http::async_read_some(client_.stream, client_.buffer, parser, kAwait);
    silence.cancel();
    if (error) {
      // What the upstream has of the body is not whole, and must not look so.
      const bool is_malformed = error.category() == make_error_code(http::error::bad_chunk).category();
      if (is_malformed && error != http::error::partial_message && error != http::error::end_of_stream)
        malformed_ = error.message();
      else
        client_left_ = client_left_ || !over_;
      hang_up();
      co_return false;
    }
    std::string piece = std::exchange(parser.get().body(), {});
    if (piece.empty()) continue;
    if (chunked) {
      char size[24];
      const int digits = std::snprintf(size, sizeof size, "%zx\r\n", piece.size());
      out.assign(size, static_cast<std::size_t>(digits));
      out += piece;
      out += "\r\n";
    } else {
      out = std::move(piece);
    }
    const auto piece_out = asio::buffer(out);
    std::tie(error, bytes) = co_await asio::async_write(link_->stream, piece_out, kAwait);
    if (error) co_return false;  // it may have answered already; run() sees
    if (!answering_) await_answer();
  }
  if (over_) co_return false;
  if (chunked) {
    out = "0\r\n\r\n";
    const auto last = asio::buffer(out);
    std::tie(error, bytes) = co_await asio::async_write(link_->stream, last, kAwait);
    if (error) co_return false;
  }
  body_sent_ = true;
  co_return true;
}

// What it says next is another request. When it leaves, the upstream need not go on.
asio::awaitable<void> Forwarding::await_leaving() {
  error_code error;
  std::size_t bytes = 0;
  const auto space = client_.buffer.prepare(kReadBytes / 4);
  std::tie(error, bytes) = co_await client_.stream.async_read_some(space, kAwait);
  if (!error) {
    client_.buffer.commit(bytes);
    co_return;
  }
  if (over_) co_return;
  if (is_clean_end(error)) {
    // It may wait for the answer all the same.
    asio::steady_timer grace(executor_, kLeaving);
    leaving_ = &grace;
    error_code woken;
    std::tie(woken) = co_await grace.async_wait(kAwait);
    leaving_ = nullptr;
    if (over_) co_return;
  }
  client_left_ = true;
  hang_up();
}

// Nothing of ours reads from the client, or writes its body to the upstream, any more.
asio::awaitable<void> Forwarding::end_side() {
  over_ = true;
  if (side_runs_) client_socket().cancel();
  if (leaving_ != nullptr) leaving_->cancel();
  error_code woken;
  while (side_runs_) std::tie(woken) = co_await side_ended_.async_wait(kAwait);
}

// ---- after a 101 -------------------------------------------------------------------------------------------

asio::awaitable<ForwardEnd> Forwarding::converse() {
  upgraded_ = true;
  side_runs_ = true;
  asio::co_spawn(executor_, carry_up(shared_from_this()), asio::detached);
  error_code error;
  std::size_t bytes = 0;
  bool ended = false;
  std::string piece = std::exchange(link_->in, {});
  while (true) {
    if (!piece.empty()) {
      const bool said = co_await say(piece.data(), piece.size());
      if (!said) {
        note_end("connection to the client lost");
        break;
      }
      if (one_ended_) deadline_.start(kHalfOpen, [this] { end_both(); });
    }
    char buffer[kReadBytes];
    const auto into = asio::buffer(buffer);
    std::tie(error, bytes) = co_await link_->stream.async_read_some(into, kAwait);
    if (error) {
      ended = is_clean_end(error);
      note_end(ended ? "closed by the upstream" : "connection to the upstream lost: " + error.message());
      break;
    }
    piece.assign(buffer, bytes);
  }
  if (ended) {
    // The client may have more to say.
    one_ended_ = true;
    co_await end_writing(client_.stream);
    if (side_runs_) deadline_.start(kHalfOpen, [this] { end_both(); });
  } else {
    end_both();
  }
  error_code woken;
  while (side_runs_) std::tie(woken) = co_await side_ended_.async_wait(kAwait);
  deadline_.cancel();
  hang_up();
  if (passage_->on_end) passage_->on_end(cause_);
  ForwardEnd end;
  if (ended && said_all_) end.kind = ForwardEnd::Kind::close;
  co_return end;
}

asio::awaitable<void> Forwarding::carry_up([[maybe_unused]] std::shared_ptr<Forwarding> self) {
  error_code error;
  std::size_t bytes = 0;
  std::string piece(static_cast<const char*>(client_.buffer.data().data()), client_.buffer.size());
  client_.buffer.clear();
  bool ended = false;
  while (true) {
    if (!piece.empty()) {
      const auto out = asio::buffer(piece);
      std::tie(error, bytes) = co_await asio::async_write(link_->stream, out, kAwait);
      if (error) {
        note_end("connection to the upstream lost: " + error.message());
        break;
      }
      if (one_ended_) deadline_.start(kHalfOpen, [this] { end_both(); });
    }
    char buffer[kReadBytes];
    const auto into = asio::buffer(buffer);
    std::tie(error, bytes) = co_await client_.stream.async_read_some(into, kAwait);
    if (error) {
      ended = is_clean_end(error);
      note_end(ended ? "closed by the client" : "connection to the client lost: " + error.message());
      break;
    }
    piece.assign(buffer, bytes);
  }
  if (ended) {
    one_ended_ = true;
    co_await end_writing(link_->stream);
    said_all_ = true;
    deadline_.start(kHalfOpen, [this] { end_both(); });
  } else {
    hang_up();
  }
  side_runs_ = false;
  side_ended_.cancel();
}

}  // namespace

asio::awaitable<ForwardEnd> forward(std::shared_ptr<Upstreams::State> upstreams, ClientSide client,
                                    std::shared_ptr<const Request> head, std::shared_ptr<Passage> passage) {
  const auto executor = co_await asio::this_coro::executor;
  const auto work = std::make_shared<Forwarding>(std::move(upstreams), std::move(client), std::move(head),
                                                 std::move(passage), executor);
  ForwardEnd end = co_await work->run();
  co_return end;
}

}  // namespace ledger::api
