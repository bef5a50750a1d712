#include "ledger/event.h"

#include <array>

namespace ledger {
namespace {

struct Named {
  Kind kind;
  std::string_view name;
};

constexpr std::array kKinds = {
    Named{Kind::server_started, "server_started"},
    Named{Kind::server_stopped, "server_stopped"},
    Named{Kind::epoch_started, "epoch_started"},
    Named{Kind::clock_stepped, "clock_stepped"},
    Named{Kind::token_created, "token_created"},
    Named{Kind::token_rotated, "token_rotated"},
    Named{Kind::token_revoked, "token_revoked"},
    Named{Kind::token_expired, "token_expired"},
    Named{Kind::token_accepted, "token_accepted"},
    Named{Kind::token_rejected, "token_rejected"},
    Named{Kind::password_stored, "password_stored"},
    Named{Kind::password_verified, "password_verified"},
    Named{Kind::password_rejected, "password_rejected"},
    Named{Kind::request_rejected, "request_rejected"},
    Named{Kind::binding_released, "binding_released"},
    Named{Kind::binding_changed, "binding_changed"},
    Named{Kind::binding_held, "binding_held"},
    Named{Kind::binding_imported, "binding_imported"},
    Named{Kind::certificate_issued, "certificate_issued"},
    Named{Kind::tunnel_opened, "tunnel_opened"},
    Named{Kind::tunnel_closed, "tunnel_closed"},
    Named{Kind::node_object_created, "node_object_created"},
    Named{Kind::node_object_deleted, "node_object_deleted"},
    Named{Kind::tls_failed, "tls_failed"},
    Named{Kind::checkpoint_signed, "checkpoint_signed"},
    Named{Kind::export_created, "export_created"},
    Named{Kind::archive_sealed, "archive_sealed"},
    Named{Kind::import_finished, "import_finished"},
    Named{Kind::legal_hold_placed, "legal_hold_placed"},
    Named{Kind::legal_hold_lifted, "legal_hold_lifted"},
    Named{Kind::archive_removed, "archive_removed"},
    Named{Kind::mode_changed, "mode_changed"},
    Named{Kind::upstream_lost, "upstream_lost"},
    Named{Kind::upstream_found, "upstream_found"},
};
static_assert(kKinds.size() == std::variant_size_v<Event>, "every kind has a name and a struct");

template <std::size_t I = 0>
std::optional<Event> make_event_from(std::uint16_t tag) {
  if constexpr (I == std::variant_size_v<Event>) {
    return std::nullopt;
  } else {
    using T = std::variant_alternative_t<I, Event>;
    if (static_cast<std::uint16_t>(T::kKind) == tag) return Event(std::in_place_index<I>);
    return make_event_from<I + 1>(tag);
  }
}

}  // namespace

Kind Record::kind() const {
  return std::visit([](const auto& e) { return std::decay_t<decltype(e)>::kKind; }, event);
}

std::string_view name_of(Kind kind) {
  for (const Named& named : kKinds)
    if (named.kind == kind) return named.name;
  fatal("a kind without a name");
}

std::optional<Kind> kind_from_name(std::string_view name) {
  for (const Named& named : kKinds)
    if (named.name == name) return named.kind;
  return std::nullopt;
}

std::optional<Event> make_event(std::uint16_t tag) { return make_event_from(tag); }

std::vector<std::string_view> fingerprints_of(const Record& record) {
  std::vector<std::string_view> found;
  std::visit(
      [&](const auto& event) {
        each_field(event, [&](const char*, const auto& value) {
          if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Fingerprint>)
            if (value.known()) found.push_back(value.text);
        });
      },
      record.event);
  return found;
}

bool is_server_wide(Kind kind) {
  switch (kind) {
    case Kind::server_started:
    case Kind::server_stopped:
    case Kind::epoch_started:
    case Kind::clock_stepped:
    case Kind::token_created:
    case Kind::token_rotated:
    case Kind::token_revoked:
    case Kind::token_expired:
    case Kind::import_finished:
    case Kind::archive_sealed:
    case Kind::legal_hold_placed:
    case Kind::legal_hold_lifted:
    case Kind::archive_removed:
    case Kind::mode_changed:
    case Kind::upstream_lost:
    case Kind::upstream_found:
      return true;
    default:
      return false;
  }
}

bool stays_in_store(Kind kind) {
  return is_server_wide(kind) || kind == Kind::node_object_created || kind == Kind::node_object_deleted;
}

bool is_refusal(Kind kind) {
  return kind == Kind::token_rejected || kind == Kind::password_rejected || kind == Kind::request_rejected ||
         kind == Kind::tls_failed;
}

}  // namespace ledger
