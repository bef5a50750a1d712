#include "replay/names.h"

#include <algorithm>
#include <array>
#include <string>
#include <vector>

namespace ledger::replay {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

std::vector<std::string_view> parts_of(std::string_view name) {
  std::vector<std::string_view> parts;
  std::size_t begin = 0;
  for (std::size_t i = 0; i <= name.size(); ++i) {
    if (i < name.size() && name[i] != '-' && name[i] != '.' && name[i] != '_') continue;
    if (i > begin) parts.push_back(name.substr(begin, i - begin));
    begin = i + 1;
  }
  return parts;
}

bool is_octet(std::string_view part) {
  return !part.empty() && part.size() <= 3 && std::all_of(part.begin(), part.end(), is_digit) &&
         std::stoi(std::string(part)) <= 255;
}

// Letters and digits mixed as no person mixes them.
bool is_generated(std::string_view part) {
  if (part.size() < 5) return false;
  int changes = 0;
  for (std::size_t i = 1; i < part.size(); ++i) changes += is_digit(part[i]) != is_digit(part[i - 1]);
  return changes >= 2;
}

}  // namespace

bool is_default_hostname(std::string_view name) {
  constexpr std::array kDefaults = {"raspberrypi",
                                    "localhost",
                                    "ubuntu",
                                    "debian",
                                    "fedora",
                                    "centos",
                                    "rocky",
                                    "almalinux",
                                    "archlinux",
                                    "alarm",
                                    "alpine",
                                    "opensuse",
                                    "linux",
                                    "host",
                                    "node",
                                    "server",
                                    "master",
                                    "worker",
                                    "agent",
                                    "k3s",
                                    "k3os",
                                    "pi",
                                    "vm",
                                    "docker",
                                    "nixos",
                                    "odroid",
                                    "rock64",
                                    "orangepi",
                                    "jetson",
                                    "nano",
                                    "armbian",
                                    "dietpi",
                                    "coreos",
                                    "flatcar",
                                    "photon-machine",
                                    "localhost.localdomain"};
  return std::find(kDefaults.begin(), kDefaults.end(), name.substr(0, name.find(".local"))) != kDefaults.end() ||
         std::find(kDefaults.begin(), kDefaults.end(), name) != kDefaults.end();
}

bool is_address_name(std::string_view name) {
  const std::vector<std::string_view> parts = parts_of(name);
  for (std::size_t i = 0; i + 4 <= parts.size(); ++i)
    if (std::all_of(parts.begin() + static_cast<std::ptrdiff_t>(i),
                    parts.begin() + static_cast<std::ptrdiff_t>(i) + 4, is_octet))
      return true;
  return false;
}

bool is_pool_name(std::string_view name) {
  constexpr std::array kWords = {"pool",       "nodepool",    "nodegroup", "asg",  "spot",
                                 "autoscaled", "autoscaler",  "karpenter", "vmss", "mig",
                                 "fleet",      "preemptible", "scaled",    "workers",
                                 "nodes",      "agents"};
  if (is_address_name(name)) return true;
  const std::vector<std::string_view> parts = parts_of(name);
  const bool word = std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
    while (!part.empty() && is_digit(part.back())) part.remove_suffix(1);
    return std::find(kWords.begin(), kWords.end(), part) != kWords.end();
  });
  return word || (parts.size() >= 2 && is_generated(parts.back()));
}

bool is_numbered(std::string_view name) {
  const std::string_view host = name.substr(0, name.find('.'));
  return !host.empty() && is_digit(host.back());
}

}  // namespace ledger::replay
