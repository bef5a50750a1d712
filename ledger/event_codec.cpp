#include "ledger/event_codec.h"

#include <algorithm>
#include <cereal/archives/portable_binary.hpp>
#include <istream>
#include <ostream>
#include <streambuf>
#include <type_traits>

namespace ledger {
namespace {

// Limits on what is decoded. What we encode stays far below them; were it not so, the excess is cut off: a record
// that cannot be read back would be a hole in the log.
constexpr std::uint32_t kMaxTextBytes = 64 << 10;
constexpr std::uint32_t kMaxListItems = 1024;

// ---- writing ---------------------------------------------------------------------------------------------

constexpr std::uint8_t kFirstVersion = 1;
constexpr std::uint8_t kNodeStateVersion = 1;

// Calls f for every field of the record and its event that came with this version.
template <int kVersion, class AnyRecord, class F>
void each_stored_of(AnyRecord& record, F& f) {
  each_field_of<kVersion>(record, f);
  std::visit([&](auto& event) { each_field_of<kVersion>(event, f); }, record.event);
}

// The same for all versions up to `newest`, in stored order.
template <int kVersion = kFirstVersion, class AnyRecord, class F>
void each_stored(AnyRecord& record, std::uint8_t newest, F& f) {
  if (kVersion > newest) return;
  each_stored_of<kVersion>(record, f);
  if constexpr (kVersion < kRecordFormatVersion) each_stored<kVersion + 1>(record, newest, f);
}

// Only what fits no older version is written in a newer one.
template <int kVersion = kRecordFormatVersion>
std::uint8_t version_for(const Record& record) {
  if constexpr (kVersion == kFirstVersion) {
    return kFirstVersion;
  } else {
    bool plain = true;
    const auto look = [&]<class T>(const char*, const T& value) { plain = plain && value == T{}; };
    each_stored_of<kVersion>(record, look);
    return plain ? version_for<kVersion - 1>(record) : kVersion;
  }
}

class AppendBuffer : public std::streambuf {
 public:
  explicit AppendBuffer(std::string& out) : out_(out) {}

 protected:
  std::streamsize xsputn(const char* bytes, std::streamsize count) override {
    out_.append(bytes, static_cast<std::size_t>(count));
    return count;
  }
  int_type overflow(int_type c) override {
    out_.push_back(traits_type::to_char_type(c));
    return c;
  }

 private:
  std::string& out_;
};

class BinaryWriter {
 public:
  explicit BinaryWriter(std::ostream& out) : archive_(out, cereal::PortableBinaryOutputArchive::Options::LittleEndian()) {}

  void operator()(const char*, const auto& value) { put(value); }

 private:
  template <class T>
    requires std::is_arithmetic_v<T>
  void put(T value) {
    archive_(value);
  }
  void put(const std::string& value) {
    const auto size = static_cast<std::uint32_t>(std::min<std::size_t>(value.size(), kMaxTextBytes));
    archive_(size);
    archive_.saveBinary<1>(value.data(), static_cast<std::streamsize>(size));
  }
  void put(const Fingerprint& value) { put(value.text); }
  void put(Time value) { put(value.micros); }
  void put(const std::vector<std::string>& value) {
    const auto size = static_cast<std::uint32_t>(std::min<std::size_t>(value.size(), kMaxListItems));
    put(size);
    for (std::size_t i = 0; i < size; ++i) put(value[i]);
  }
  template <class T>
  void put(const std::optional<T>& value) {
    put(static_cast<std::uint8_t>(value.has_value()));
    if (value) put(*value);
  }
  template <class T>
    requires requires(T& t) { T::fields(t, [](const char*, auto&) {}); }
  void put(const T& value) {
    T::fields(value, *this);
  }

  cereal::PortableBinaryOutputArchive archive_;
};

// ---- reading ---------------------------------------------------------------------------------------------

class ViewBuffer : public std::streambuf {
 public:
  explicit ViewBuffer(std::string_view bytes) {
    char* start = const_cast<char*>(bytes.data());  // a get area is never written through
    setg(start, start, start + bytes.size());
  }
  std::size_t left() const { return static_cast<std::size_t>(egptr() - gptr()); }
};

// cereal throws when the bytes run out; so do we, and it stays inside this file.
struct BadBytes : std::exception {
  explicit BadBytes(const char* why) : reason(why) {}
  const char* what() const noexcept override { return reason; }
  const char* reason;
};

class BinaryReader {
 public:
  BinaryReader(std::istream& in, const ViewBuffer& buffer) : archive_(in), buffer_(buffer) {}

  void operator()(const char*, auto& value) { get(value); }

 private:
  template <class T>
    requires std::is_arithmetic_v<T>
  void get(T& value) {
    archive_(value);
  }
  void get(bool& value) {
    std::uint8_t byte = 0;
    archive_(byte);
    if (byte > 1) throw BadBytes("a flag that is neither 0 nor 1");
    value = byte == 1;
  }
  void get(std::string& value) {
    std::uint32_t size = 0;
    archive_(size);
    if (size > kMaxTextBytes || size > buffer_.left()) throw BadBytes("a text longer than what is left");
    value.resize(size);
    archive_.loadBinary<1>(value.data(), static_cast<std::streamsize>(size));
  }
  void get(Fingerprint& value) { get(value.text); }
  void get(Time& value) {
    get(value.micros);
    if (value.micros < 0 || value.micros > Time::kMaxMicros) throw BadBytes("a time outside the years 1970..9999");
  }
  void get(std::vector<std::string>& value) {
    std::uint32_t size = 0;
    archive_(size);
    if (size > kMaxListItems || size > buffer_.left()) throw BadBytes("a list longer than what is left");
    value.resize(size);
    for (std::string& item : value) get(item);
  }
  template <class T>
  void get(std::optional<T>& value) {
    bool present = false;
    get(present);
    if (present) get(value.emplace());
  }
  template <class T>
    requires requires(T& t) { T::fields(t, [](const char*, auto&) {}); }
  void get(T& value) {
    T::fields(value, *this);
  }

  cereal::PortableBinaryInputArchive archive_;
  const ViewBuffer& buffer_;
};

Error corrupt(std::string why) { return {Errc::corrupt, std::move(why)}; }

// Runs `read` over exactly `bytes`; the one border where others' exceptions stop.
template <class Read>
Result<void> read_all(std::string_view bytes, Read&& read) {
  // cereal's own first byte. It would read big-endian numbers too, but one record must have one form.
  if (bytes.empty() || bytes[0] != 1) return corrupt("the fields are not little-endian");
  ViewBuffer buffer(bytes);
  std::istream stream(&buffer);
  try {
    BinaryReader reader(stream, buffer);
    read(reader);
  } catch (const std::exception& e) {
    return corrupt(std::string("the bytes end early or do not fit: ") + e.what());
  }
  if (buffer.left() != 0) return corrupt(std::to_string(buffer.left()) + " bytes too many at the end");
  return {};
}

}  // namespace

std::string encode(const Record& record) {
  std::string out;
  out.reserve(384);
  const auto tag = static_cast<std::uint16_t>(record.kind());
  const std::uint8_t version = version_for(record);
  out.push_back(static_cast<char>(version));
  out.push_back(static_cast<char>(tag & 0xFF));
  out.push_back(static_cast<char>(tag >> 8));
  AppendBuffer buffer(out);
  std::ostream stream(&buffer);
  BinaryWriter writer(stream);
  writer("seq", record.seq);
  writer("time", record.time);
  each_stored(record, version, writer);
  return out;
}

Result<Record> decode_record(std::string_view bytes) {
  if (bytes.size() < 3) return corrupt("shorter than the head of a record");
  const auto byte = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const std::uint8_t version = byte(0);
  if (version < kFirstVersion || version > kRecordFormatVersion)
    return corrupt("record format version " + std::to_string(version) + ", this program reads versions up to " +
                   std::to_string(kRecordFormatVersion));
  const auto tag = static_cast<std::uint16_t>(byte(1) | (byte(2) << 8));
  std::optional<Event> event = make_event(tag);
  if (!event) return corrupt("kind number " + std::to_string(tag) + " is not known to this program");
  Record record;
  record.event = std::move(*event);
  const Result<void> read = read_all(bytes.substr(3), [&](BinaryReader& reader) {
    reader("seq", record.seq);
    reader("time", record.time);
    each_stored(record, version, reader);
  });
  if (!read) return read.error();
  if (version != version_for(record)) return corrupt("a newer format version than the record needs");
  return record;
}

std::string encode(const NodeState& state) {
  std::string out(1, static_cast<char>(kNodeStateVersion));
  AppendBuffer buffer(out);
  std::ostream stream(&buffer);
  BinaryWriter writer(stream);
  NodeState::fields(state, writer);
  return out;
}

Result<NodeState> decode_node_state(std::string_view bytes) {
  if (bytes.empty() || bytes[0] != static_cast<char>(kNodeStateVersion))
    return corrupt("a node state of an unknown format version");
  NodeState state;
  const Result<void> read =
      read_all(bytes.substr(1), [&](BinaryReader& reader) { NodeState::fields(state, reader); });
  if (!read) return read.error();
  return state;
}

}  // namespace ledger
