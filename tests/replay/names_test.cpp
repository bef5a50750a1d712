#include "replay/names.h"

#include <gtest/gtest.h>

namespace ledger::replay {
namespace {

TEST(Names, DefaultHostNames) {
  for (const char* name : {"raspberrypi", "localhost", "ubuntu", "localhost.localdomain", "raspberrypi.local"})
    EXPECT_TRUE(is_default_hostname(name)) << name;
  for (const char* name : {"raspberrypi-2", "web-1", "", "ubuntu-server-lab"})
    EXPECT_FALSE(is_default_hostname(name)) << name;
}

TEST(Names, MadeFromAnAddress) {
  for (const char* name : {"ip-172-31-16-236", "10-0-0-5", "node-10-0-0-5.example", "ip-10-0-0-5.ec2.internal"})
    EXPECT_TRUE(is_address_name(name)) << name;
  for (const char* name : {"web-1-2-3", "ip-172-31-16-999", "v1.2.3", "rack1-2-3-4x"})
    EXPECT_FALSE(is_address_name(name)) << name;
}

TEST(Names, GivenOutByPools) {
  for (const char* name :
       {"pool-a1-x7k2p", "gke-nodepool-1", "asg12-worker", "spot-3", "k3s-agent-fsn1-ab12c3", "ip-10-0-0-5"})
    EXPECT_TRUE(is_pool_name(name)) << name;
  for (const char* name : {"web-1", "rpi-07", "storage-main", "db-primary", "node12345", "whirlpool", "k3os-4224"})
    EXPECT_FALSE(is_pool_name(name)) << name;
}

TEST(Names, Numbered) {
  EXPECT_TRUE(is_numbered("worker-3"));
  EXPECT_TRUE(is_numbered("rpi07.lan"));
  EXPECT_FALSE(is_numbered("gateway"));
  EXPECT_FALSE(is_numbered(""));
}

}  // namespace
}  // namespace ledger::replay
