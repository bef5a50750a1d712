#include "api/event_stream.h"

#include <atomic>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/url/parse_query.hpp>
#include <charconv>
#include <chrono>

#include "api/problem.h"
#include "replay/tail.h"

namespace ledger::api {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::chrono::seconds kHeartbeat{15};
constexpr std::chrono::seconds kAskWhetherAllowed{5};
// Small, so that a slow reader shows progress within the deadline of one reply.
constexpr replay::TailLimits kPiece{.records = 128, .bytes = 16 << 10, .looked_at = 4096};

struct Asked {
  replay::ExportOptions options{};
  std::optional<Seq> after{};
};

Result<Seq> parse_seq(const char* what, std::string_view text) {
  Seq seq = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), seq);
  if (text.empty() || error != std::errc() || end != text.data() + text.size())
    return Error{Errc::invalid, std::string(what) + ": '" + printable(text, 60) + "' is not the number of a record"};
  return seq;
}

Result<std::vector<Kind>> parse_kinds(std::string_view text) {
  std::vector<Kind> kinds;
  while (!text.empty()) {
    const auto comma = text.find(',');
    const std::string_view name = text.substr(0, comma);
    const std::optional<Kind> kind = kind_from_name(name);
    if (!kind) return Error{Errc::invalid, "kind: '" + printable(name, 60) + "' is no kind of record"};
    kinds.push_back(*kind);
    text = comma == std::string_view::npos ? std::string_view() : text.substr(comma + 1);
  }
  return kinds;
}

Result<void> read_parameter(const std::string& key, const std::string& value, Asked& asked) {
  if (key == "after") {
    const Result<Seq> after = parse_seq("after", value);
    if (!after) return after.error();
    asked.after = *after;
  } else if (key == "node") {
    const Result<NodeName> node = NodeName::parse(value);
    if (!node) return node.error();
    asked.options.nodes.push_back(node->str());
  } else if (key == "kind") {
    const Result<std::vector<Kind>> kinds = parse_kinds(value);
    if (!kinds) return kinds.error();
    asked.options.kinds.insert(asked.options.kinds.end(), kinds->begin(), kinds->end());
  } else {
    return Error{Errc::invalid, "parameter '" + printable(key, 60) + "' is unknown: after, node and kind are known"};
  }
  return {};
}

Result<Asked> parse(const Request& request) {
  Asked asked;
  const auto query = boost::urls::parse_query(request.query);
  if (!query) return Error{Errc::invalid, "the query of the URL cannot be read"};
  for (const auto& parameter : *query)
    if (const Result<void> read = read_parameter(std::string(parameter.key), std::string(parameter.value), asked); !read)
      return read.error();
  // A browser that comes back has the URL that it began with: the header is newer.
  if (request.header_count("last-event-id") == 0) return asked;
  const Result<Seq> last = parse_seq("Last-Event-ID", request.header("last-event-id"));
  if (!last) return last.error();
  asked.after = *last;
  return asked;
}

std::string event_of(const replay::TailLine& line) {
  std::string_view data = line.text;
  if (data.ends_with('\n')) data.remove_suffix(1);
  return "id: " + std::to_string(line.seq) + "\nevent: " + std::string(name_of(line.kind)) + "\ndata: " +
         std::string(data) + "\n\n";
}

}  // namespace

// Outlives the streams, which may go after EventStreams does.
struct EventStreams::Shared {
  explicit Shared(const Ledger& l) : ledger(l) {}
  const Ledger& ledger;
  std::atomic<int> open{0};
  boost::asio::thread_pool reader{1};
};

class EventStreams::Source : public BodySource, public std::enable_shared_from_this<Source> {
 public:
  Source(std::shared_ptr<Shared> shared, Asked asked, std::function<bool()> allowed)
      : shared_(std::move(shared)), options_(std::move(asked.options)), seen_(*asked.after), allowed_(std::move(allowed)) {}
  ~Source() override { --shared_->open; }

  void next(Take take) override {
    const Clock::time_point now = Clock::now();
    if (now - asked_ >= kAskWhetherAllowed) {
      asked_ = now;
      if (!allowed_()) return take({.bytes = ": the token of this stream is not accepted any more\n\n", .last = true});
    }
    if (shared_->ledger.log().head() <= seen_) return take(silence(now));
    boost::asio::post(shared_->reader,
                      [self = shared_from_this(), take = std::move(take)] { take(self->read()); });
  }

 private:
  Piece silence(Clock::time_point now) {
    if (now - said_ < kHeartbeat) return {};
    said_ = now;
    return {.bytes = ": " + std::to_string(seen_) + "\nid: " + std::to_string(seen_) + "\n\n"};
  }

  Piece read() {
    const Result<replay::TailPiece> tail = replay::read_tail(shared_->ledger.log(), seen_, options_, kPiece);
    if (!tail) return {.bytes = ": the log cannot be read: " + printable(tail.error().message, 300) + "\n\n", .last = true};
    Piece piece;
    for (const replay::Hole& hole : tail->holes)
      piece.bytes += ": record " + std::to_string(hole.seq) + " is missing: " + printable(hole.reason, 300) + "\n\n";
    for (const replay::TailLine& line : tail->lines) piece.bytes += event_of(line);
    seen_ = tail->seen;
    piece.ready = tail->more;
    const Clock::time_point now = Clock::now();
    if (piece.bytes.empty()) return {.bytes = silence(now).bytes, .ready = tail->more};
    said_ = now;
    return piece;
  }

  const std::shared_ptr<Shared> shared_;
  const replay::ExportOptions options_;
  // Of one call of next() at a time.
  Seq seen_;
  std::function<bool()> allowed_;
  Clock::time_point asked_ = Clock::now();
  Clock::time_point said_ = asked_ - kHeartbeat;  // a consumer hears at once where it stands
};

EventStreams::EventStreams(const Ledger& ledger) : shared_(std::make_shared<Shared>(ledger)) {}

EventStreams::~EventStreams() { shared_->reader.join(); }

Response EventStreams::open(const Request& request, std::function<bool()> allowed) {
  Result<Asked> asked = parse(request);
  if (!asked) return to_response(problem_of(asked.error()));
  const Seq head = shared_->ledger.log().head();
  if (!asked->after) asked->after = head;
  if (*asked->after > head)
    return to_response({409, "record " + std::to_string(*asked->after) + " is behind the end of the log, " +
                                 std::to_string(head) + ": is it another log, or a restored copy?"});
  if (shared_->open.fetch_add(1) >= kMaxStreams) {
    --shared_->open;
    return to_response({429, "more than " + std::to_string(kMaxStreams) + " streams of events at once", 5});
  }
  Response response;
  response.content_type = "text/event-stream";
  response.headers.emplace_back("Cache-Control", "no-store");
  response.headers.emplace_back("Ledger-Log", shared_->ledger.log().id());
  response.source = std::make_shared<Source>(shared_, std::move(*asked), std::move(allowed));
  return response;
}

}  // namespace ledger::api
