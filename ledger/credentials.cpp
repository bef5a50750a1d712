#include "ledger/credentials.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/params.h>
#include <openssl/rand.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <optional>
#include <system_error>
#include <utility>
#include <vector>

#include "ledger/csv.h"
#include "ledger/file_descriptor.h"
#include "ledger/hex.h"

namespace ledger {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMaxToken = 4096;
constexpr std::size_t kMaxAuthorization = 16 << 10;
constexpr std::size_t kKeyBytes = 32;
constexpr std::size_t kTokenIdBytes = 6;
constexpr std::size_t kFingerprintBytes = 16;

bool has_control(std::string_view text) {
  for (const char c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) return true;
  return false;
}

std::string quoted(const fs::path& path) { return "'" + path.string() + "'"; }

// ---- Files -----------------------------------------------------------------------------------------------

std::string_view advice(int error) {
  switch (error) {
    case EACCES:
    case EPERM: return "; give the file and its directory to the user that this program runs as";
    case EROFS: return "; the file system must be writable";
    case ENOSPC:
    case EDQUOT: return "; make room on the file system";
    case ENOTDIR:
    case ENOENT: return "; check the path";
    case EISDIR:
    case ENOTEMPTY:
    case EEXIST: return "; move away what stands there";
    default: return "; check the disk and the file system";
  }
}

Error io_error(std::string_view verb, const fs::path& path, int error) {
  std::string message = "cannot " + std::string(verb) + " " + quoted(path) + ": ";
  message += std::generic_category().message(error);
  message += advice(error);
  return {Errc::io, std::move(message)};
}

fs::path directory_of(const fs::path& path) {
  const fs::path parent = path.parent_path();
  return parent.empty() ? fs::path(".") : parent;
}

fs::path temporary_for(const fs::path& path) { return path.string() + ".tmp"; }

Result<void> sync_directory(const fs::path& path) {
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (!fd.ok() || ::fsync(fd.get()) != 0) return io_error("sync the directory", path, errno);
  return {};
}

// The size of an open file that we are willing to read.
Result<std::size_t> readable_size(const FileDescriptor& fd, const fs::path& path, std::size_t max_bytes,
                                  bool secret) {
  struct stat info;
  if (::fstat(fd.get(), &info) != 0) return io_error("read", path, errno);
  if (!S_ISREG(info.st_mode))
    return Error{Errc::io, "cannot read " + quoted(path) + ": not a regular file; move away what stands there"};
  const auto size = static_cast<std::size_t>(info.st_size);
  if (size > max_bytes)
    return Error{Errc::io, "cannot read " + quoted(path) + ": larger than " + std::to_string(max_bytes) +
                               " bytes; check that it is the right file"};
  if (secret && (info.st_mode & 0077) != 0 && ::fchmod(fd.get(), 0600) != 0)
    return io_error("take away the access that others have to", path, errno);
  return size;
}

Result<void> read_into(std::string* out, const fs::path& path, std::size_t max_bytes, bool secret) {
  // O_NONBLOCK: a FIFO somebody put there must not hold us up.
  const FileDescriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK));
  if (!fd.ok()) {
    if (errno == ENOENT) return Error{Errc::not_found, quoted(path) + " does not exist"};
    return io_error("read", path, errno);
  }
  const Result<std::size_t> size = readable_size(fd, path, max_bytes, secret);
  if (!size) return size.error();
  out->resize(*size);
  std::size_t done = 0;
  while (done < *size) {
    const ssize_t got = ::read(fd.get(), out->data() + done, *size - done);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return io_error("read", path, errno);
    if (got == 0) break;
    done += static_cast<std::size_t>(got);
  }
  out->resize(done);
  return {};
}

// What a crash left under the temporary name goes; a link goes, not what it points to.
bool remove_leftover(const fs::path& temporary) { return ::unlink(temporary.c_str()) == 0 || errno == ENOENT; }

Result<void> move_into_place(const fs::path& temporary, const fs::path& path) {
  if (::rename(temporary.c_str(), path.c_str()) != 0) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return io_error("replace", path, error);
  }
  return sync_directory(directory_of(path));
}

Result<void> write_link(const fs::path& path, const fs::path& target) {
  const fs::path temporary = temporary_for(path);
  if (!remove_leftover(temporary) || ::symlink(target.c_str(), temporary.c_str()) != 0)
    return io_error("write", temporary, errno);
  return move_into_place(temporary, path);
}

}  // namespace

Result<std::string> read_file(const fs::path& path, std::size_t max_bytes) {
  std::string bytes;
  if (const auto read = read_into(&bytes, path, max_bytes, false); !read) return read.error();
  return bytes;
}

Result<Secret> read_secret_file(const fs::path& path, std::size_t max_bytes) {
  WipedText bytes;
  if (const auto read = read_into(&bytes.text, path, max_bytes, true); !read) return read.error();
  return Secret(bytes.text);
}

Result<Secret> read_foreign_secret(const fs::path& path, std::size_t max_bytes) {
  WipedText bytes;
  if (const auto read = read_into(&bytes.text, path, max_bytes, false); !read) return read.error();
  return Secret(bytes.text);
}

Result<void> write_file(const fs::path& path, std::string_view bytes, unsigned mode) {
  const fs::path temporary = temporary_for(path);
  if (!remove_leftover(temporary)) return io_error("write", temporary, errno);
  // O_EXCL does not follow a link in the last component, and never opens what somebody else has made.
  FileDescriptor fd(::open(temporary.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600));
  if (!fd.ok()) return io_error("write", temporary, errno);
  const bool written = ::fchmod(fd.get(), static_cast<mode_t>(mode)) == 0 && write_all(fd.get(), bytes) &&
                       ::fsync(fd.get()) == 0 && fd.close();
  if (!written) {
    const int error = errno;
    ::unlink(temporary.c_str());
    return io_error("write", temporary, error);
  }
  return move_into_place(temporary, path);
}

Result<void> remove_file(const fs::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) return io_error("remove", path, errno);
  return sync_directory(directory_of(path));
}

Result<void> ensure_private_directory(const fs::path& path) {
  std::error_code error;
  fs::create_directories(directory_of(path), error);
  if (error) return io_error("create the directory", directory_of(path), error.value());
  if (::mkdir(path.c_str(), 0700) == 0) return sync_directory(directory_of(path));
  if (errno != EEXIST) return io_error("create the directory", path, errno);
  struct stat info;
  if (::stat(path.c_str(), &info) != 0) return io_error("open the directory", path, errno);
  if (!S_ISDIR(info.st_mode)) return io_error("open the directory", path, ENOTDIR);
  if ((info.st_mode & 0777) != 0700 && ::chmod(path.c_str(), 0700) != 0)
    return io_error("take away the access that others have to", path, errno);
  return {};
}

// ---- Bytes -----------------------------------------------------------------------------------------------

namespace {

void append_hex(std::string_view bytes, std::string* out) {
  constexpr char kDigits[] = "0123456789abcdef";
  for (const char c : bytes) {
    *out += kDigits[static_cast<unsigned char>(c) >> 4];
    *out += kDigits[static_cast<unsigned char>(c) & 15];
  }
}

// `hex` holds lower-case digits only, an even number of them.
void append_unhex(std::string_view hex, std::string* out) {
  const auto value = [](char digit) { return digit <= '9' ? digit - '0' : digit - 'a' + 10; };
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2)
    *out += static_cast<char>(value(hex[i]) * 16 + value(hex[i + 1]));
}

void fill_random(std::string* bytes) {
  if (RAND_bytes(reinterpret_cast<unsigned char*>(bytes->data()), static_cast<int>(bytes->size())) != 1)
    fatal("the random generator failed");
}

}  // namespace

Secret random_secret(std::size_t bytes) {
  WipedText raw, hex(2 * bytes);
  raw.text.resize(bytes);
  fill_random(&raw.text);
  append_hex(raw.text, &hex.text);
  return Secret(hex.text);
}

std::string to_hex(std::string_view bytes) {
  std::string out;
  append_hex(bytes, &out);
  return out;
}

std::string random_hex(std::size_t bytes) { return std::string(random_secret(bytes).reveal()); }

bool equal_in_constant_time(std::string_view a, std::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

std::string hmac_sha256_hex(const Secret& key, std::string_view bytes) {
  unsigned char mac[EVP_MAX_MD_SIZE];
  unsigned size = 0;
  if (HMAC(EVP_sha256(), key.reveal().data(), static_cast<int>(key.reveal().size()), reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(), mac,
           &size) == nullptr)
    fatal("HMAC-SHA-256 failed");
  return to_hex({reinterpret_cast<const char*>(mac), size});
}

std::string sha256_hex(std::string_view bytes) {
  static const EVP_MD* const digest = EVP_MD_fetch(nullptr, "SHA256", nullptr);
  std::array<unsigned char, 32> out;
  if (digest == nullptr || EVP_Digest(bytes.data(), bytes.size(), out.data(), nullptr, digest, nullptr) != 1)
    fatal("SHA-256 failed");
  return to_hex({reinterpret_cast<const char*>(out.data()), out.size()});
}

bool append_base64_bytes(std::string_view letters, std::string* out, unsigned* left_over) {
  const auto value_of = [](char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+') return 62;
    return c == '/' ? 63 : -1;
  };
  unsigned bits = 0;
  int held = 0;
  for (const char c : letters) {
    const int value = value_of(c);
    if (value < 0) return false;
    bits = (bits << 6 | static_cast<unsigned>(value)) & 0xFFFF;
    held += 6;
    if (held < 8) continue;
    held -= 8;
    *out += static_cast<char>(bits >> held & 0xFF);
  }
  *left_over = bits & ((1U << held) - 1);
  return true;
}

std::string base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');  // EVP_EncodeBlock ends its text with a NUL
  const int size =
      EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()),
                      reinterpret_cast<const unsigned char*>(bytes.data()), static_cast<int>(bytes.size()));
  out.resize(static_cast<std::size_t>(size));
  return out;
}

// ---- What people present ---------------------------------------------------------------------------------

Result<JoinToken> JoinToken::parse(std::string_view text) {
  const auto bad = [](const std::string& why) {
    return Error{
        Errc::invalid,
        "token " + why + "; use K10<ca hash>::<user>:<password>, K10::<user>:<password> or a password alone"};
  };
  if (text.empty()) return bad("is empty");
  if (text.size() > kMaxToken) return bad("is longer than " + std::to_string(kMaxToken) + " bytes");
  if (has_control(text)) return bad("contains a control character, such as a line end or a tab");
  JoinToken token;
  if (!text.starts_with("K10")) {
    token.password = Secret(text);
    return token;
  }
  text.remove_prefix(3);
  const auto hash_end = text.find("::");
  if (hash_end == std::string_view::npos) return bad("starts with K10 but has no '::'");
  token.ca_hash = text.substr(0, hash_end);
  if (!token.ca_hash.empty() && !is_hex(token.ca_hash, 64))
    return bad("has a CA hash that is not 64 lower-case hex digits");
  text.remove_prefix(hash_end + 2);
  const auto user_end = text.find(':');
  if (user_end == std::string_view::npos) return bad("has no <user>:<password> after '::'");
  if (user_end + 1 == text.size()) return bad("has an empty password");
  token.user = text.substr(0, user_end);
  token.password = Secret(text.substr(user_end + 1));
  return token;
}

namespace {

// The value after `<scheme> `, or nullopt when the header speaks of another scheme.
std::optional<std::string_view> after_scheme(std::string_view header_value, std::string_view scheme) {
  header_value = trim(header_value);
  if (header_value.size() <= scheme.size() || header_value[scheme.size()] != ' ' ||
      to_lower(header_value.substr(0, scheme.size())) != scheme)
    return std::nullopt;
  return trim(header_value.substr(scheme.size()));
}

// Six bits, or -1.
// RFC 4648 with padding, as Go's StdEncoding.
bool decode_base64(std::string_view text, std::string* out) {
  if (text.size() % 4 != 0) return false;
  for (int padding = 0; padding < 2 && text.ends_with('='); ++padding) text.remove_suffix(1);
  unsigned left_over = 0;
  return append_base64_bytes(text, out, &left_over);
}

}  // namespace

Result<BasicCredential> BasicCredential::parse(std::string_view header_value) {
  const auto bad = [](const char* why) { return Error{Errc::invalid, std::string("Authorization header ") + why}; };
  if (header_value.size() > kMaxAuthorization) return bad("is longer than 16 KiB");
  const auto encoded = after_scheme(header_value, "basic");
  if (!encoded) return bad("is not of the form 'Basic <base64>'");
  WipedText decoded(encoded->size());
  if (!decode_base64(*encoded, &decoded.text)) return bad("holds something that is not base64");
  const std::string_view text = decoded.text;
  const auto colon = text.find(':');
  if (colon == std::string_view::npos) return bad("holds no '<user>:<password>'");
  if (has_control(text)) return bad("holds a control character");
  BasicCredential credential;
  credential.user = text.substr(0, colon);
  credential.password = Secret(text.substr(colon + 1));
  return credential;
}

Result<Secret> parse_bearer(std::string_view header_value) {
  if (trim(header_value).empty()) return Error{Errc::not_found, "there is no Authorization header"};
  const auto text = after_scheme(header_value, "bearer");
  if (!text || text->empty() || text->size() > kMaxAuthorization)
    return Error{Errc::invalid, "Authorization header is not of the form 'Bearer <token>'"};
  return Secret(*text);
}

// ---- bootstrap tokens ------------------------------------------------------------------------------------

namespace {

constexpr std::size_t kBootstrapId = 6, kBootstrapSecret = 16;
constexpr std::string_view kBootstrapLetters = "abcdefghijklmnopqrstuvwxyz0123456789";

}  // namespace

bool is_bootstrap_token(std::string_view text) {
  return text.size() == kBootstrapId + 1 + kBootstrapSecret && text[kBootstrapId] == '.' &&
         text.substr(0, kBootstrapId).find_first_not_of(kBootstrapLetters) == std::string_view::npos &&
         text.substr(kBootstrapId + 1).find_first_not_of(kBootstrapLetters) == std::string_view::npos;
}

Secret random_bootstrap_token() {
  // Bytes past the last whole round of letters are left out: every letter is as likely as any other.
  constexpr std::size_t kRound = 256 / kBootstrapLetters.size() * kBootstrapLetters.size();
  WipedText raw, text(kBootstrapId + 1 + kBootstrapSecret);
  raw.text.resize(64);
  while (text.text.size() < kBootstrapId + 1 + kBootstrapSecret) {
    fill_random(&raw.text);
    for (const char byte : raw.text) {
      if (text.text.size() == kBootstrapId) text.text += '.';
      if (text.text.size() == kBootstrapId + 1 + kBootstrapSecret) break;
      const auto value = static_cast<unsigned char>(byte);
      if (value < kRound) text.text += kBootstrapLetters[value % kBootstrapLetters.size()];
    }
  }
  return Secret(text.text);
}

// ---- cred/passwd -----------------------------------------------------------------------------------------

namespace {

// One record of the file: password,user,uid,groups.
struct PasswdRecord : CsvRecord {
  bool is_for(std::string_view user) const { return columns.size() > 1 && columns[1].reveal() == user; }
};

void append_csv_field(std::string_view field, std::string* out) {
  if (!field.starts_with(' ') && field != "\\." && field.find_first_of("\",\r\n") == std::string_view::npos) {
    *out += field;
    return;
  }
  *out += '"';
  for (const char c : field) {
    if (c == '"') *out += '"';
    *out += c;
  }
  *out += '"';
}

}  // namespace

const char* password_fault(std::string_view password) {
  if (password.empty()) return "has an empty password";
  if (password.size() > kMaxToken) return "has a password longer than 4096 bytes";
  return has_control(password) ? "has a control character in a password" : nullptr;
}

namespace {

using Passwords = JoinPasswords;

class PasswdFile {
 public:
  // `bytes` may be empty: no file yet. `path` is for messages only.
  static Result<PasswdFile> parse(Secret bytes, const fs::path& path) {
    PasswdFile file;
    file.bytes_ = std::move(bytes);
    CsvReader reader(file.bytes_.reveal());
    const auto broken = [&](std::size_t line, std::string_view why) {
      return Error{Errc::invalid, quoted(path) + ": line " + std::to_string(line) + " " + std::string(why) +
                                      "; correct the line (password,user,uid,groups) or restore the file"};
    };
    for (;;) {
      PasswdRecord record;
      const Result<bool> more = reader.read(&record);
      if (!more) return broken(record.line, more.error().message);
      if (!*more) return file;
      if (record.columns.size() < 3) return broken(record.line, "has fewer than 3 columns");
      for (const std::string_view user : {"server", "node"}) {
        if (!record.is_for(user)) continue;
        if (file.find(user)) return broken(record.line, "is a second line for user '" + std::string(user) + "'");
        if (const char* why = password_fault(record.columns[0].reveal())) return broken(record.line, why);
      }
      file.records_.push_back(std::move(record));
    }
  }

  // Empty where the user has no line.
  Secret password_of(std::string_view user) const {
    const PasswdRecord* record = find(user);
    return record != nullptr ? record->columns[0].clone() : Secret();
  }

  std::string_view bytes() const { return bytes_.reveal(); }

  // Whose group names stand in the file; k3s where none do.
  const Program& program() const {
    for (const std::string_view user : {"node", "server"}) {
      const PasswdRecord* record = find(user);
      if (record == nullptr || record->columns.size() < 4) continue;
      const std::string_view group = record->columns[3].reveal();
      if (group == kRke2.agent_group || group == kRke2.server_group) return kRke2;
    }
    return kK3s;
  }

  // The file with these passwords: lines that change in k3s' form, others as they are.
  Secret with(const Passwords& passwords, const Program& program) const {
    WipedText out(bytes_.reveal().size() + 4 * kMaxToken + 256);
    for (const PasswdRecord& record : records_) {
      const bool ours = record.is_for("node") || record.is_for("server");
      const Secret& wanted = record.is_for("node") ? passwords.node : passwords.server;
      if (!ours || record.columns[0].reveal() == wanted.reveal()) {
        out.text += record.raw;
        if (!record.raw.ends_with('\n')) out.text += '\n';
      } else {
        append_line(record.is_for("node") ? "node" : "server", passwords, program, &out.text);
      }
    }
    for (const std::string_view user : {"node", "server"})
      if (!find(user)) append_line(user, passwords, program, &out.text);
    return Secret(out.text);
  }

 private:
  const PasswdRecord* find(std::string_view user) const {
    for (const PasswdRecord& record : records_)
      if (record.is_for(user)) return &record;
    return nullptr;
  }

  static void append_line(std::string_view user, const Passwords& passwords, const Program& program,
                          std::string* out) {
    append_csv_field((user == "node" ? passwords.node : passwords.server).reveal(), out);
    *out += user == "node" ? ",node,node," : ",server,server,";
    *out += user == "node" ? program.agent_group : program.server_group;
    *out += '\n';
  }

  Secret bytes_;  // the records' `raw` point into it
  std::vector<PasswdRecord> records_;
};

// A file that does not exist reads as an empty one.
Result<PasswdFile> read_passwd(const fs::path& path, bool* exists) {
  Result<Secret> bytes = read_secret_file(path);
  if (!bytes && bytes.error().code != Errc::not_found) return bytes.error();
  *exists = bytes.has_value();
  return PasswdFile::parse(*exists ? std::move(*bytes) : Secret(), path);
}

// Reads, decides by the rule in the header, and writes the file if it would change.
Result<Passwords> load_passwords(const fs::path& path, const Secret& server_option, const Secret& node_option,
                                 const Program& program) {
  bool exists = false;
  const Result<PasswdFile> file = read_passwd(path, &exists);
  if (!file) return file.error();
  const Secret old_server = file->password_of("server"), old_node = file->password_of("node");

  Passwords now;
  if (!server_option.empty())
    now.server = server_option.clone();
  else
    now.server = old_server.empty() ? random_secret(16) : old_server.clone();
  const bool separate = !old_node.empty() && old_node.reveal() != old_server.reveal();
  if (!node_option.empty())
    now.node = node_option.clone();
  else
    now.node = separate ? old_node.clone() : now.server.clone();

  const bool unchanged = now.server.reveal() == old_server.reveal() && now.node.reveal() == old_node.reveal();
  const Secret wanted = file->with(now, program);
  if (!exists || (!unchanged && wanted.reveal() != file->bytes()))
    if (const auto written = write_file(path, wanted.reveal(), 0600); !written) return written.error();
  return now;
}

}  // namespace

Result<JoinPasswords> read_join_passwords(const Secret& bytes, const fs::path& path) {
  const Result<PasswdFile> file = PasswdFile::parse(bytes.clone(), path);
  if (!file) return file.error();
  return JoinPasswords{file->password_of("server"), file->password_of("node")};
}

namespace {

// ---- cred/fingerprint.key, cred/operator-token -----------------------------------------------------------

// A file of 64 hex digits + LF. Errc::not_found when there is none.
Result<Secret> read_hex_file(const fs::path& path, std::string_view repair) {
  Result<Secret> bytes = read_secret_file(path);
  if (!bytes) return bytes.error();
  const std::string_view hex = trim(bytes->reveal());
  if (!is_hex(hex, 2 * kKeyBytes))
    return Error{Errc::invalid,
                 quoted(path) + " does not hold 64 lower-case hex digits and a line end; " + std::string(repair)};
  return Secret(hex);
}

Result<void> write_hex_file(const fs::path& path, const Secret& hex) {
  WipedText line(2 * kKeyBytes + 1);
  line.text += hex.reveal();
  line.text += '\n';
  return write_file(path, line.text, 0600);
}

Result<Secret> create_hex_file(const fs::path& path) {
  Secret hex = random_secret(kKeyBytes);
  if (const auto written = write_hex_file(path, hex); !written) return written.error();
  return hex;
}

Result<Secret> load_fingerprint_key(const fs::path& path, bool log_exists) {
  const std::string repair =
      "restore cred/ from a backup, or, without one, make a new key (umask 077; openssl rand -hex 32 > " +
      quoted(path) + "): every node must then be accepted anew";
  Result<Secret> hex = read_hex_file(path, repair);
  if (!hex && hex.error().code == Errc::not_found) {
    if (log_exists)
      return Error{Errc::not_found, quoted(path) +
                                        " is missing, but the log holds fingerprints made with it, and no node's "
                                        "password can be recognised without it; " +
                                        repair};
    hex = create_hex_file(path);
  }
  if (!hex) return hex.error();
  WipedText key(kKeyBytes);
  append_unhex(hex->reveal(), &key.text);
  return Secret(key.text);
}

Result<Secret> load_operator_token(const fs::path& path) {
  Result<Secret> token = read_hex_file(path, "restore it from a backup, or remove it to have a new one made");
  if (!token && token.error().code == Errc::not_found) return create_hex_file(path);
  return token;
}

// ---- HMAC ------------------------------------------------------------------------------------------------

using Mac = std::array<unsigned char, 32>;

std::string_view first_bytes(const Mac& mac, std::size_t count) {
  return {reinterpret_cast<const char*>(mac.data()), count};
}

Credentials::Known known_of(const Mac& mac) {
  std::string fingerprint = to_hex(first_bytes(mac, kFingerprintBytes));
  std::string id = fingerprint.substr(0, 2 * kTokenIdBytes);
  return {std::move(id), {std::move(fingerprint)}};
}

// HMAC-SHA-256 with the key and a domain already fed: a call copies the state (0.4 us; a fresh HMAC() 1 us).
class KeyedMac {
 public:
  KeyedMac(const Secret& key, std::string_view domain) {
    EVP_MAC* const hmac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
    state_ = hmac != nullptr ? EVP_MAC_CTX_new(hmac) : nullptr;
    EVP_MAC_free(hmac);
    char digest[] = "SHA256";
    const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, digest, 0),
                                 OSSL_PARAM_construct_end()};
    if (state_ == nullptr || EVP_MAC_init(state_, bytes_of(key.reveal()), key.reveal().size(), params) != 1 ||
        EVP_MAC_update(state_, bytes_of(domain), domain.size()) != 1)
      fatal("HMAC-SHA-256 failed");
  }
  KeyedMac(const KeyedMac&) = delete;
  KeyedMac& operator=(const KeyedMac&) = delete;
  ~KeyedMac() { EVP_MAC_CTX_free(state_); }

  Mac operator()(const Secret& secret) const {
    Mac mac;
    std::size_t size = 0;
    EVP_MAC_CTX* const state = EVP_MAC_CTX_dup(state_);
    if (state == nullptr || EVP_MAC_update(state, bytes_of(secret.reveal()), secret.reveal().size()) != 1 ||
        EVP_MAC_final(state, mac.data(), &size, mac.size()) != 1 || size != mac.size())
      fatal("HMAC-SHA-256 failed");
    EVP_MAC_CTX_free(state);
    return mac;
  }

 private:
  static const unsigned char* bytes_of(std::string_view text) {
    return reinterpret_cast<const unsigned char*>(text.data());
  }
  EVP_MAC_CTX* state_ = nullptr;
};

// Part of what every stored fingerprint and token id means: never to be changed. The terminating NUL counts, so
// that no secret can stand for a domain plus another secret.
constexpr std::string_view kPasswordDomain{"ledger node password v1\0", 24};
constexpr std::string_view kTokenDomain{"ledger token v1\0", 16};

}  // namespace

// ---- Credentials -----------------------------------------------------------------------------------------

struct Credentials::Macs {
  Macs(const Secret& key, const Passwords& passwords, const Secret& operator_secret)
      : password(key, kPasswordDomain),
        token(key, kTokenDomain),
        server(known_of(token(passwords.server))),
        node(known_of(token(passwords.node))),
        operator_token(known_of(token(operator_secret))) {}

  KeyedMac password, token;
  Known server, node, operator_token;
};

Result<Credentials> Credentials::open(const Options& options) {
  const auto password_of = [](const Secret& text, const char* option) -> Result<Secret> {
    if (text.empty()) return Secret();
    Result<JoinToken> token = JoinToken::parse(text.reveal());
    if (!token) return Error{Errc::invalid, std::string(option) + ": " + token.error().message};
    return std::move(token->password);
  };
  const Result<Secret> server_option = password_of(options.token, "--token");
  if (!server_option) return server_option.error();
  const Result<Secret> node_option = password_of(options.agent_token, "--agent-token");
  if (!node_option) return node_option.error();

  const fs::path cred = options.data_dir / "cred";
  std::error_code ignored;
  // The data directory's own mode is the administrator's business once it exists.
  if (!fs::exists(options.data_dir, ignored))
    if (const auto made = ensure_private_directory(options.data_dir); !made) return made.error();
  if (const auto made = ensure_private_directory(cred); !made) return made.error();
  const Result<Secret> key = load_fingerprint_key(cred / "fingerprint.key", options.log_exists);
  if (!key) return key.error();
  Result<Passwords> passwords = load_passwords(cred / "passwd", *server_option, *node_option, *options.program);
  if (!passwords) return passwords.error();
  const Result<Secret> operator_token = load_operator_token(cred / "operator-token");
  if (!operator_token) return operator_token.error();

  Credentials credentials;
  credentials.data_dir_ = options.data_dir;
  credentials.macs_ = std::make_shared<const Macs>(*key, *passwords, *operator_token);
  credentials.server_password_ = std::move(passwords->server);
  credentials.node_password_ = std::move(passwords->node);
  return credentials;
}

Fingerprint Credentials::fingerprint_of_password(const Secret& node_password) const {
  return {to_hex(first_bytes(macs_->password(node_password), kFingerprintBytes))};
}

Credentials::Known Credentials::known_by(const Secret& token_secret) const {
  return known_of(macs_->token(token_secret));
}

const Credentials::Known& Credentials::server() const { return macs_->server; }
const Credentials::Known& Credentials::agent() const { return macs_->node; }
const Credentials::Known& Credentials::operator_token() const { return macs_->operator_token; }

Result<void> Credentials::write_token_files(std::string_view ca_hash) const {
  if (!ca_hash.empty() && !is_hex(ca_hash, 64))
    return Error{Errc::invalid, "a CA hash must be 64 lower-case hex digits"};
  const auto write_token = [&](const char* name, std::string_view user, const Secret& password) {
    WipedText line(kMaxToken + 128);
    line.text.append("K10").append(ca_hash).append("::").append(user).append(":");
    line.text.append(password.reveal()).append("\n");
    return write_file(data_dir_ / name, line.text, 0600);
  };
  if (const auto done = write_token("token", "server", server_password_); !done) return done.error();
  if (const auto done = write_link(data_dir_ / "node-token", "token"); !done) return done.error();
  if (server_password_.reveal() == node_password_.reveal()) return write_link(data_dir_ / "agent-token", "token");
  return write_token("agent-token", "node", node_password_);
}

// ---- staged rotation -------------------------------------------------------------------------------------

namespace {

constexpr std::string_view kStaged = ".next-";

fs::path staged_path(const fs::path& file, const std::string& token_id) {
  return file.string() + std::string(kStaged) + token_id;
}

}  // namespace

Result<void> stage_file_token(const fs::path& data_dir, std::string_view token_class, const Secret& secret,
                              const std::string& token_id) {
  const fs::path cred = data_dir / "cred";
  if (token_class == "operator") {
    if (!is_hex(secret.reveal(), 2 * kKeyBytes))
      return Error{Errc::invalid, "the operator token in cred/operator-token must be 64 lower-case hex digits "
                                  "(openssl rand -hex 32)"};
    return write_hex_file(staged_path(cred / "operator-token", token_id), secret);
  }
  bool exists = false;
  const Result<PasswdFile> file = read_passwd(cred / "passwd", &exists);
  if (!file) return file.error();
  Passwords now{file->password_of("server"), file->password_of("node")};
  const bool both = now.server.reveal() == now.node.reveal();
  if (both || token_class == "server") now.server = secret.clone();
  if (both || token_class == "agent") now.node = secret.clone();
  return write_file(staged_path(cred / "passwd", token_id), file->with(now, file->program()).reveal(), 0600);
}

Result<void> settle_staged(const fs::path& data_dir, const std::function<bool(const std::string&)>& happened) {
  std::error_code error;
  std::vector<fs::path> staged;
  for (fs::directory_iterator entry(data_dir / "cred", error), end; !error && entry != end; entry.increment(error))
    if (entry->path().filename().string().find(kStaged) != std::string::npos) staged.push_back(entry->path());
  if (error && error != std::errc::no_such_file_or_directory)
    return io_error("read the directory", data_dir / "cred", error.value());
  for (const fs::path& path : staged) {
    const std::string name = path.filename().string();
    const auto at = name.find(kStaged);
    if (happened(name.substr(at + kStaged.size()))) {
      // A staged file that cannot be moved stays: it is the only place where the new secret is written down.
      const fs::path target = path.parent_path() / name.substr(0, at);
      if (::rename(path.c_str(), target.c_str()) != 0) return io_error("replace", target, errno);
      if (const auto synced = sync_directory(path.parent_path()); !synced) return synced.error();
    } else if (::unlink(path.c_str()) != 0) {
      return io_error("remove", path, errno);
    }
  }
  return {};
}

}  // namespace ledger
