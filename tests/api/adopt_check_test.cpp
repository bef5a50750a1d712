// What is judged without a server, and a server that is none of k3s'. Everything else has a process of its own to
// ask: tests/tools/adoption_test.py.
#include "api/adopt_check.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <set>

#include "tests/support/k3s_server_dir.h"
#include "tests/support/running_server.h"
#include "tests/support/temp_dir.h"

namespace ledger::api {
namespace {

using test::K3sServerDir;
using test::TempDir;
using testing::HasSubstr;
using Outcome = DoctorStep::Outcome;

const DoctorStep& step_of(const AdoptCheckReport& report, std::string_view name) {
  for (const AdoptCheckItem& item : report.items)
    if (item.step.name == name) return item.step;
  ADD_FAILURE() << "no step " << name;
  return report.items.front().step;
}

void expect(const AdoptCheckReport& report, std::string_view name, Outcome outcome, const std::string& words) {
  const DoctorStep& step = step_of(report, name);
  EXPECT_EQ(name_of(step.outcome), name_of(outcome)) << step.detail;
  EXPECT_THAT(step.detail, HasSubstr(words));
}

class AdoptCheck : public testing::Test {
 protected:
  AdoptCheckOptions options() const {
    AdoptCheckOptions out;
    out.directory = source_.path();
    out.data_dir = dir_ / "data";
    out.listen_port = 1;  // nobody listens there
    out.deadline = std::chrono::seconds(30);
    return out;
  }

  TempDir dir_;
  K3sServerDir source_{dir_ / "server"};
};

TEST_F(AdoptCheck, ADirectoryAloneIsOnlyRead) {
  source_.put_secret("cred/node-passwd", "0123456789abcdef,web-1,web-1,\nfedcba9876543210,web-2,web-2,\n");
  const std::string before = source_.listing();
  const AdoptCheckReport report = examine_adoption(options());
  EXPECT_EQ(source_.listing(), before);
  EXPECT_FALSE(std::filesystem::exists(dir_ / "data"));
  expect(report, "permissions", Outcome::ok, "");
  expect(report, "signing", Outcome::ok, "have their keys");
  expect(report, "passwords", Outcome::warning, "2 of 2 names");
  expect(report, "port", Outcome::ok, "1 is free");
  EXPECT_EQ(report.items.size(), 4U);
}

TEST_F(AdoptCheck, WithoutNodePasswdTheSecretsAreMeant) {
  const AdoptCheckReport report = examine_adoption(options());
  expect(report, "passwords", Outcome::warning, "Secrets");
  EXPECT_THAT(step_of(report, "passwords").remedies.front().command, HasSubstr("ledger import secrets -"));
}

TEST_F(AdoptCheck, AKeyThatOthersCanReadIsToldAndLeftAlone) {
  ASSERT_EQ(::chmod((source_ / "tls/server-ca.key").c_str(), 0640), 0);
  AdoptCheckOptions options = this->options();
  options.upstreams = {"https://127.0.0.1:1"};
  const std::string before = source_.listing();
  const AdoptCheckReport report = examine_adoption(options);
  EXPECT_EQ(source_.listing(), before);
  expect(report, "permissions", Outcome::failure, "server-ca.key");
  expect(report, "signing", Outcome::skipped, "");
  expect(report, "connection", Outcome::skipped, "");
}

TEST_F(AdoptCheck, EveryStepIsToldAsItEnds) {
  AdoptCheckOptions options = this->options();
  options.upstreams = {"https://127.0.0.1:1", "10.0.0.1:6443"};
  std::vector<std::string> told;
  const AdoptCheckReport report = examine_adoption(
      options, [&told](const AdoptCheckItem& item) { told.push_back(item.upstream + " " + item.step.name); });
  ASSERT_EQ(told.size(), report.items.size());
  EXPECT_EQ(std::set<std::string>(told.begin(), told.end()).size(), told.size());
  EXPECT_EQ(report.count(Outcome::failure), 2U);  // nobody listens; no URL
  expect(report, "connection", Outcome::failure, "refused");
}

TEST_F(AdoptCheck, ALedgerIsNoUpstream) {
  const test::RunningServer server;
  AdoptCheckOptions options = this->options();
  options.directory = server.data_dir();
  options.upstreams = {"https://127.0.0.1:" + std::to_string(server.port())};
  const AdoptCheckReport report = examine_adoption(options);
  expect(report, "connection", Outcome::ok, "127.0.0.1");
  expect(report, "certificate", Outcome::ok, "signed by the directory's server CA");
  expect(report, "ca", Outcome::failure, "this is a ledger");
  expect(report, "token", Outcome::skipped, "");
}

TEST_F(AdoptCheck, AServerOfAnotherClusterIsShownNothing) {
  const test::RunningServer server;
  AdoptCheckOptions options = this->options();
  options.upstreams = {"https://127.0.0.1:" + std::to_string(server.port())};
  const AdoptCheckReport report = examine_adoption(options);
  expect(report, "certificate", Outcome::failure, "another cluster");
  expect(report, "ca", Outcome::skipped, "");
}

}  // namespace
}  // namespace ledger::api
