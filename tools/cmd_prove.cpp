// `ledger prove` and `ledger verify-proof`: one record, or the growth of the log, shown to somebody who has neither
// the log nor trust in who keeps it.

#include <algorithm>
#include <boost/json.hpp>

#include "ledger/credentials.h"
#include "ledger/event_json.h"
#include "ledger/event_log.h"
#include "ledger/proof_file.h"
#include "tools/commands.h"

namespace ledger::tools {
namespace {

namespace json = boost::json;

constexpr std::size_t kMaxProofBytes = 16 << 20;

constexpr const char* kProveFooter =
    "An inclusion proof shows that a record is in the log, unchanged, without showing any other record.\n"
    "It is a .tlog-proof (c2sp.org/tlog-proof) with the record in it. A consistency proof shows that\n"
    "the log of one checkpoint is the beginning of the log of another: nothing of it was changed or\n"
    "taken out.\n\n"
    "A size that no checkpoint has is signed now, with cred/checkpoint.key; without that key only sizes\n"
    "that have a checkpoint can be proved. Works beside a running server, and changes nothing.\n\n"
    "Examples:\n"
    "  ledger prove --seq 118 > 118.tlog-proof\n"
    "  ledger prove --from-size 1000 --to-size 9042 --output growth.proof\n"
    "  ledger verify-proof 118.tlog-proof --key checkpoint.pub\n\n"
    "Exit status: 0 done, 1 no such record or size, or nothing to sign it with, 2 wrong usage.\n";

constexpr const char* kCheckFooter =
    "Needs the file and the public key that the log's operator handed out\n"
    "(<data-dir>/cred/checkpoint.pub, or its one line as the argument), and nothing else: no log, no\n"
    "server, no network.\n\n"
    "Examples:\n"
    "  ledger verify-proof 118.tlog-proof --key checkpoint.pub\n"
    "  ledger verify-proof growth.proof --key 'ledger/0123456789abcdef+1f2e3d4c+Ab...='\n\n"
    "Exit status: 0 the proof holds, 1 it does not, 2 wrong usage.\n";

// ---- prove -----------------------------------------------------------------------------------------------

struct ProveArguments {
  std::string data_dir = kDefaultDataDir;
  std::uint64_t seq = 0, from = 0, to = 0;
  std::string output;
};

class Prover {
 public:
  // The checkpoints first: those of a server that goes on meanwhile are then never newer than the log.
  Result<void> open(const std::filesystem::path& data_dir) {
    data_dir_ = data_dir;
    const Result<NoteVerifier> key = read_checkpoint_key(checkpoint_public_file(data_dir));
    if (!key)
      return Error{key.error().code, "there is no checkpoint key (" + key.error().message +
                                         "): a server of this release makes one when it starts"};
    for (const auto& file : {all_checkpoints_file(data_dir), latest_checkpoint_file(data_dir)}) {
      const Result<std::vector<Checkpoint>> some = read_checkpoints(file, *key);
      if (!some) return some.error();
      checkpoints_.insert(checkpoints_.end(), some->begin(), some->end());
    }
    Result<std::unique_ptr<EventLog>> log = EventLog::follow({.dir = data_dir / "events"});
    if (!log) return log.error();
    log_ = std::move(*log);
    return {};
  }

  Result<std::string> inclusion(Seq seq) const {
    const Result<std::string> record = log_->read_bytes(seq);
    if (!record) return record.error();
    const auto covers = [&](const Checkpoint& checkpoint) {
      return checkpoint.head.size >= seq && checkpoint.head.size <= log_->head();
    };
    const auto found = std::find_if(checkpoints_.rbegin(), checkpoints_.rend(), covers);
    const Result<Checkpoint> checkpoint = found != checkpoints_.rend() ? *found : at(log_->head());
    if (!checkpoint) return checkpoint.error();
    const Result<TreeProof> proof = inclusion_proof(seq - 1, checkpoint->head.size, log_->tree_nodes());
    if (!proof) return proof.error();
    return inclusion_file(*record, seq - 1, *proof, *checkpoint);
  }

  Result<std::string> consistency(std::uint64_t from, std::uint64_t to) const {
    if (to > log_->head())
      return Error{Errc::not_found,
                   "the log has " + std::to_string(log_->head()) + " records, not " + std::to_string(to)};
    const Result<Checkpoint> older = at(from);
    if (!older) return older.error();
    const Result<Checkpoint> newer = at(to);
    if (!newer) return newer.error();
    const Result<TreeProof> proof = consistency_proof(from, to, log_->tree_nodes());
    if (!proof) return proof.error();
    return consistency_file(*proof, *older, *newer);
  }

 private:
  Result<Checkpoint> at(std::uint64_t size) const {
    const auto found = std::find_if(checkpoints_.rbegin(), checkpoints_.rend(),
                                    [&](const Checkpoint& one) { return one.head.size == size; });
    if (found != checkpoints_.rend()) return *found;
    const Result<NoteSigner> signer = read_checkpoint_signer(data_dir_);
    if (!signer)
      return Error{signer.error().code, "no checkpoint has the size " + std::to_string(size) +
                                            ", and none can be signed: " + signer.error().message};
    const Result<TreeHash> root = root_at(size, log_->tree_nodes());
    if (!root) return root.error();
    Checkpoint checkpoint;
    checkpoint.origin = signer->verifier().name();
    checkpoint.head = {size, *root};
    checkpoint.note.text = checkpoint_text(checkpoint.origin, checkpoint.head);
    checkpoint.note.signatures.push_back(signer->sign(checkpoint.note.text));
    return checkpoint;
  }

  std::filesystem::path data_dir_;
  std::vector<Checkpoint> checkpoints_;
  std::unique_ptr<EventLog> log_;
};

int prove(const ProveArguments& arguments) {
  Prover prover;
  if (const Result<void> opened = prover.open(arguments.data_dir); !opened) return fail(opened.error());
  if (arguments.seq == 0 && arguments.from > arguments.to)
    return fail({Errc::invalid, "--from-size is larger than --to-size"});
  const Result<std::string> file =
      arguments.seq != 0 ? prover.inclusion(arguments.seq) : prover.consistency(arguments.from, arguments.to);
  if (!file) return fail(file.error());
  if (!arguments.output.empty()) {
    const Result<void> written = write_file(arguments.output, *file, 0644);
    return written ? 0 : fail(written.error());
  }
  std::fwrite(file->data(), 1, file->size(), stdout);
  return 0;
}

// ---- verify-proof ----------------------------------------------------------------------------------------

struct CheckArguments {
  std::string file, key, format = "text";
};

json::object describe(const Checkpoint& checkpoint) {
  return {{"origin", checkpoint.origin},
          {"size", checkpoint.head.size},
          {"root", to_hex(view_of(checkpoint.head.root))}};
}

int check(const CheckArguments& arguments) {
  const Result<NoteVerifier> key = NoteVerifier::parse(arguments.key).has_value()
                                       ? NoteVerifier::parse(arguments.key)
                                       : read_checkpoint_key(arguments.key);
  if (!key) return fail({key.error().code, "--key: " + key.error().message});
  const Result<std::string> text = read_file(arguments.file, kMaxProofBytes);
  if (!text) return fail(text.error());
  const Result<Proven> proven = check_proof(*text, *key);
  if (!proven) return fail({Errc::invalid, arguments.file + ": " + proven.error().message});
  if (arguments.format == "json") {
    json::object out{{"holds", true}, {"key", key->key_id()}, {"checkpoint", describe(proven->checkpoint)}};
    if (proven->older) out["older"] = describe(*proven->older);
    if (proven->seq != 0) out["seq"] = proven->seq;
    if (proven->record) out["record"] = json::parse(to_json_line(*proven->record));
    std::printf("%s\n", json::serialize(out).c_str());
  } else if (proven->older) {
    std::printf("holds: the log %s of %llu records begins with the one of %llu records; both signed by key %s\n",
                proven->checkpoint.origin.c_str(), static_cast<unsigned long long>(proven->checkpoint.head.size),
                static_cast<unsigned long long>(proven->older->head.size), key->key_id().c_str());
  } else {
    std::printf("holds: this is record %llu of the log %s, which had %llu records when key %s signed it\n",
                static_cast<unsigned long long>(proven->seq), proven->checkpoint.origin.c_str(),
                static_cast<unsigned long long>(proven->checkpoint.head.size), key->key_id().c_str());
    if (proven->record) std::printf("%s\n", std::string(trim(to_json_line(*proven->record))).c_str());
  }
  return 0;
}

}  // namespace

void add_prove(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("prove", "Write a proof that a record is in the log, or how the log grew");
  command->footer(kProveFooter);
  auto arguments = std::make_shared<ProveArguments>();
  command->add_option("--data-dir", arguments->data_dir, "The server's data directory")->capture_default_str();
  auto* what = command->add_option_group("What", "One of the two");
  what->add_option("--seq", arguments->seq, "The record")->check(CLI::PositiveNumber);
  auto* from =
      what->add_option("--from-size", arguments->from, "Records of the older log")->check(CLI::PositiveNumber);
  what->require_option(1);
  auto* to = command->add_option("--to-size", arguments->to, "Records of the newer log")
                 ->check(CLI::PositiveNumber)
                 ->needs(from);
  from->needs(to);
  command->add_option("--output", arguments->output, "Where to write it (default: standard output)");
  command->callback([arguments, &exit_code] { exit_code = prove(*arguments); });
}

void add_verify_proof(CLI::App& app, int& exit_code) {
  CLI::App* command = app.add_subcommand("verify-proof", "Check a proof with nothing but the public key");
  command->footer(kCheckFooter);
  auto arguments = std::make_shared<CheckArguments>();
  command->add_option("file", arguments->file, "The proof")->required();
  command->add_option("--key", arguments->key, "The log's public key: a file, or its one line")->required();
  command->add_option("--format", arguments->format, "What to print")
      ->check(CLI::IsMember({"text", "json"}))
      ->capture_default_str();
  command->callback([arguments, &exit_code] { exit_code = check(*arguments); });
}

}  // namespace ledger::tools
