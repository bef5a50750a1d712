// Whatever a kube-apiserver says about its nodes: an answer or an error that can be printed, and what is accepted
// keeps the promises of the header.
//
// Input: the first byte chooses (even: a page of a list, odd: a line of a watch), the rest is the text.
#include <cstddef>
#include <cstdint>
#include <cstdlib>

#include "api/kube_nodes.h"
#include "ledger/types.h"

namespace {

void require(bool ok) {
  if (!ok) std::abort();
}

void require_printable(const std::string& text) { require(ledger::printable(text, text.size()) == text); }

void fuzz_page(std::string_view text) {
  const auto page = ledger::api::read_node_page(text);
  if (!page) return require_printable(page.error().message);
  require(!page->version.empty());
  for (const ledger::api::KubeNode& node : page->nodes) require(!node.name.empty() && !node.uid.empty());
}

void fuzz_event(std::string_view text) {
  using Type = ledger::api::KubeNodeEvent::Type;
  const auto event = ledger::api::read_node_event(text);
  if (!event) return require_printable(event.error().message);
  require_printable(event->message);
  const bool of_node = event->type == Type::exists || event->type == Type::deleted;
  require(of_node == !event->node.name.empty() && of_node == !event->node.uid.empty());
  require((event->type == Type::ended) == event->version.empty());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] % 2 == 0)
    fuzz_page(text);
  else
    fuzz_event(text);
  return 0;
}
