#include "ledger/import_read.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>
#include <system_error>

#include "ledger/csv.h"
#include "ledger/import_log.h"
#include "ledger/node_hash.h"

namespace ledger {

namespace json = boost::json;

namespace {

constexpr std::size_t kPart = 64 << 10;
constexpr std::uint64_t kMaxInMemory = std::uint64_t{256} << 20;
constexpr std::size_t kMaxCsvRecord = 16 << 10;
constexpr std::size_t kCsvWindow = 256 << 10;
constexpr std::size_t kMaxPassword = 1024;  // as registrations take it
constexpr std::size_t kMaxLine = 1 << 20;
constexpr std::size_t kBatch = 512;

bool has_control(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return true;
  return false;
}

}  // namespace

// ---- bytes -----------------------------------------------------------------------------------------------

struct ImportInput::State {
  std::string name;  // for messages
  int fd = -1;       // of a regular file; -1: everything is in `parts`
  std::vector<std::unique_ptr<WipedText>> parts;
  std::size_t at_part = 0;
  std::uint64_t size = 0;
  std::string sha256;
  WipedText buffer;
  std::unique_ptr<Sha256> again;  // of this reading

  ~State() {
    if (fd >= 0) ::close(fd);
  }
  // Reads once into `buffer`; empty at the end.
  Result<std::string_view> read(int from) {
    buffer.text.resize(kPart);
    std::size_t done = 0;
    while (done < kPart) {
      const ssize_t got = ::read(from, buffer.text.data() + done, kPart - done);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return Error{Errc::io, "cannot read " + name + ": " + std::generic_category().message(errno)};
      if (got == 0) break;
      done += static_cast<std::size_t>(got);
    }
    return std::string_view(buffer.text.data(), done);
  }
  void keep(std::string_view bytes) {
    for (; !bytes.empty(); bytes.remove_prefix(std::min(bytes.size(), kPart))) {
      parts.push_back(std::make_unique<WipedText>(kPart));
      parts.back()->text += bytes.substr(0, kPart);
    }
  }
};

ImportInput::ImportInput(std::unique_ptr<State> state) : state_(std::move(state)) {}
ImportInput::ImportInput(ImportInput&&) noexcept = default;
ImportInput& ImportInput::operator=(ImportInput&&) noexcept = default;
ImportInput::~ImportInput() = default;

Result<ImportInput> ImportInput::open(const std::filesystem::path& path) {
  auto state = std::make_unique<State>();
  const bool standard = path == "-";
  state->name = standard ? "standard input" : "'" + printable(path.string(), 300) + "'";
  const int fd = standard ? ::dup(STDIN_FILENO) : ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY);
  if (fd < 0)
    return Error{errno == ENOENT ? Errc::not_found : Errc::io, "cannot read " + state->name + ": " +
                                                                   std::generic_category().message(errno) +
                                                                   "; check the name and the permissions"};
  struct stat info {};
  const bool regular = !standard && ::fstat(fd, &info) == 0 && S_ISREG(info.st_mode);
  if (regular)
    state->fd = fd;
  Sha256 digest;
  Result<std::string_view> part = std::string_view();
  while ((part = state->read(fd)) && !part->empty()) {
    digest.add(*part);
    state->size += part->size();
    if (regular) continue;
    if (state->size > kMaxInMemory) break;
    state->keep(*part);
  }
  const int error = part ? 0 : EIO;
  if (!regular) ::close(fd);
  if (error != 0) return part.error();
  if (!regular && state->size > kMaxInMemory)
    return Error{Errc::invalid, state->name + " gives more than 256 MiB; put it into a file and name that"};
  if (regular && ::lseek(fd, 0, SEEK_SET) != 0)
    return Error{Errc::io, "cannot read " + state->name + " a second time"};
  state->sha256 = digest.hex();
  return ImportInput(std::move(state));
}

ImportInput ImportInput::of_text(std::string_view text) {
  auto state = std::make_unique<State>();
  state->name = "the text";
  state->size = text.size();
  Sha256 digest;
  digest.add(text);
  state->sha256 = digest.hex();
  state->keep(text);
  return ImportInput(std::move(state));
}

const std::string& ImportInput::sha256() const { return state_->sha256; }
std::uint64_t ImportInput::size() const { return state_->size; }

Result<std::string_view> ImportInput::next() {
  State& state = *state_;
  if (state.fd < 0) {
    if (state.at_part == state.parts.size()) return std::string_view();
    return std::string_view(state.parts[state.at_part++]->text);
  }
  if (!state.again) state.again = std::make_unique<Sha256>();
  const Result<std::string_view> part = state.read(state.fd);
  if (!part) return part;
  state.again->add(*part);
  if (part->empty() && state.again->hex() != state.sha256)
    return Error{Errc::conflict, state.name + " changed while it was read; import it again"};
  return part;
}

// ---- node-passwd -----------------------------------------------------------------------------------------

namespace {

// Hands over entries some hundreds at a time.
class Batcher {
 public:
  explicit Batcher(const ImportSink& sink) : sink_(sink) {}
  Result<void> add(ImportEntry entry) {
    batch_.push_back(std::move(entry));
    return batch_.size() < kBatch ? Result<void>() : flush();
  }
  Result<void> flush() {
    if (batch_.empty()) return {};
    std::vector<ImportEntry> full = std::move(batch_);
    batch_.clear();
    return sink_.entries(std::move(full));
  }

 private:
  const ImportSink& sink_;
  std::vector<ImportEntry> batch_;
};

// Why a record is no entry; empty: it is, and `entry` says it.
std::string read_password_record(const CsvRecord& record, const Fingerprinter& fingerprint, ImportEntry* entry) {
  if (record.columns.size() < 3) return "has fewer than 3 columns (password,node,node,)";
  const std::string_view password = record.columns[0].reveal();
  if (password.empty()) return "has an empty password";
  if (password.size() > kMaxPassword) return "has a password longer than 1024 bytes, which no agent may present";
  if (has_control(password)) return "has a control character in its password";
  if (trim(password) != password) return "has a password with a blank at its end, which no agent can present";
  const Result<NodeName> node = NodeName::parse(record.columns[1].reveal());
  if (!node) return "has no node name in column 2";
  entry->line = record.line;
  entry->node = node->str();
  entry->fingerprint = fingerprint(record.columns[0]);
  return {};
}

Result<void> read_node_passwd(ImportInput& input, const Fingerprinter& fingerprint, const ImportSink& sink) {
  Batcher batcher(sink);
  WipedText window(kCsvWindow + kPart);
  std::size_t line = 1;
  std::uint64_t done = 0;
  for (bool at_end = false; !at_end || !window.text.empty();) {
    while (!at_end && window.text.size() < kCsvWindow) {
      const Result<std::string_view> part = input.next();
      if (!part) return part.error();
      at_end = part->empty();
      window.text += *part;
    }
    CsvReader reader(window.text, kMaxCsvRecord, line);
    // A record may go on in the next part: what is near the end waits for it.
    while (at_end || reader.consumed() + 2 * kMaxCsvRecord < window.text.size()) {
      CsvRecord record;
      const Result<bool> more = reader.read(&record);
      if (more && !*more) break;
      ImportEntry entry;
      const std::string why = more ? read_password_record(record, fingerprint, &entry) : more.error().message;
      if (!more) reader.skip_line();
      if (!why.empty())
        sink.left_out({record.line, {}, why});
      else if (const Result<void> added = batcher.add(std::move(entry)); !added)
        return added;
    }
    line = reader.line();
    done += reader.consumed();
    if (sink.progress) sink.progress(done, input.size());
    const std::size_t consumed = at_end ? window.text.size() : reader.consumed();
    window.text.erase(0, consumed);
  }
  return batcher.flush();
}

// ---- documents of kubectl --------------------------------------------------------------------------------

// What held a Secret is wiped when the document lets go of it.
class WipingMemory final : public json::memory_resource {
  void* do_allocate(std::size_t size, std::size_t align) override {
    return ::operator new(size, std::align_val_t(align));
  }
  void do_deallocate(void* at, std::size_t size, std::size_t align) override {
    explicit_bzero(at, size);
    ::operator delete(at, std::align_val_t(align));
  }
  bool do_is_equal(const json::memory_resource& other) const noexcept override { return this == &other; }
};

std::string_view text_at(const json::object& object, const char* key) {
  const json::value* found = object.if_contains(key);
  if (found == nullptr || !found->is_string()) return {};
  return {found->get_string().data(), found->get_string().size()};
}

const json::object* object_at(const json::object& object, const char* key) {
  const json::value* found = object.if_contains(key);
  return found != nullptr ? found->if_object() : nullptr;
}

Result<json::value> parse_document(ImportInput& input, const std::string& command, json::storage_ptr memory) {
  if (input.size() > kMaxInMemory)
    return Error{Errc::invalid, "the document is larger than 256 MiB; import it in parts (" + command +
                                    " takes a label selector)"};
  json::parse_options options;
  options.max_depth = 64;
  json::stream_parser parser(memory, options);
  std::size_t line = 1;
  for (;;) {
    const Result<std::string_view> part = input.next();
    if (!part) return part.error();
    if (part->empty()) break;
    json::error_code error;
    const std::size_t read = parser.write_some(part->data(), part->size(), error);
    line += static_cast<std::size_t>(std::count(part->begin(), part->begin() + static_cast<std::ptrdiff_t>(read), '\n'));
    if (!error && read < part->size() && !trim(part->substr(read)).empty()) error = json::error::extra_data;
    if (error)
      return Error{Errc::invalid, "the document is not JSON (line " + std::to_string(line) + ": " + error.message() +
                                      "); it must be what `" + command + "` prints"};
  }
  json::error_code error;
  parser.finish(error);
  if (error)
    return Error{Errc::invalid, "the document ends too early (line " + std::to_string(line) +
                                    "); it must be what `" + command + "` prints"};
  return parser.release();
}

// Calls visit(number, object) for every item of a List, or for the document itself.
template <class Visit>
Result<void> each_item(const json::value& document, const std::string& kind, const std::string& command,
                       const ImportSink& sink, Visit&& visit) {
  const json::object* root = document.if_object();
  const std::string_view what = root != nullptr ? text_at(*root, "kind") : std::string_view();
  if (root != nullptr && what == kind) return visit(std::size_t{1}, *root);
  const json::value* items = root != nullptr ? root->if_contains("items") : nullptr;
  if (items == nullptr || !items->is_array() || (what != "List" && what != kind + "List"))
    return Error{Errc::invalid, "the document is " + (what.empty() ? "no Kubernetes object" : "a " + printable(what, 60)) +
                                    "; it must be what `" + command + "` prints"};
  std::size_t number = 0;
  for (const json::value& value : items->get_array()) {
    ++number;
    const json::object* item = value.if_object();
    const std::string_view of = item != nullptr ? text_at(*item, "kind") : std::string_view();
    // Items of a typed list say no kind.
    if (item == nullptr || (!of.empty() && of != kind)) {
      sink.left_out({number, {}, "is " + (of.empty() ? "no object" : "a " + printable(of, 60)) + ", not a " + kind});
      continue;
    }
    if (const Result<void> visited = visit(number, *item); !visited) return visited;
    if (sink.progress) sink.progress(number, items->get_array().size());
  }
  return {};
}

constexpr std::string_view kSecretSuffixes[] = {".node-password.k3s", ".node-password.rke2"};

// Why a Secret is no entry; empty: it is. Other Secrets of kube-system leave `entry` without a node.
std::string read_secret(const json::object& item, ImportEntry* entry) {
  const json::object* metadata = object_at(item, "metadata");
  if (metadata == nullptr) return "has no metadata";
  std::string_view name = text_at(*metadata, "name");
  bool ours = false;
  for (const std::string_view suffix : kSecretSuffixes)
    if (!ours && name.ends_with(suffix)) name.remove_suffix(suffix.size()), ours = true;
  if (!ours) return {};
  const std::string_view space = text_at(*metadata, "namespace");
  if (!space.empty() && space != "kube-system") return "is not in namespace kube-system, where k3s keeps its own";
  if (metadata->contains("deletionTimestamp")) return "is being deleted";
  const Result<NodeName> node = NodeName::parse(name);
  if (!node) return "does not begin with a node's name";
  const json::object* data = object_at(item, "data");
  if (data == nullptr || text_at(*data, "hash").empty()) return "has no data.hash (k3s: password hash not found)";
  const Result<Secret> text = decode_base64_text(text_at(*data, "hash"));
  if (!text) return "has a data.hash that is not base64";
  if (const Result<NodeHash> hash = NodeHash::parse(text->reveal()); !hash) return hash.error().message;
  entry->node = node->str();
  entry->hash = text->clone();
  return {};
}

Result<void> read_secrets(ImportInput& input, const ImportSink& sink) {
  const std::string command = "kubectl get secrets -n kube-system -o json";
  WipingMemory memory;
  const Result<json::value> document = parse_document(input, command, &memory);
  if (!document) return document.error();
  Batcher batcher(sink);
  const Result<void> read =
      each_item(*document, "Secret", command, sink, [&](std::size_t number, const json::object& item) -> Result<void> {
        ImportEntry entry;
        entry.line = number;
        if (std::string why = read_secret(item, &entry); !why.empty()) {
          const json::object* metadata = object_at(item, "metadata");
          sink.left_out({number, printable(metadata != nullptr ? text_at(*metadata, "name") : "", 80), std::move(why)});
        } else if (!entry.node.empty()) {
          return batcher.add(std::move(entry));
        }
        return {};
      });
  return read ? batcher.flush() : read;
}

Result<void> read_nodes(ImportInput& input, const ImportSink& sink) {
  const std::string command = "kubectl get nodes -o json";
  const Result<json::value> document = parse_document(input, command, {});
  if (!document) return document.error();
  Batcher batcher(sink);
  const Result<void> read =
      each_item(*document, "Node", command, sink, [&](std::size_t number, const json::object& item) -> Result<void> {
        const json::object* metadata = object_at(item, "metadata");
        const std::string_view name = metadata != nullptr ? text_at(*metadata, "name") : std::string_view();
        const std::string_view uid = metadata != nullptr ? text_at(*metadata, "uid") : std::string_view();
        const Result<NodeName> node = NodeName::parse(name);
        if (!node || uid.empty()) {
          sink.left_out({number, printable(name, 80), node ? "has no metadata.uid" : "has no metadata.name"});
          return {};
        }
        ImportEntry entry;
        entry.line = number;
        entry.node = node->str();
        entry.uid = printable(uid, 100);
        if (const Result<Time> created = Time::parse(text_at(*metadata, "creationTimestamp")))
          entry.created = *created;
        return batcher.add(std::move(entry));
      });
  return read ? batcher.flush() : read;
}

// ---- logs ------------------------------------------------------------------------------------------------

Result<void> read_log(ImportInput& input, const ImportSink& sink) {
  LogHistory history(input.sha256());
  std::string line;
  std::size_t number = 0;
  std::uint64_t done = 0;
  const auto end_line = [&]() -> Result<void> {
    ++number;
    if (std::string why = history.add(number, line); !why.empty()) sink.left_out({number, {}, std::move(why)});
    line.clear();
    return history.full() ? sink.entries(history.take()) : Result<void>();
  };
  for (;;) {
    const Result<std::string_view> part = input.next();
    if (!part) return part.error();
    if (part->empty()) break;
    std::string_view rest = *part;
    while (!rest.empty()) {
      const auto end = rest.find('\n');
      // Of a line that is too long the beginning is enough: no server wrote it.
      if (line.size() < kMaxLine) line += rest.substr(0, end);
      if (end == std::string_view::npos) break;
      rest.remove_prefix(end + 1);
      if (const Result<void> ended = end_line(); !ended) return ended;
    }
    done += part->size();
    if (sink.progress) sink.progress(done, input.size());
  }
  if (!line.empty())
    if (const Result<void> ended = end_line(); !ended) return ended;
  std::vector<ImportEntry> last = history.take();
  return last.empty() ? Result<void>() : sink.entries(std::move(last));
}

}  // namespace

Result<void> read_import(ImportKind kind, ImportInput& input, const Fingerprinter& fingerprint,
                         const ImportSink& sink) {
  switch (kind) {
    case ImportKind::node_passwd: return read_node_passwd(input, fingerprint, sink);
    case ImportKind::secrets: return read_secrets(input, sink);
    case ImportKind::nodes: return read_nodes(input, sink);
    case ImportKind::log: return read_log(input, sink);
  }
  fatal("an import kind without a reader");
}

}  // namespace ledger
