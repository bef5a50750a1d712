#include "ledger/checkpoint.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <system_error>

#include "ledger/credentials.h"
#include "ledger/node_hash.h"

namespace ledger {
namespace {

constexpr std::size_t kMaxFileBytes = std::size_t{1} << 30;
constexpr unsigned kPublicMode = 0644;
constexpr std::string_view kSignatureLine = "\xE2\x80\x94 ";

Error invalid(std::string message) { return {Errc::invalid, std::move(message)}; }

// The first line of `rest`, without its end.
std::string_view take_line(std::string_view& rest) {
  const std::size_t end = rest.find('\n');
  const std::string_view line = rest.substr(0, end);
  rest = end == rest.npos ? std::string_view() : rest.substr(end + 1);
  return line;
}

Result<std::uint64_t> parse_size(std::string_view text) {
  std::uint64_t size = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), size);
  if (error != std::errc() || end != text.data() + text.size() || text.empty() ||
      (text.size() > 1 && text[0] == '0'))
    return invalid("the second line of a checkpoint is a size");
  return size;
}

// Where the first of several notes ends: after its signature lines.
std::size_t end_of_note(std::string_view notes) {
  std::size_t at = notes.find("\n\n");
  if (at == notes.npos) return notes.size();
  at += 2;
  while (notes.substr(at).starts_with(kSignatureLine)) {
    const std::size_t end = notes.find('\n', at);
    if (end == notes.npos) return notes.size();
    at = end + 1;
  }
  return at;
}

Error with_file(const std::filesystem::path& file, const Error& error) {
  return {error.code == Errc::invalid ? Errc::corrupt : error.code, file.string() + ": " + error.message};
}

}  // namespace

std::string origin_of(std::string_view log_id) { return "ledger/" + std::string(log_id); }

std::string checkpoint_text(std::string_view origin, const TreeHead& head) {
  return std::string(origin) + "\n" + std::to_string(head.size) + "\n" + base64(view_of(head.root)) + "\n";
}

Result<Checkpoint> parse_checkpoint(std::string_view text) {
  Result<SignedNote> note = parse_note(text);
  if (!note) return invalid("not a checkpoint: " + note.error().message);
  Checkpoint checkpoint;
  std::string_view rest = note->text;
  checkpoint.origin = take_line(rest);
  const Result<std::uint64_t> size = parse_size(take_line(rest));
  if (!size) return invalid("not a checkpoint: " + size.error().message);
  const Result<Secret> root = decode_base64_text(take_line(rest));
  const Result<TreeHash> hash = tree_hash_from(root ? root->reveal() : std::string_view());
  if (checkpoint.origin.empty() || !hash)
    return invalid("not a checkpoint: it has three lines, origin, size and root (32 bytes in base64)");
  checkpoint.head = {*size, *hash};
  checkpoint.note = std::move(*note);
  return checkpoint;
}

Result<Checkpoint> open_checkpoint(std::string_view text, const NoteVerifier& key) {
  Result<Checkpoint> checkpoint = parse_checkpoint(text);
  if (!checkpoint) return checkpoint;
  if (checkpoint->origin != key.name())
    return invalid("the checkpoint is of the log " + printable(checkpoint->origin, 100) + ", the key is that of " +
                   key.name());
  if (const Result<void> checked = check_note(checkpoint->note, key); !checked)
    return invalid("the checkpoint of size " + std::to_string(checkpoint->head.size) + ": " +
                   checked.error().message);
  return checkpoint;
}

Result<std::vector<Checkpoint>> open_checkpoints(std::string_view notes, const NoteVerifier& key) {
  std::vector<Checkpoint> checkpoints;
  while (!notes.empty()) {
    const std::size_t end = end_of_note(notes);
    Result<Checkpoint> checkpoint = open_checkpoint(notes.substr(0, end), key);
    if (!checkpoint)
      return invalid("checkpoint number " + std::to_string(checkpoints.size() + 1) + ": " +
                     checkpoint.error().message);
    checkpoints.push_back(std::move(*checkpoint));
    notes.remove_prefix(end);
  }
  return checkpoints;
}

// ---- files -----------------------------------------------------------------------------------------------

std::filesystem::path checkpoint_key_file(const std::filesystem::path& data_dir) {
  return data_dir / "cred" / "checkpoint.key";
}
std::filesystem::path checkpoint_public_file(const std::filesystem::path& data_dir) {
  return data_dir / "cred" / "checkpoint.pub";
}
std::filesystem::path latest_checkpoint_file(const std::filesystem::path& data_dir) {
  return data_dir / "checkpoints" / "latest";
}
std::filesystem::path all_checkpoints_file(const std::filesystem::path& data_dir) {
  return data_dir / "checkpoints" / "all";
}
std::filesystem::path lost_checkpoints_file(const std::filesystem::path& data_dir) {
  return data_dir / "checkpoints" / "lost";
}

Result<NoteVerifier> read_checkpoint_key(const std::filesystem::path& public_file) {
  const Result<std::string> text = read_file(public_file, 4096);
  if (!text) return text.error();
  const Result<NoteVerifier> key = NoteVerifier::parse(*text);
  if (!key) return with_file(public_file, key.error());
  return key;
}

Result<NoteSigner> read_checkpoint_signer(const std::filesystem::path& data_dir) {
  const std::filesystem::path file = checkpoint_key_file(data_dir);
  const Result<Secret> text = read_secret_file(file, 4096);
  if (!text) return text.error();
  Result<NoteSigner> signer = NoteSigner::parse(*text);
  if (!signer) return with_file(file, signer.error());
  return signer;
}

Result<NoteSigner> make_checkpoint_signer(const std::filesystem::path& data_dir, std::string_view origin) {
  Result<NoteSigner> signer = NoteSigner::make(origin);
  if (!signer) return signer;
  if (const Result<void> made = ensure_private_directory(data_dir / "cred"); !made) return made.error();
  const Secret text = signer->text();
  // The public key last: where it is, the private one is.
  if (const auto written = write_file(checkpoint_key_file(data_dir), text.reveal(), 0600); !written)
    return written.error();
  const std::string key = signer->verifier().str() + "\n";
  if (const auto written = write_file(checkpoint_public_file(data_dir), key, kPublicMode); !written)
    return written.error();
  return signer;
}

Result<std::vector<Checkpoint>> read_checkpoints(const std::filesystem::path& file, const NoteVerifier& key) {
  const Result<std::string> text = read_file(file, kMaxFileBytes);
  if (!text && text.error().code == Errc::not_found) return std::vector<Checkpoint>();
  if (!text) return text.error();
  Result<std::vector<Checkpoint>> checkpoints = open_checkpoints(*text, key);
  if (!checkpoints) return with_file(file, checkpoints.error());
  return checkpoints;
}

Result<Checkpoint> settle_last_checkpoint(const std::filesystem::path& file, const NoteVerifier& key) {
  Result<std::string> text = read_file(file, kMaxFileBytes);
  if (!text) return text.error();
  const std::string begin = key.name() + "\n";
  Result<Checkpoint> last = Error{Errc::not_found, file.string() + " holds no checkpoint"};
  // From the end back to the last beginning of a note behind which a whole one stands.
  for (std::size_t at = text->rfind(begin), tries = 0; at != text->npos && tries < 3; ++tries) {
    if (at == 0 || (*text)[at - 1] == '\n') {
      const std::size_t size = end_of_note(std::string_view(*text).substr(at));
      last = open_checkpoint(std::string_view(*text).substr(at, size), key);
      if (last && at + size == text->size()) return last;
      if (last) {
        text->resize(at + size);
        if (const Result<void> written = write_file(file, *text, kPublicMode); !written) return written.error();
        return last;
      }
    }
    if (at == 0) break;
    at = text->rfind(begin, at - 1);
  }
  if (!last && last.error().code != Errc::not_found) return with_file(file, last.error());
  return last;
}

Result<void> write_checkpoints(const std::filesystem::path& file, const std::vector<Checkpoint>& checkpoints) {
  std::string text;
  for (const Checkpoint& checkpoint : checkpoints) text += checkpoint.note.str();
  return write_file(file, text, kPublicMode);
}

// One write of a whole note, and a sync. What cannot be written whole is taken back.
Result<void> add_checkpoint(const std::filesystem::path& file, const Checkpoint& checkpoint) {
  const auto failed = [&](const char* what) {
    return Error{Errc::io, std::string(what) + " " + file.string() + ": " + std::generic_category().message(errno)};
  };
  const int fd = ::open(file.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, kPublicMode);
  if (fd < 0) return failed("cannot open");
  Result<void> done;
  const std::string text = checkpoint.note.str();
  const off_t before = ::lseek(fd, 0, SEEK_END);
  if (::fchmod(fd, kPublicMode) != 0 || before < 0 ||
      ::write(fd, text.data(), text.size()) != static_cast<ssize_t>(text.size()) || ::fsync(fd) != 0) {
    done = failed("cannot write");
    if (before >= 0 && ::ftruncate(fd, before) != 0) done = failed("cannot write, nor undo it,");
  }
  ::close(fd);
  return done;
}

}  // namespace ledger
