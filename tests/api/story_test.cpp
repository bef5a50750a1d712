// The story that this program exists for, once for each generation of agents: a machine joins, comes back, is
// rebuilt and refused; the explanation names the records; each of the three remedies lets it in. Agents are played
// over real TLS; explanation and remedies are the `ledger` command itself, beside the running server.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

#include "api/agent.h"
#include "tests/support/paths.h"
#include "tests/support/running_server.h"

namespace ledger::api {
namespace {

using testing::Contains;
using testing::EndsWith;
using testing::StartsWith;
using Verdict = AgentOutcome::Verdict;

constexpr const char* kRefusal =
    "Node password rejected, duplicate hostname or contents of '%' may not match server node-passwd entry, "
    "try enabling a unique node name with the --with-node-id flag";

struct Played {
  Generation generation;
  bool rke2 = false;
};

class Story : public testing::TestWithParam<Played> {
 protected:
  AgentOptions options() const {
    AgentOptions out;
    out.server = "https://127.0.0.1:" + std::to_string(server_.port());
    out.token = Secret(trim(test::file_bytes(server_.data_dir() / "node-token")));
    out.node_name = "web-1";
    out.generation = GetParam().generation;
    out.rke2 = GetParam().rke2;
    out.password_file = vm_ / "etc" / "password";
    return out;
  }

  void join() {
    const AgentOutcome outcome = run_agent(options());
    ASSERT_EQ(outcome.verdict, Verdict::joined) << outcome.sentence << " " << outcome.cause;
  }

  // A fresh disk: whatever the agent kept is gone.
  void rebuild() { std::filesystem::remove_all(vm_ / "etc"); }

  // Refused in k3s' words; returns the record of the refusal.
  Record refused() {
    const AgentOutcome outcome = run_agent(options());
    EXPECT_EQ(outcome.verdict, Verdict::refused);
    std::string sentence = kRefusal;
    sentence.replace(sentence.find('%'), 1, options().password_file.string());
    EXPECT_THAT(outcome.sentence, EndsWith(sentence));
    EXPECT_EQ(outcome.requests.back().status, 403);
    const Result<Record> record = server_.log()->read(std::stoull("0" + outcome.requests.back().seq));
    EXPECT_TRUE(record && as<PasswordRejected>(*record) != nullptr);
    return record ? *record : Record{};
  }

  test::CommandResult ledger(const std::string& arguments) const {
    return test::run_command(test::ledger_binary() + " " + arguments + " --data-dir " +
                             server_.data_dir().string());
  }

  boost::json::object explanation() const {
    const auto said = ledger("replay --node web-1 --format json");
    EXPECT_EQ(said.status, 0) << said.output;
    return boost::json::parse(said.output).as_object();
  }

  static std::vector<Seq> cited(const boost::json::object& explanation) {
    std::vector<Seq> out;
    for (const auto& fact : explanation.at("evidence").as_array())
      out.push_back(fact.as_object().at("seq").to_number<Seq>());
    return out;
  }

  // Join, join again, rebuild: what every remedy starts from.
  Record come_to_grief() {
    join();
    join();
    rebuild();
    return refused();
  }

  test::RunningServer server_{[](ServerOptions& server) {
    if (!GetParam().rke2) return;
    server.program = &kRke2;
    server.supervisor_port = 0;  // 9345 may be taken here
  }};
  test::TempDir vm_;
};

TEST_P(Story, ARebuiltMachineIsExplainedAndAccepted) {
  const Record refusal = come_to_grief();
  const Record bound = server_.records_of<PasswordStored>().front();

  const auto said = explanation();
  EXPECT_EQ(said.at("cause"), "REBUILT");
  EXPECT_EQ(said.at("state"), "refused");
  EXPECT_EQ(said.at("bound").as_object().at("since_seq").to_number<Seq>(), bound.seq);
  EXPECT_THAT(cited(said), Contains(refusal.seq));

  const auto& fingerprint = as<PasswordRejected>(refusal)->fingerprint.text;
  const auto accepted = ledger("node accept web-1 --reason rebuilt --fingerprint " + fingerprint.substr(0, 8));
  ASSERT_EQ(accepted.status, 0) << accepted.output;
  const auto changed = server_.records_of<BindingChanged>();
  ASSERT_EQ(changed.size(), 1U);
  EXPECT_EQ(as<BindingChanged>(changed[0])->to.text, fingerprint);
  join();
  EXPECT_EQ(explanation().at("cause"), "NONE");
  EXPECT_EQ(ledger("verify").status, 0);
}

TEST_P(Story, ReleasingTheNameLetsItIn) {
  come_to_grief();
  const auto released = ledger("node release web-1 --reason rebuilt");
  ASSERT_EQ(released.status, 0) << released.output;
  join();
  EXPECT_EQ(explanation().at("cause"), "NONE");
}

TEST_P(Story, ANodeIdLetsItIn) {
  come_to_grief();
  AgentOptions agent = options();
  agent.with_node_id = true;
  const AgentOutcome outcome = run_agent(agent);
  EXPECT_EQ(outcome.verdict, Verdict::joined) << outcome.sentence;
  EXPECT_THAT(outcome.node, StartsWith("web-1-"));
  EXPECT_EQ(run_agent(agent).node, outcome.node);
}

TEST_P(Story, TheOldPasswordPutBackLetsItIn) {
  join();
  const std::string old = test::file_bytes(options().password_file);
  rebuild();
  refused();
  test::put_file(options().password_file, old);
  join();
  EXPECT_EQ(explanation().at("cause"), "NONE");
}

std::string name_of_row(const testing::TestParamInfo<Played>& row) {
  return (row.param.rke2 ? "Rke2" : "") + std::string(name_of(row.param.generation));
}

INSTANTIATE_TEST_SUITE_P(Generations, Story,
                         testing::Values(Played{Generation::G1}, Played{Generation::G2}, Played{Generation::G3},
                                         Played{Generation::G4}, Played{Generation::G5}, Played{Generation::G6},
                                         Played{Generation::G7}),
                         name_of_row);

INSTANTIATE_TEST_SUITE_P(Rke2, Story,
                         testing::Values(Played{Generation::G3, true}, Played{Generation::G5, true},
                                         Played{Generation::G6, true}, Played{Generation::G7, true}),
                         name_of_row);

}  // namespace
}  // namespace ledger::api
