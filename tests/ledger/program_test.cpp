#include "ledger/program.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace ledger {
namespace {

using testing::HasSubstr;

TEST(Program, IsFoundByItsName) {
  for (const Program* program : {&kK3s, &kRke2}) {
    const auto found = find_program(program->name);
    ASSERT_TRUE(found) << program->name;
    EXPECT_EQ(*found, program);
  }
  for (const char* name : {"", "K3s", "k3s ", "k0s", "rke"}) {
    const auto found = find_program(name);
    ASSERT_FALSE(found) << name;
    EXPECT_THAT(found.error().message, HasSubstr("use k3s or rke2"));
  }
}

TEST(Program, IsKnownByAPath) {
  EXPECT_EQ(program_of_path("/v1-k3s/config"), &kK3s);
  EXPECT_EQ(program_of_path("/v1-rke2/client-rke2-controller.crt"), &kRke2);
  for (const char* path : {"", "/", "/v1-k3s", "/v1-k3sx/config", "/v1-rke/config", "/V1-k3s/config", "/cacerts"})
    EXPECT_EQ(program_of_path(path), nullptr) << path;
}

TEST(Program, IsKnownByTheNameOfItsCa) {
  EXPECT_EQ(program_of_authority("k3s-client-ca@1700000000"), &kK3s);
  EXPECT_EQ(program_of_authority("rke2-server-ca@1700000000"), &kRke2);
  for (const char* name : {"", "k3s", "rke2", "Example CA", "k3sx-client-ca@1", "my k3s-client-ca@1"})
    EXPECT_EQ(program_of_authority(name), nullptr) << name;
}

// What agents and kube-apiservers compare, letter by letter (k3s' and RKE2's sources).
TEST(Program, NamesAreThoseOnTheWire) {
  for (const Program* program : {&kK3s, &kRke2}) {
    const std::string name(program->name);
    EXPECT_EQ(program->path_prefix, "/v1-" + name + "/");
    EXPECT_EQ(program->node_name_header, name + "-node-name");
    EXPECT_EQ(program->node_password_header, name + "-node-password");
    EXPECT_EQ(program->node_ip_header, name + "-node-ip");
    EXPECT_EQ(program->controller_user, "system:" + name + "-controller");
    EXPECT_EQ(program->controller_stem, "client-" + name + "-controller");
    EXPECT_EQ(program->agent_group, name + ":agent");
    EXPECT_EQ(program->server_group, name + ":server");
  }
}

TEST(Program, NamesAreThoseOnMachines) {
  for (const Program* program : {&kK3s, &kRke2}) {
    const std::string name(program->name);
    EXPECT_EQ(program->agent_service, name + "-agent");
    EXPECT_EQ(program->config_file, "/etc/rancher/" + name + "/config.yaml");
    EXPECT_EQ(program->agent_dir, "/var/lib/rancher/" + name + "/agent");
    EXPECT_EQ(program->server_dir, "/var/lib/rancher/" + name + "/server");
    EXPECT_EQ(program->usual_port, program->supervisor_port == 0 ? 6443 : program->supervisor_port);
  }
}

}  // namespace
}  // namespace ledger
