// What a node's name says about where it comes from. Hints only: a name is whatever somebody typed.
#pragma once

#include <string_view>

namespace ledger::replay {

// A host name that distributions and images ship with: "raspberrypi", "localhost", "ubuntu".
bool is_default_hostname(std::string_view name);
// Made from an IPv4 address: "ip-172-31-16-236", "10-0-0-5.node". Its address says nothing about the machine.
bool is_address_name(std::string_view name);
// Given out by autoscalers and pools: made from an address, with a pool's word in it, or ending in a generated
// part like "x7k2p".
bool is_pool_name(std::string_view name);
// Ends in a number: "worker-3", "rpi07".
bool is_numbered(std::string_view name);

}  // namespace ledger::replay
