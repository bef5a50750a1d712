#include "api/upstream.h"

#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>

#include <algorithm>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/url/parse.hpp>
#include <cerrno>
#include <charconv>

#include "api/upstream_link.h"

namespace ledger::api {

namespace asio = boost::asio;
namespace http = boost::beast::http;
namespace ssl = asio::ssl;
using link_detail::error_code;
using link_detail::kAwait;
using link_detail::tcp;
using std::chrono::steady_clock;

namespace {

constexpr std::size_t kHeadBytes = 128 << 10;
constexpr std::size_t kReadBytes = 16 << 10;
constexpr std::size_t kIdleLinks = 128;
constexpr std::chrono::seconds kIdleFor{30};
constexpr std::chrono::seconds kFreshFor{2};
constexpr std::size_t kContexts = 1024;
constexpr std::chrono::hours kContextLife{12};
constexpr std::chrono::seconds kLeastHeld{2}, kMostHeld{300}, kSteady{120};

std::string key_of(const UpstreamIdentity& as) {
  switch (as.kind) {
    case UpstreamIdentity::Kind::anonymous: return "anonymous";
    case UpstreamIdentity::Kind::front_proxy: return "front proxy";
    case UpstreamIdentity::Kind::certificate: break;
  }
  std::string key = "certificate " + as.user;
  for (const std::string& group : as.groups) key += '\n' + group;
  return key;
}

bool is_equal(std::string_view a, std::string_view b) { return to_lower(a) == b; }

// What the Connection headers name, and what is always between two neighbours alone (RFC 9110, 7.6.1).
std::vector<std::string> hop_by_hop(const Request& head) {
  std::vector<std::string> names = {"connection", "keep-alive", "proxy-connection", "proxy-authorization", "te",
                                    "trailer", "transfer-encoding", "content-length", "upgrade"};
  for (const auto& [name, value] : head.headers) {
    if (name != "connection") continue;
    std::string_view rest = value;
    while (!rest.empty()) {
      const auto comma = rest.find(',');
      names.push_back(to_lower(trim(rest.substr(0, comma))));
      rest.remove_prefix(comma == rest.npos ? rest.size() : comma + 1);
    }
  }
  return names;
}

std::string reason_of(const error_code& error, const Deadline& deadline) {
  return deadline.over() ? "no answer in time" : error.message();
}

}  // namespace

bool is_front_proxy_header(std::string_view name) {
  std::string plain = to_lower(name);
  std::replace(plain.begin(), plain.end(), '_', '-');
  return plain.starts_with("x-remote-");
}

std::string upstream_head(const Request& head, const UpstreamIdentity& as, const std::string& framing,
                          bool add_forwarded_for) {
  const std::vector<std::string> own = hop_by_hop(head);
  std::string text = head.method + " " + head.path + (head.query.empty() ? "" : "?" + head.query) +
                     (head.version == 10 ? " HTTP/1.0\r\n" : " HTTP/1.1\r\n");
  std::string forwarded_for;
  for (const auto& [name, value] : head.headers) {
    if (is_front_proxy_header(name) || std::find(own.begin(), own.end(), name) != own.end()) continue;
    if (add_forwarded_for && name == "x-forwarded-for") {
      forwarded_for += value + ", ";
      continue;
    }
    text += name + ": " + value + "\r\n";
  }
  if (add_forwarded_for) text += "x-forwarded-for: " + forwarded_for + std::string(host_of(head.source)) + "\r\n";
  if (as.kind == UpstreamIdentity::Kind::front_proxy) {
    text += "x-remote-user: " + as.user + "\r\n";
    for (const std::string& group : as.groups) text += "x-remote-group: " + group + "\r\n";
  }
  return text + framing + "\r\n";
}

asio::awaitable<Result<std::string>> read_answer_head(UpstreamLink& link, AnswerParser& parser) {
  parser.header_limit(kHeadBytes);
  parser.body_limit(boost::none);
  while (true) {
    error_code error;
    if (!link.in.empty()) {
      const std::size_t used = parser.put(asio::buffer(link.in), error);
      if (error && error != http::error::need_more)
        co_return Error{Errc::io, "the upstream " + link.upstream + " answered what is no HTTP: " + error.message()};
      if (parser.is_header_done()) {
        std::string head = link.in.substr(0, used);
        link.in.erase(0, used);
        co_return head;
      }
    }
    if (link.in.size() > kHeadBytes)
      co_return Error{Errc::io, "the upstream " + link.upstream + " answered with a head without an end"};
    char bytes[kReadBytes];
    std::size_t got = 0;
    const auto into = asio::buffer(bytes);
    std::tie(error, got) = co_await link.stream.async_read_some(into, kAwait);
    if (error)
      co_return Error{Errc::io, "the upstream " + link.upstream + " broke off before it answered: " + error.message()};
    link.in.append(bytes, got);
  }
}

// ---- connections -----------------------------------------------------------------------------------------

Result<std::shared_ptr<ssl::context>> Upstreams::State::context_for(const UpstreamIdentity& as) {
  const std::string key = key_of(as);
  {
    const std::lock_guard lock(mutex);
    const auto found = contexts.find(key);
    if (found != contexts.end() && steady_clock::now() - found->second.made < kContextLife) return found->second.tls;
  }
  auto tls = std::make_shared<ssl::context>(ssl::context::tls_client);
  SSL_CTX_set_min_proto_version(tls->native_handle(), TLS1_2_VERSION);
  // An intermediate CA in the file is trusted without its root, as agents do.
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(tls->native_handle()), X509_V_FLAG_PARTIAL_CHAIN);
  error_code error;
  tls->set_verify_mode(ssl::verify_peer, error);
  if (!error) tls->add_certificate_authority(asio::buffer(issuer.server_ca_pem()), error);
  if (!error && as.kind != UpstreamIdentity::Kind::anonymous) {
    const Result<IssuedCertificate> made = as.kind == UpstreamIdentity::Kind::front_proxy
                                               ? issuer.issue_front_proxy(Time::now())
                                               : issuer.issue_client(as.user, as.groups, Time::now());
    if (!made) return made.error();
    tls->use_certificate_chain(asio::buffer(made->leaf_pem), error);
    if (!error) tls->use_private_key(asio::buffer(made->key_pem.reveal()), ssl::context::pem, error);
  }
  if (error) return Error{Errc::invalid, "TLS towards the upstream: " + error.message()};
  const std::lock_guard lock(mutex);
  if (contexts.size() >= kContexts) contexts.clear();  // links hold theirs
  contexts[key] = {tls, steady_clock::now()};
  return tls;
}

std::vector<std::size_t> Upstreams::State::candidates(Plane plane) {
  const std::lock_guard lock(mutex);
  std::vector<std::size_t> order = plane == Plane::kubernetes ? kubernetes : supervisors;
  std::stable_partition(order.begin(), order.end(), [this](std::size_t target) { return targets[target].answers; });
  // Where none answers the first is tried all the same: it may have come back a moment ago.
  const auto silent = std::find_if(order.begin(), order.end(), [this](std::size_t t) { return !targets[t].answers; });
  if (silent == order.begin() && !order.empty()) order.resize(1);
  else order.erase(silent, order.end());
  return order;
}

LinkPtr Upstreams::State::take_idle(const std::string& key, Reuse reuse) {
  const auto now = steady_clock::now();
  const std::lock_guard lock(mutex);
  for (auto link = idle.begin(); link != idle.end();) {
    const bool wanted = (*link)->key == key && now - (*link)->idle_since < (reuse == Reuse::yes ? kIdleFor : kFreshFor);
    if (!wanted) {
      ++link;
      continue;
    }
    LinkPtr taken = std::move(*link);
    link = idle.erase(link);
    // Who kept it has nothing to say between two requests, but that it leaves.
    char byte;
    const int fd = taken->socket().native_handle();
    if (::recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN) {
      taken->reused = true;
      return taken;
    }
  }
  return nullptr;
}

void Upstreams::State::keep(LinkPtr link) {
  if (stopping || !link->in.empty()) return;
  link->idle_since = steady_clock::now();
  LinkPtr oldest;
  const std::lock_guard lock(mutex);
  idle.push_front(std::move(link));
  if (idle.size() <= kIdleLinks) return;
  oldest = std::move(idle.back());
  idle.pop_back();
}

asio::awaitable<Result<LinkPtr>> Upstreams::State::open_link(std::size_t target, const UpstreamIdentity& as) {
  std::string host, name;
  std::uint16_t port = 0;
  {
    const std::lock_guard lock(mutex);
    host = targets[target].host, name = targets[target].name, port = targets[target].port;
  }
  Result<std::shared_ptr<ssl::context>> tls = context_for(as);
  if (!tls) co_return tls.error();
  auto link = std::make_unique<UpstreamLink>(io, *tls);
  link->upstream = name;
  link->key = name + " " + key_of(as);
  const auto executor = co_await asio::this_coro::executor;
  const auto failed = [&name](const std::string& what) {
    return Error{Errc::unavailable, "the upstream " + name + " does not answer: " + what};
  };
  error_code error;
  tcp::resolver resolver(executor);
  Deadline deadline(executor);
  UpstreamLink* const raw = link.get();
  const std::function<void()> give_up = [raw, &resolver] {
    resolver.cancel();
    raw->close();
  };
  deadline.start(options.connect, give_up);
  const std::string port_text = std::to_string(port);
  tcp::resolver::results_type found;
  std::tie(error, found) = co_await resolver.async_resolve(host, port_text, kAwait);
  if (error) co_return failed(deadline.over() ? "its name was not found in time" : "its name: " + error.message());
  tcp::endpoint reached;
  std::tie(error, reached) = co_await asio::async_connect(link->socket(), found, kAwait);
  if (error) co_return failed("dial tcp " + name + ": " + (deadline.over() ? "no answer in time" : error.message()));
  error_code ignored;
  link->socket().set_option(tcp::no_delay(true), ignored);
  SSL* const native = link->stream.native_handle();
  asio::ip::make_address(host, error);
  const bool is_address = !error;
  if (!is_address) SSL_set_tlsext_host_name(native, host.c_str());
  const int named = is_address ? X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(native), host.c_str())
                               : SSL_set1_host(native, host.c_str());
  if (named != 1) co_return failed("its URL's host is neither a name nor an address");
  std::tie(error) = co_await link->stream.async_handshake(ssl::stream_base::client, kAwait);
  if (error) {
    const long verdict = SSL_get_verify_result(native);
    co_return failed(verdict != X509_V_OK ? std::string("its certificate: ") + X509_verify_cert_error_string(verdict)
                                          : "TLS handshake: " + reason_of(error, deadline));
  }
  note_certificate(target, native);
  co_return link;
}

void Upstreams::State::note_certificate(std::size_t target, SSL* session) {
  if (!options.on_names) return;
  const std::unique_ptr<BIO, decltype(&BIO_free_all)> memory(BIO_new(BIO_s_mem()), &BIO_free_all);
  X509* const shown = SSL_get0_peer_certificate(session);
  if (memory == nullptr || shown == nullptr || PEM_write_bio_X509(memory.get(), shown) != 1) return;
  char* bytes = nullptr;
  const long size = BIO_get_mem_data(memory.get(), &bytes);
  const std::string pem(bytes, static_cast<std::size_t>(size));
  {
    const std::lock_guard lock(mutex);
    if (targets[target].certificate == pem) return;
    targets[target].certificate = pem;
  }
  options.on_names(names_in_certificate(pem));
}

asio::awaitable<Result<LinkPtr>> Upstreams::State::acquire(Plane plane, const UpstreamIdentity& as, Reuse reuse) {
  const std::vector<std::size_t> order = candidates(plane);
  std::optional<Error> last;
  for (const std::size_t target : order) {
    if (stopping) break;
    std::string name;
    {
      const std::lock_guard lock(mutex);
      name = targets[target].name;
    }
    if (reuse != Reuse::no)
      if (LinkPtr kept = take_idle(name + " " + key_of(as), reuse); kept != nullptr) co_return kept;
    Result<LinkPtr> opened = co_await open_link(target, as);
    if (opened) {
      note(target, true, "");
      co_return opened;
    }
    last = opened.error();
    // What our own directory lacks says nothing about the upstream.
    if (last->code == Errc::unavailable) note(target, false, last->message);
  }
  co_return last.value_or(Error{Errc::unavailable, "the server is stopping"});
}

// ---- whether they answer -----------------------------------------------------------------------------------

void Upstreams::State::note(std::size_t target, bool answers, const std::string& cause) {
  UpstreamChange change;
  {
    const std::lock_guard lock(mutex);
    Target& it = targets[target];
    if (!answers) it.cause = cause;
    if (it.answers == answers || stopping) return;
    const auto now = steady_clock::now();
    // One that comes and goes is not told of every time: the log would be full of it.
    if (answers && now - it.changed < it.held) return;
    if (!answers) it.held = now - it.changed < kSteady ? std::min(std::max(it.held * 2, kLeastHeld), kMostHeld) : kLeastHeld;
    it.answers = answers;
    if (answers) it.cause.clear();
    it.since = Time::now();
    change = {.upstream = it.name,
              .answers = answers,
              .cause = it.cause,
              .lasted = std::chrono::duration_cast<std::chrono::seconds>(now - it.changed)};
    it.changed = now;
  }
  if (options.on_change) options.on_change(change);
}

asio::awaitable<void> Upstreams::State::check(std::size_t target) {
  const auto self = shared_from_this();
  const auto executor = co_await asio::this_coro::executor;
  const UpstreamIdentity anonymous;
  Result<LinkPtr> opened = co_await open_link(target, anonymous);
  std::optional<Error> failure;
  if (!opened) {
    failure = opened.error();
  } else {
    UpstreamLink& link = **opened;
    Deadline deadline(executor);
    const std::function<void()> give_up = [&link] { link.close(); };
    deadline.start(options.connect, give_up);
    const std::string text = "GET /ping HTTP/1.1\r\nhost: " + link.upstream + "\r\n\r\n";
    bool nothing_came = false;
    const Result<UpstreamAnswer> answer = co_await ask_on(link, text, false, &nothing_came);
    deadline.cancel();
    if (!answer) failure = deadline.over() ? Error{Errc::overloaded, "no answer to /ping in time"} : answer.error();
    if (answer && answer->keep_alive) keep(std::move(*opened));
  }
  note(target, !failure, failure ? failure->message : "");
}

void Upstreams::State::check_all() {
  if (stopping) return;
  std::list<LinkPtr> old;
  std::size_t count = 0;
  {
    const std::lock_guard lock(mutex);
    count = targets.size();
    const auto limit = steady_clock::now() - kIdleFor;
    while (!idle.empty() && idle.back()->idle_since < limit) old.splice(old.end(), idle, std::prev(idle.end()));
  }
  for (std::size_t target = 0; target < count; ++target)
    asio::co_spawn(asio::make_strand(io), check(target), asio::detached);
  timer.expires_after(options.check_every);
  timer.async_wait([self = shared_from_this()](const error_code& cancelled) {
    if (!cancelled) self->check_all();
  });
}

// ---- a whole request ---------------------------------------------------------------------------------------

asio::awaitable<Result<UpstreamAnswer>> Upstreams::State::ask_on(UpstreamLink& link, const std::string& text,
                                                                 bool is_head, bool* nothing_came) {
  *nothing_came = true;
  error_code error;
  std::size_t bytes = 0;
  const auto out = asio::buffer(text);
  std::tie(error, bytes) = co_await asio::async_write(link.stream, out, kAwait);
  if (error)
    co_return Error{Errc::io, "the upstream " + link.upstream + " does not take the request: " + error.message()};
  UpstreamAnswer answer;
  answer.upstream = link.upstream;
  std::optional<http::response_parser<http::string_body>> parsing;
  const auto begin = [&] {
    parsing.emplace();
    parsing->header_limit(kHeadBytes);
    parsing->body_limit(options.answer_bytes);
    parsing->eager(true);
    parsing->skip(is_head);
    answer.raw.clear();
  };
  begin();
  while (true) {
    if (!link.in.empty()) {
      const std::size_t used = parsing->put(asio::buffer(link.in), error);
      if (error && error != http::error::need_more)
        co_return Error{Errc::io, "the upstream " + link.upstream + " answered what is no HTTP: " + error.message()};
      answer.raw.append(link.in, 0, used);
      link.in.erase(0, used);
      const bool is_interim = parsing->is_done() && parsing->get().result_int() < 200;
      if (is_interim) {
        begin();
        continue;
      }
      if (parsing->is_done()) break;
    }
    char buffer[kReadBytes];
    const auto into = asio::buffer(buffer);
    std::tie(error, bytes) = co_await link.stream.async_read_some(into, kAwait);
    // Only an end that the upstream itself has said is one.
    if (error == asio::error::eof && parsing->is_header_done() && parsing->need_eof()) {
      parsing->put_eof(error);
      if (!error) break;
    }
    if (error)
      co_return Error{Errc::io, "the upstream " + link.upstream + " broke off its answer: " + error.message()};
    *nothing_came = false;
    link.in.append(buffer, bytes);
  }
  auto& parser = *parsing;
  const auto& message = parser.get();
  answer.status = static_cast<int>(message.result_int());
  for (const auto& field : message)
    answer.headers.emplace_back(to_lower({field.name_string().data(), field.name_string().size()}),
                                std::string(field.value().data(), field.value().size()));
  answer.keep_alive = parser.keep_alive() && !parser.need_eof();
  answer.body = std::move(parser.get().body());
  co_return answer;
}

asio::awaitable<Result<UpstreamAnswer>> Upstreams::State::ask(std::shared_ptr<const Request> request,
                                                              UpstreamIdentity as) {
  const auto self = shared_from_this();
  const auto executor = co_await asio::this_coro::executor;
  const auto began = steady_clock::now();
  std::string framing;
  if (!request->body.empty() || request->method == "POST" || request->method == "PUT")
    framing += "content-length: " + std::to_string(request->body.size()) + "\r\n";
  bool closes = false;
  for (const auto& [name, value] : request->headers) closes = closes || (name == "connection" && is_equal(value, "close"));
  if (closes) framing += "connection: close\r\n";
  const std::string text = upstream_head(*request, as, framing, false) + request->body;
  const bool repeatable = request->version == 11 && (request->method == "GET" || request->method == "HEAD");
  for (Reuse reuse = repeatable ? Reuse::yes : Reuse::no;; reuse = Reuse::no) {
    Result<LinkPtr> link = co_await acquire(Plane::supervisor, as, reuse);
    if (!link) co_return link.error();
    UpstreamLink* const raw = link->get();
    Deadline deadline(executor);
    const std::function<void()> give_up = [raw] { raw->close(); };
    deadline.start(options.answer, give_up);
    bool nothing_came = false;
    const bool is_head = request->method == "HEAD";
    Result<UpstreamAnswer> answer = co_await ask_on(*raw, text, is_head, &nothing_came);
    deadline.cancel();
    if (!answer && raw->reused && nothing_came && !deadline.over()) continue;  // it left just now
    if (!answer && deadline.over())
      co_return Error{Errc::overloaded, "the upstream " + raw->upstream + " did not answer in time"};
    if (!answer) co_return answer.error();
    answer->took = std::chrono::duration_cast<std::chrono::milliseconds>(steady_clock::now() - began);
    if (answer->keep_alive && !closes) keep(std::move(*link));
    co_return answer;
  }
}

// ---- the outside -------------------------------------------------------------------------------------------

namespace {

Result<Upstreams::State::Target> target_of(const std::string& text) {
  const auto url = boost::urls::parse_uri(text);
  const bool plain = url && url->scheme() == "https" && !url->has_userinfo() && !url->host().empty() &&
                     !url->has_query() && !url->has_fragment() &&
                     (url->encoded_path().empty() || url->encoded_path() == "/");
  Upstreams::State::Target target;
  if (plain) {
    const std::string port = url->has_port() ? std::string(url->port()) : "6443";
    const auto read = std::from_chars(port.data(), port.data() + port.size(), target.port);
    if (read.ec != std::errc() || read.ptr != port.data() + port.size()) target.port = 0;
  }
  if (target.port == 0)
    return Error{Errc::invalid, "--upstream " + printable(text, 80) + " is not a URL like https://10.0.0.1:6443"};
  target.host = url->host_address();
  target.since = Time::now();
  return target;
}

void give_name(Upstreams::State::Target& target) {
  const bool is_v6 = target.host.find(':') != std::string::npos;
  target.name = (is_v6 ? "[" + target.host + "]" : target.host) + ":" + std::to_string(target.port);
  target.url = "https://" + target.name;
}

}  // namespace

Upstreams::Upstreams(std::shared_ptr<State> state) : state_(std::move(state)) {}
Upstreams::~Upstreams() { stop(); }

Result<std::unique_ptr<Upstreams>> Upstreams::open(asio::io_context& io, Options options, const Issuer& issuer) {
  auto state = std::make_shared<State>(io, std::move(options), issuer);
  const auto add = [&state](State::Target target, std::vector<std::size_t>& to) {
    give_name(target);
    to.push_back(state->targets.size());
    state->targets.push_back(std::move(target));
  };
  for (const std::string& url : state->options.urls) {
    Result<State::Target> target = target_of(url);
    if (!target) return target.error();
    add(*target, state->supervisors);
    target->port = state->options.kubernetes_port;
    if (target->port != 0) add(*target, state->kubernetes);
  }
  if (state->supervisors.empty()) return Error{Errc::invalid, "--upstream is needed: the k3s server's https address"};
  if (state->kubernetes.empty()) state->kubernetes = state->supervisors;
  return std::unique_ptr<Upstreams>(new Upstreams(std::move(state)));
}

void Upstreams::start() { state_->check_all(); }

void Upstreams::stop() {
  if (state_->stopping.exchange(true)) return;
  asio::post(state_->io, [state = state_] { state->timer.cancel(); });
  std::list<LinkPtr> old;
  const std::lock_guard lock(state_->mutex);
  old.swap(state_->idle);
}

void Upstreams::exchange(std::shared_ptr<const Request> request, UpstreamIdentity as, Take take) {
  asio::co_spawn(asio::make_strand(state_->io), state_->ask(std::move(request), std::move(as)),
                 [take = std::move(take)](const std::exception_ptr& failed, Result<UpstreamAnswer> answer) {
                   if (failed) answer = Error{Errc::unavailable, "there is no memory to ask the upstream"};
                   take(std::move(answer));
                 });
}

std::vector<UpstreamStatus> Upstreams::status() const {
  std::vector<UpstreamStatus> all;
  const std::lock_guard lock(state_->mutex);
  for (const State::Target& target : state_->targets)
    all.push_back({.url = target.url, .answers = target.answers, .cause = target.cause, .since = target.since});
  return all;
}

bool Upstreams::any_answers() const {
  const std::lock_guard lock(state_->mutex);
  return std::any_of(state_->targets.begin(), state_->targets.end(), [](const auto& one) { return one.answers; });
}

}  // namespace ledger::api
