#include "replay/remedies.h"

#include <fmt/format.h>

#include <algorithm>

namespace ledger::replay {

std::string shell_word(std::string_view text) {
  const std::string safe = printable(text, 512);
  const bool plain = !safe.empty() && safe.front() != '-' && std::all_of(safe.begin(), safe.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '-' ||
           c == '_' || c == ':' || c == '/';
  });
  if (plain) return safe;
  std::string word = "'";
  for (const char c : safe) word += c == '\'' ? std::string("'\\''") : std::string(1, c);
  return word + "'";
}

namespace {

constexpr const char* kPasswordFile = "/etc/rancher/node/password";

class Advice {
 public:
  explicit Advice(const Facts& facts)
      : facts_(facts), node_(shell_word(facts.history.node)), upstreams_(facts.upstream_decides_now()) {}

  // In the order in which they were given: the safest first.
  std::vector<Remedy> take() { return std::move(remedies_); }

  void put_password_back() {
    push("S1", fmt::format("put the password file back on {}, from a backup of /etc/rancher/node", who()),
         fmt::format("sudo install -m 0600 -o root node-password.backup {} && {}", kPasswordFile, restart()),
         "none");
  }

  void rename_newcomer(bool is_other_machine) {
    std::string generation;
    if (!facts_.refusals.attempts.empty()) generation = facts_.refusals.last().record->generation;
    const std::string place = facts_.refusals.newcomer.to_string();
    const std::string action = is_other_machine
                                   ? fmt::format("give the newcomer at {} a name of its own", place)
                                   : fmt::format("give the machine another name ({} plus a fixed id)", who());
    // The configuration file is read from v1.19 on.
    push("S2", action,
         generation == "G1"
             ? edit_service() + "  # add --with-node-id to ExecStart, then: " + restart()
             : fmt::format("echo 'with-node-id: true' | sudo tee -a {} && {}", program().config_file, restart()),
         is_other_machine ? "none"
                          : "leaves the old Node behind; volumes and affinity tied to the old name do not follow");
  }

  void release(std::string_view reason) {
    if (upstreams_) return release_upstream();
    push("S3",
         fmt::format(
             "make sure that the old machine is off, delete its Node, release the name, then start the agent"),
         ledger_command("release", "", reason), "whoever asks first gets the name");
  }

  void accept(const Fingerprint& fingerprint, std::string_view reason, const char* rank = "S4") {
    if (!fingerprint.known()) return;
    if (upstreams_) return release_upstream();  // one password alone cannot be let in there
    push(rank,
         fmt::format("let in exactly this password ({}), after checking on the machine that it is the right one",
                     facts_.short_name(fingerprint)),
         ledger_command("accept", fingerprint.text, reason), "the machine with the old password loses the name");
  }

  void hold(std::string_view reason) {
    push("", "keep the name from being bound until it is clear who may have it", ledger_command("hold", "", reason),
         "nobody can join under this name meanwhile");
  }

  void look() {
    push("", "look at what the server knows, and at who has the address of the refused requests",
         node_command("show", ""), "none");
    if (upstreams_)
      push("", "see since when the upstream has a password for the name", secret_command("get"), "none");
  }

  // Takes over what the upstream has bound, so that the next refusal can be explained.
  void import_upstream() {
    push("", "take over what the upstream has stored (k3s v1.17 to v1.19: `ledger import node-passwd` with its file)",
         "kubectl -n kube-system get secrets -o json | sudo ledger import secrets -", "none");
  }

  void push(std::string rank, std::string action, std::string command, std::string harm) {
    remedies_.push_back({std::move(rank), std::move(action), std::move(command), std::move(harm)});
  }

  std::string who() const { return printable(facts_.history.node, 80); }
  const Facts& facts() const { return facts_; }
  // Whose memory a refused machine meets when it asks again.
  bool upstreams() const { return upstreams_; }

  // In the words of what runs on the machine.
  const Program& program() const { return *facts_.program; }
  std::string restart() const { return fmt::format("sudo systemctl restart {}", program().agent_service); }
  std::string edit_service() const { return fmt::format("sudo systemctl edit --full {}", program().agent_service); }
  std::string reach_server() const {
    return fmt::format("curl -vk https://SERVER:{}/cacerts", program().usual_port);
  }

  // The Secret in which a k3s from v1.20 on keeps the hash of a node's password.
  std::string secret_command(std::string_view verb) const {
    if (facts_.history.node.starts_with('-')) return "";
    const std::string secret = fmt::format("{}.node-password.{}", printable(facts_.history.node, 253), program().name);
    return fmt::format("kubectl -n kube-system {} secret {}", verb, shell_word(secret));
  }
  std::string server_file(std::string_view name) const { return fmt::format("{}/{}", program().server_dir, name); }

  // No command for a name that would be read as an option.
  std::string node_command(std::string_view verb, const std::string& rest) const {
    if (facts_.history.node.starts_with('-')) return "";
    return fmt::format("ledger node {} {}{}", verb, node_, rest);
  }

 private:
  void release_upstream() {
    const std::string secret = secret_command("delete");
    const bool said = std::any_of(remedies_.begin(), remedies_.end(), [](const Remedy& one) { return one.rank == "S3"; });
    if (said) return;
    push("S3",
         "make sure that the old machine is off, delete its Node and its stored password at the upstream, then start the "
         "agent (`ledger node` changes nothing there)",
         secret.empty() ? "" : fmt::format("kubectl delete node --ignore-not-found {} && {}", node_, secret),
         "whoever asks first gets the name");
  }

  std::string ledger_command(std::string_view verb, const std::string& fingerprint, std::string_view reason) const {
    std::string rest;
    if (!fingerprint.empty())
      rest = (fingerprint.starts_with('-') ? " --fingerprint=" : " --fingerprint ") + shell_word(fingerprint);
    return node_command(verb, fmt::format("{} --reason \"{}\"", rest, reason));
  }

  const Facts& facts_;
  std::string node_;
  bool upstreams_;
  std::vector<Remedy> remedies_;
};

// Frees or moves the name only while nothing says that the holder lives.
bool holder_may_live(const Facts& facts) {
  const Liveness& alive = facts.refusals.alive;
  return alive.seen() || alive.after != nullptr || alive.touching != nullptr ||
         (alive.before != nullptr && alive.gone == nullptr) || facts.refusals.success_followed;
}

void for_rebuilt(Advice& advice) {
  advice.put_password_back();
  advice.rename_newcomer(false);
  if (holder_may_live(advice.facts())) return;
  advice.release("machine rebuilt, old password lost");
  advice.accept(advice.facts().refusals.presented, "machine rebuilt");
}

void for_ephemeral(Advice& advice) {
  // No S2: --with-node-id keeps its id in the same directory and would make a new node at every start.
  advice.push("",
              "make /etc/rancher/node survive restarts: persistent storage, a bind mount, or the system's list of "
              "kept files",
              "findmnt -T /etc/rancher/node; sudo ls -l /etc/rancher/node", "none");
  advice.put_password_back();
  if (!holder_may_live(advice.facts()))
    advice.accept(advice.facts().refusals.presented, "password file is kept from now on");
}

void for_stale_binding(Advice& advice) {
  advice.push("", "wait until the release is visible on every server, then let the agent try again",
              advice.node_command("show", ""), "none");
  advice.put_password_back();
  advice.rename_newcomer(false);
  if (holder_may_live(advice.facts())) return;
  advice.accept(advice.facts().refusals.presented, "released before, binding was still enforced");
}

// Nobody is refused: whether anything is to be done is the operator's to know.
void for_unwanted_return(Advice& advice) {
  advice.push("", "find out whether that machine was to go; if it was to stay, nothing is left to do",
              advice.node_command("show", ""), "none");
  advice.push("", "if it was to go: stop its agent first, and keep it from starting again",
              fmt::format("sudo systemctl disable --now {}", advice.program().agent_service),
              "that machine leaves the cluster, as it was meant to");
  advice.release("machine stopped for good");
}

void for_zombie(Advice& advice) {
  if (advice.facts().refusals.attempts.empty()) return for_unwanted_return(advice);
  advice.push("",
              fmt::format("stop the OLD agent first, on the machine at {}, and keep it from starting again",
                          advice.facts().refusals.holder_place.to_string()),
              fmt::format("sudo systemctl disable --now {}", advice.program().agent_service),
              "that machine leaves the cluster, as it was meant to");
  advice.rename_newcomer(true);
  if (holder_may_live(advice.facts())) return;
  advice.release("old machine stopped for good");
  advice.accept(advice.facts().refusals.presented, "old machine stopped for good");
}

void for_token(Advice& advice) {
  const auto* rejected = as<TokenRejected>(*advice.facts().failures.back());
  const std::string reason = rejected != nullptr ? rejected->reason : "";
  if (reason == "missing" || reason == "malformed")
    advice.push("", "check that nothing between the machine and the server (proxy, balancer) drops the credential",
                advice.reach_server(), "none");
  const bool bootstrap = advice.facts().failures.back()->auth.method == "bearer" && reason != "wrong_class";
  if (advice.upstreams() && bootstrap)
    advice.push("", "make another bootstrap token at the upstream",
                fmt::format("sudo {} token create --ttl 24h", advice.program().name),
                "whoever has it may join for 24 hours");
  else if (advice.upstreams())
    advice.push("", "take the current agent token from the upstream server, and compare it with what the ledger adopted",
                "sudo cat " + advice.server_file("agent-token"), "none");
  else if (bootstrap)
    advice.push("", "make another bootstrap token",
                "sudo ledger token create --class bootstrap --ttl 24h --data-dir /var/lib/ledger",
                "whoever has it may join for 24 hours");
  else
    advice.push("",
                reason == "wrong_class" ? "take the agent token, not another one, from the server"
                                        : "take the current agent token from the server",
                "sudo ledger token show --data-dir /var/lib/ledger", "none");
  const Program& program = advice.program();
  advice.push("",
              fmt::format("give it to the agent ({} in this file) and restart the agent", program.token_setting),
              fmt::format("sudoedit {} && {}", program.token_file, advice.restart()), "none");
}

void for_credential_file(Advice& advice) {
  advice.push("", "look at the file on the agent: it must belong to root, mode 0600, and hold 32 hex digits",
              fmt::format("sudo ls -l {0}; sudo wc -c {0}", kPasswordFile), "none");
  if (advice.facts().timeline.state.is_bound())
    advice.put_password_back();
  else
    advice.push("", "remove the empty file; the agent makes a new one when it starts, and the name is free",
                fmt::format("sudo rm {} && {}", kPasswordFile, advice.restart()), "none");
}

void for_shared_identity(Advice& advice) {
  advice.push(
      "S2",
      "on every copy but one: remove the copied identity, give the machine a host name of its own, start anew",
      fmt::format("sudo systemctl stop {0} && sudo rm -f {1} /etc/rancher/node/id {2}/client-kubelet.* && "
                  "sudo systemctl start {0}",
                  advice.program().agent_service, kPasswordFile, advice.program().agent_dir),
      "run on the rightful machine, it makes that one a stranger");
  advice.push("", "rebuild the image without /etc/rancher/node, /var/lib/rancher and /etc/machine-id", "", "none");
}

void for_edited_binding(Advice& advice) {
  const Facts& facts = advice.facts();
  if (advice.upstreams()) advice.rename_newcomer(false);
  if (!advice.upstreams() || !holder_may_live(facts))
    advice.accept(facts.refusals.presented, "restores the password that was good before", "S5");
  advice.look();
}

void for_unknown(Advice& advice) {
  const Facts& facts = advice.facts();
  if (facts.own.empty() || facts.family == Family::handshake)
    return advice.push("", "see from the machine itself whether it reaches this server, and compare the two clocks",
                       "date -u; " + advice.reach_server(), "none");
  advice.look();
  const auto* rejected = facts.family == Family::request ? as<RequestRejected>(*facts.failures.back()) : nullptr;
  if (rejected != nullptr && rejected->reason == "bad_csr")
    advice.push("", "move the key files next to the agent's certificates away; it makes new ones when it starts", "",
                "none");
  if (facts.family != Family::password) return;
  advice.put_password_back();
  if (facts.refusals.where == Where::different) advice.rename_newcomer(true);
  if (advice.upstreams() && !facts.refusals.holder.known()) advice.import_upstream();
}

void for_server_state(Advice& advice) {
  const Facts& facts = advice.facts();
  if (facts.family == Family::request && is_upstream_failure(*facts.failures.back())) {
    const std::string& upstream = facts.failures.back()->upstream;
    advice.push("", "see whether the upstream answers, and start it; agents try again by themselves",
                upstream.empty() ? advice.reach_server()
                                 : "curl -vk " + shell_word("https://" + upstream + "/ping"),
                "none");
    return;
  }
  advice.push("", "mend the server's store; agents try again by themselves",
              advice.upstreams() ? advice.secret_command("get") : "ledger verify", "none");
}

}  // namespace

std::vector<Remedy> remedies_for(const Finding& finding, const Facts& facts) {
  Advice advice(facts);
  switch (finding.cause) {
    case Cause::kNone: break;
    case Cause::kRebuilt:
    case Cause::kOrphanBind: for_rebuilt(advice); break;
    case Cause::kEphemeral: for_ephemeral(advice); break;
    case Cause::kDupName:
      advice.rename_newcomer(true);
      advice.look();
      break;
    case Cause::kStaleBind: for_stale_binding(advice); break;
    case Cause::kZombie: for_zombie(advice); break;
    case Cause::kToken: for_token(advice); break;
    case Cause::kCredFile: for_credential_file(advice); break;
    case Cause::kCloned: for_shared_identity(advice); break;
    case Cause::kAdminEdit: for_edited_binding(advice); break;
    case Cause::kRestored:
      advice.put_password_back();
      if (!holder_may_live(facts)) advice.accept(facts.refusals.presented, "forgotten by a restore");
      break;
    case Cause::kNameDrift:
      if (facts.family == Family::password && facts.known_elsewhere(facts.refusals.holder) != nullptr &&
          !holder_may_live(facts)) {
        advice.rename_newcomer(true);
        advice.release("its machine has another name now");
        break;
      }
      advice.push(
          "", "pin the name that the machine had: set it as host name or with --node-name, and restart the agent",
          advice.edit_service(), "none");
      break;
    case Cause::kPoolReuse:
      advice.rename_newcomer(true);
      advice.push("",
                  "have the pool release names when it removes machines, or give each machine a suffix of its own",
                  "", "none");
      break;
    case Cause::kStaleCert:
      advice.push(
          "",
          "remove the agent's old certificates, so that it joins by its token again (agents from v1.27.4 do so "
          "by themselves)",
          fmt::format("sudo rm -f {}/client-kubelet.* && {}", advice.program().agent_dir, advice.restart()),
          "none");
      break;
    case Cause::kSrvSplit:
      if (advice.upstreams())
        advice.push("", "compare what the ledger and each upstream have for the name, and bring the odd one up to date",
                    advice.secret_command("get"), "none");
      else
        advice.push(
            "", "compare the servers' ledgers and bring the odd one up to date; point agents at a good one meanwhile",
            "ledger verify", "none");
      break;
    case Cause::kSrvState: for_server_state(advice); break;
    case Cause::kOverload:
      advice.push("", "start agents in groups, 25 to 50 a minute; those refused try again by themselves", "",
                  "none");
      break;
    case Cause::kCa:
      advice.push("", "give the agent the current full token (K10...), which names the present CA",
                  advice.upstreams() ? "sudo cat " + advice.server_file("token")
                                     : "sudo ledger token show --data-dir /var/lib/ledger",
                  "none");
      break;
    case Cause::kLostReply:
      if (facts.family == Family::token)
        advice.push("", "make a new token for this machine, or one that is good for more than one join", "", "none");
      advice.push("", "look for what delays or drops replies: timeouts of a proxy or balancer, a loaded server", "",
                  "none");
      break;
    case Cause::kClock:
      advice.push("", "set the machine's clock before its agent starts (time synchronisation), and compare it with the "
                  "server's", "timedatectl status; date -u", "none");
      break;
    case Cause::kEndpoint:
      advice.push("", "ask from the machine itself, past every proxy and balancer; they must pass TCP through and leave "
                  "127.0.0.1 alone (NO_PROXY)", "env | grep -i proxy; " + advice.reach_server(), "none");
      break;
    case Cause::kUnknown: for_unknown(advice); break;
  }
  return advice.take();
}

}  // namespace ledger::replay
