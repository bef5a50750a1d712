#include "ledger/archive_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <charconv>
#include <system_error>

#include "ledger/event_codec.h"

namespace ledger {
namespace {

constexpr std::string_view kMagic = "LEDGARCH";
constexpr std::uint32_t kFormat = 1;
constexpr std::string_view kEnding = ".archive";
constexpr std::size_t kNameDigits = 12;
// Unpacked. Larger ones pack better; one of them is read for one record.
constexpr std::size_t kBlockBytes = 128 << 10;
constexpr std::uint32_t kMaxBlockBytes = 64 << 20;
constexpr std::uint32_t kMaxHeaderBytes = 64 << 20;
constexpr std::size_t kFixedBytes = kMagic.size() + 8;
constexpr std::size_t kExtentBytes = 12 + sizeof(TreeHash);
constexpr int kLevel = 9;  // sealing is rare and has its own thread
constexpr std::size_t kShown = 20;

void put(std::string& out, std::uint64_t value, std::size_t bytes) {
  for (std::size_t i = 0; i < bytes; ++i) out.push_back(static_cast<char>(value >> (8 * i) & 0xFF));
}

std::uint64_t number(std::string_view bytes) {
  std::uint64_t value = 0;
  for (std::size_t i = bytes.size(); i-- > 0;) value = value << 8 | static_cast<unsigned char>(bytes[i]);
  return value;
}

// Takes a header apart; what is not there is 0 and empty, and ok() says so.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : rest_(bytes) {}
  std::string_view bytes(std::size_t size) {
    if (size > rest_.size()) {
      ok_ = false;
      return {};
    }
    const std::string_view taken = rest_.substr(0, size);
    rest_.remove_prefix(size);
    return taken;
  }
  std::uint64_t number(std::size_t size) { return ledger::number(bytes(size)); }
  TreeHash hash() {
    const Result<TreeHash> hash = tree_hash_from(bytes(sizeof(TreeHash)));
    return hash ? *hash : TreeHash{};
  }
  bool ok() const { return ok_; }
  std::size_t left() const { return rest_.size(); }

 private:
  std::string_view rest_;
  bool ok_ = true;
};

std::string records_text(Seq from, Seq to) {
  return from == to ? "record " + std::to_string(from)
                    : "records " + std::to_string(from) + " to " + std::to_string(to);
}

}  // namespace

std::string archive_name(Seq from, Seq to) {
  const auto digits = [](Seq seq) {
    const std::string text = std::to_string(seq);
    return std::string(text.size() < kNameDigits ? kNameDigits - text.size() : 0, '0') + text;
  };
  return digits(from) + "-" + digits(to) + std::string(kEnding);
}

std::optional<std::pair<Seq, Seq>> parse_archive_name(std::string_view name) {
  if (!name.ends_with(kEnding)) return std::nullopt;
  const std::string_view text = name.substr(0, name.size() - kEnding.size());
  const std::size_t dash = text.find('-');
  if (dash == text.npos) return std::nullopt;
  Seq from = 0, to = 0;
  std::from_chars(text.data(), text.data() + dash, from);
  std::from_chars(text.data() + dash + 1, text.data() + text.size(), to);
  if (from == 0 || to < from || archive_name(from, to) != name) return std::nullopt;
  return std::pair(from, to);
}

std::filesystem::path archive_directory(const std::filesystem::path& data_dir) { return data_dir / "archives"; }

// ---- making ----------------------------------------------------------------------------------------------

struct ArchiveBuilder::Context {
  ZSTD_CCtx* zstd = ZSTD_createCCtx();
  Context() {
    if (zstd == nullptr) fatal("zstd has no memory");
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, kLevel);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_checksumFlag, 1);
  }
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;
  ~Context() { ZSTD_freeCCtx(zstd); }
};

ArchiveBuilder::ArchiveBuilder(std::string ledger_id, TreeEdge edge)
    : ledger_id_(std::move(ledger_id)),
      peaks_(edge.peaks()),
      edge_(std::move(edge)),
      from_(edge_.size() + 1),
      zstd_(std::make_unique<Context>()) {}
ArchiveBuilder::~ArchiveBuilder() = default;

Result<void> ArchiveBuilder::add(std::string_view bytes, Time time) {
  if (bytes.size() > kMaxBlockBytes - 4)
    return Error{Errc::invalid, "record " + std::to_string(to() + 1) + " is too long for an archive"};
  if (in_block_ > 0 && raw_.size() + bytes.size() + 4 > kBlockBytes) pack();
  put(raw_, bytes.size(), 4);
  raw_ += bytes;
  ++in_block_;
  edge_.append(leaf_hash(bytes));
  if (records_++ == 0) first_time_ = time;
  last_time_ = time;
  bytes_ += bytes.size();
  return {};
}

void ArchiveBuilder::pack() {
  std::string packed(ZSTD_compressBound(raw_.size()), '\0');
  const std::size_t size = ZSTD_compress2(zstd_->zstd, packed.data(), packed.size(), raw_.data(), raw_.size());
  if (ZSTD_isError(size) != 0) fatal("zstd cannot compress");
  packed.resize(size);
  blocks_.push_back({in_block_, static_cast<std::uint32_t>(size), static_cast<std::uint32_t>(raw_.size()),
                     sha256_of(packed)});
  packed_ += packed;
  raw_.clear();
  in_block_ = 0;
}

ArchiveBuilder::Made ArchiveBuilder::finish(std::string_view note) {
  if (records_ == 0) fatal("an archive without records");
  if (in_block_ > 0) pack();
  const std::size_t header = kFixedBytes + 4 * 8 + 2 + ledger_id_.size() + 1 + peaks_.size() * sizeof(TreeHash) + 4 +
                             note.size() + 4 + blocks_.size() * kExtentBytes + sizeof(TreeHash);
  Made made;
  std::string& out = made.bytes;
  out.reserve(header + packed_.size());
  out += kMagic;
  put(out, kFormat, 4);
  put(out, header, 4);
  put(out, from_, 8);
  put(out, to(), 8);
  put(out, static_cast<std::uint64_t>(first_time_.micros), 8);
  put(out, static_cast<std::uint64_t>(last_time_.micros), 8);
  put(out, ledger_id_.size(), 2);
  out += ledger_id_;
  put(out, peaks_.size(), 1);
  for (const TreeHash& peak : peaks_) out += view_of(peak);
  put(out, note.size(), 4);
  out += note;
  put(out, blocks_.size(), 4);
  for (const Block& block : blocks_) {
    put(out, block.records, 4);
    put(out, block.stored, 4);
    put(out, block.raw, 4);
    out += view_of(block.digest);
  }
  made.digest = sha256_of(out);
  out += view_of(made.digest);
  out += packed_;
  return made;
}

// ---- reading ---------------------------------------------------------------------------------------------

ArchiveFile::~ArchiveFile() {
  if (fd_ >= 0) ::close(fd_);
}

Error ArchiveFile::damaged(const std::string& what) const {
  return {Errc::corrupt, "the archive " + name_ + " is damaged: " + what};
}

Result<std::shared_ptr<const ArchiveFile>> ArchiveFile::open(const std::filesystem::path& path) {
  auto file = std::shared_ptr<ArchiveFile>(new ArchiveFile);
  file->name_ = path.string();
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->fd_ < 0) {
    const int error = errno;
    return Error{error == ENOENT ? Errc::not_found : Errc::io,
                 "cannot read the archive " + file->name_ + ": " + std::generic_category().message(error)};
  }
  struct stat info{};
  if (::fstat(file->fd_, &info) != 0 || !S_ISREG(info.st_mode))
    return Error{Errc::io, "the archive " + file->name_ + " is not a regular file"};
  file->file_bytes_ = static_cast<std::uint64_t>(info.st_size);
  const Result<std::string> start = file->read_at(0, kFixedBytes);
  if (!start) return start.error();
  const std::uint64_t size = number(std::string_view(*start).substr(kMagic.size() + 4));
  if (!start->starts_with(kMagic) || size > kMaxHeaderBytes || size > file->file_bytes_)
    return file->damaged(start->starts_with(kMagic) ? "its header is cut off" : "it does not begin as an archive does");
  const Result<std::string> header = file->read_at(0, static_cast<std::size_t>(size));
  if (!header) return header.error();
  if (const Result<void> parsed = file->parse(*header); !parsed) return parsed.error();
  return std::shared_ptr<const ArchiveFile>(std::move(file));
}

Result<std::shared_ptr<const ArchiveFile>> ArchiveFile::of_bytes(std::string bytes, std::string name) {
  auto file = std::shared_ptr<ArchiveFile>(new ArchiveFile);
  file->name_ = std::move(name);
  file->bytes_ = std::move(bytes);
  file->file_bytes_ = file->bytes_.size();
  const std::string_view all = file->bytes_;
  const std::uint64_t size = all.size() < kFixedBytes ? 0 : number(all.substr(kMagic.size() + 4, 4));
  if (!all.starts_with(kMagic) || size > kMaxHeaderBytes || size > all.size())
    return file->damaged("it does not begin as an archive does");
  if (const Result<void> parsed = file->parse(all.substr(0, size)); !parsed) return parsed.error();
  return std::shared_ptr<const ArchiveFile>(std::move(file));
}

Result<void> ArchiveFile::parse(std::string_view header) {
  if (header.size() < kFixedBytes + sizeof(TreeHash)) return damaged("its header is cut off");
  const std::size_t covered = header.size() - sizeof(TreeHash);
  Reader in(header.substr(kMagic.size(), covered - kMagic.size()));
  if (const std::uint64_t format = in.number(4); format != kFormat)
    return Error{Errc::invalid, "the archive " + name_ + " has format " + std::to_string(format) +
                                    "; this program reads format " + std::to_string(kFormat) + ": use a newer one"};
  digest_ = *tree_hash_from(header.substr(covered));
  if (sha256_of(header.substr(0, covered)) != digest_) return damaged("its header is not what its digest says");
  in.number(4);
  from_ = in.number(8), to_ = in.number(8);
  first_time_.micros = static_cast<std::int64_t>(in.number(8));
  last_time_.micros = static_cast<std::int64_t>(in.number(8));
  ledger_id_ = in.bytes(in.number(2));
  peaks_.resize(in.number(1));
  for (TreeHash& peak : peaks_) peak = in.hash();
  note_ = in.bytes(in.number(4));
  const std::uint64_t blocks = in.number(4);
  if (!in.ok() || in.left() != blocks * kExtentBytes) return damaged("its header contradicts itself");
  if (from_ == 0 || to_ < from_ || to_ > INT64_MAX ||
      peaks_.size() != static_cast<std::size_t>(std::popcount(from_ - 1)))
    return damaged("it does not say which records it holds");
  Seq next = from_;
  std::uint64_t offset = header.size();
  extents_.reserve(blocks);
  for (std::uint64_t i = 0; i < blocks; ++i) {
    Extent extent{.first = next, .offset = offset};
    extent.records = static_cast<std::uint32_t>(in.number(4));
    extent.stored = static_cast<std::uint32_t>(in.number(4));
    extent.raw = static_cast<std::uint32_t>(in.number(4));
    extent.digest = in.hash();
    // A record has at least its length.
    if (extent.records == 0 || extent.raw > kMaxBlockBytes || extent.records > extent.raw / 4)
      return damaged("its header names a block that cannot be");
    next += extent.records, offset += extent.stored;
    extents_.push_back(extent);
  }
  if (next != to_ + 1) return damaged("its blocks hold other records than it says");
  if (offset != file_bytes_)
    return damaged("it has " + std::to_string(file_bytes_) + " bytes and should have " + std::to_string(offset));
  return {};
}

std::uint64_t ArchiveFile::raw_bytes() const {
  std::uint64_t sum = 0;
  for (const Extent& extent : extents_) sum += extent.raw - 4 * std::uint64_t{extent.records};
  return sum;
}

Result<std::string> ArchiveFile::read_at(std::uint64_t offset, std::size_t size) const {
  const auto cut_off = [&] { return damaged("it ends before it should"); };
  if (fd_ < 0) {
    if (offset > bytes_.size() || size > bytes_.size() - offset) return cut_off();
    return bytes_.substr(static_cast<std::size_t>(offset), size);
  }
  if (offset > file_bytes_ || size > file_bytes_ - offset) return cut_off();
  std::string bytes(size, '\0');
  for (std::size_t done = 0; done < size;) {
    const ssize_t got = ::pread(fd_, bytes.data() + done, size - done, static_cast<off_t>(offset + done));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      return Error{Errc::io, "cannot read the archive " + name_ + ": " + std::generic_category().message(errno)};
    if (got == 0) return cut_off();
    done += static_cast<std::size_t>(got);
  }
  return bytes;
}

const ArchiveFile::Extent& ArchiveFile::extent_of(Seq seq) const {
  const auto after = std::upper_bound(extents_.begin(), extents_.end(), seq,
                                      [](Seq value, const Extent& extent) { return value < extent.first; });
  if (after == extents_.begin() || seq > to_) fatal("an archive was asked for a record that it does not hold");
  return *std::prev(after);
}

std::pair<Seq, Seq> ArchiveFile::span_of(Seq seq) const {
  const Extent& extent = extent_of(seq);
  return {extent.first, extent.first + extent.records - 1};
}

Result<std::shared_ptr<const ArchiveFile::Block>> ArchiveFile::block_of(Seq seq) const {
  const Extent& extent = extent_of(seq);
  const auto bad = [&](const char* what) {
    return damaged(records_text(extent.first, extent.first + extent.records - 1) + " " + what);
  };
  const Result<std::string> stored = read_at(extent.offset, extent.stored);
  if (!stored) return stored.error();
  if (sha256_of(*stored) != extent.digest) return bad("are not what was sealed");
  auto block = std::make_shared<Block>();
  block->first = extent.first;
  // The header is not ours until its digest is compared: what zstd says must come first.
  if (ZSTD_getFrameContentSize(stored->data(), stored->size()) != extent.raw) return bad("cannot be unpacked");
  block->raw.resize(extent.raw);
  const std::size_t size = ZSTD_decompress(block->raw.data(), block->raw.size(), stored->data(), stored->size());
  if (ZSTD_isError(size) != 0 || size != extent.raw) return bad("cannot be unpacked");
  for (std::string_view rest = block->raw; !rest.empty();) {
    const std::uint64_t length = rest.size() < 4 ? UINT64_MAX : number(rest.substr(0, 4));
    if (length > rest.size() - std::min<std::size_t>(4, rest.size()) || block->records.size() == extent.records)
      return bad("cannot be told apart");
    block->records.push_back(rest.substr(4, length));
    rest.remove_prefix(4 + length);
  }
  if (block->records.size() != extent.records) return bad("cannot be told apart");
  return std::shared_ptr<const Block>(std::move(block));
}

// ---- the whole -------------------------------------------------------------------------------------------

namespace {

// The edge that the header claims; whether it is the true one is seen at the end.
TreeEdge claimed_edge(const ArchiveFile& file) {
  std::size_t next = 0;
  return *TreeEdge::load(file.from() - 1, [&](unsigned, std::uint64_t) -> Result<TreeHash> {
    return file.peaks()[next++];
  });
}

class Checker {
 public:
  Checker(const ArchiveFile& file, const NoteVerifier* key) : file_(file), key_(key) {}

  ArchiveReport check() {
    TreeEdge edge = claimed_edge(file_);
    report_.before = edge.head();
    for (Seq seq = file_.from(); seq <= file_.to(); seq = file_.span_of(seq).second + 1) {
      const auto block = file_.block_of(seq);
      if (!block) {
        say(block.error().message);
        continue;
      }
      for (std::size_t i = 0; i < (*block)->records.size(); ++i)
        check_record((*block)->first + i, (*block)->records[i], edge);
    }
    if (first_.known() && (first_ != file_.first_time() || last_ != file_.last_time()))
      say("its header gives other times than its records have");
    if (edge.size() == file_.to()) report_.after = edge.head();
    check_note();
    return std::move(report_);
  }

 private:
  void say(std::string sentence) {
    if (report_.damage.size() < kShown) report_.damage.push_back(std::move(sentence));
  }

  void check_record(Seq seq, std::string_view bytes, TreeEdge& edge) {
    ++report_.records;
    edge.append(leaf_hash(bytes));
    const Result<Record> record = decode_record(bytes);
    if (!record) return say("record " + std::to_string(seq) + " cannot be read: " + record.error().message);
    if (record->seq != seq)
      return say("record " + std::to_string(seq) + " says that it is record " + std::to_string(record->seq));
    if (record->time < last_) say("record " + std::to_string(seq) + " is stamped earlier than the one before it");
    if (!first_.known()) first_ = record->time;
    last_ = record->time;
  }

  void check_note() {
    const Result<Checkpoint> checkpoint = parse_checkpoint(file_.note());
    if (!checkpoint) return say("its checkpoint cannot be read: " + checkpoint.error().message);
    if (checkpoint->origin != origin_of(file_.ledger_id()) || checkpoint->head.size != file_.to())
      return say("its checkpoint is of " + printable(checkpoint->origin, 100) + " with " +
                 std::to_string(checkpoint->head.size) + " records");
    if (key_ != nullptr) {
      const Result<Checkpoint> opened = open_checkpoint(file_.note(), *key_);
      if (!opened) say("its checkpoint is not signed by the key " + key_->key_id() + ": " + opened.error().message);
      if (opened) report_.key_id = key_->key_id();
    }
    if (report_.damage.empty() && !(checkpoint->head == report_.after))
      say("its records are not those that were signed: from the edge before record " + std::to_string(file_.from()) +
          " they lead to another root than that of the checkpoint");
  }

  const ArchiveFile& file_;
  const NoteVerifier* key_;
  ArchiveReport report_;
  Time first_, last_;
};

}  // namespace

ArchiveReport check_archive(const ArchiveFile& file, const NoteVerifier* key) { return Checker(file, key).check(); }

}  // namespace ledger
