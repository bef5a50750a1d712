// What became of a name after another password was let in that the records show as refused: was its holder alive?
// Told every later record of the name, answers at the end. Only whatif.cpp includes this. Any thread.
#pragma once

#include <map>
#include <set>
#include <string>

#include "replay/whatif.h"

namespace ledger::replay {

using OpenTunnels = std::map<std::string, Seq, std::less<>>;  // session -> the record that opened it

// What was known of the holder when the other password came.
struct HolderBefore {
  Seq registered = 0;        // its last registration, as recorded
  Seq newcomer_refused = 0;  // the first refusal of the other password under the same binding; 0: this is it
  OpenTunnels tunnels;       // open at that moment
  bool had_tunnel = false;   // some tunnel was recorded since the name was bound
};

class Hindsight {
 public:
  // `first`: the refusal that would have been an admission.
  Hindsight(const Record& first, Displacement what, HolderBefore before);

  Displacement displacement;

  // A password was shown for the name, after the first record.
  void hear_password(const Record& record, const Fingerprint& presented, bool admitted);
  // An operator bound the name to this password.
  void hear_accept(Seq seq, const Fingerprint& to);
  void hear_tunnel_opened(const Record& record);
  // `by_server`: the server's end closed it, which says nothing about the machine.
  void hear_tunnel_closed(Time when, const std::string& session, bool by_server);

  // With the verdict; `end` is the time of the last record.
  Displacement judge(Time end) const;

 private:
  std::string alive_sign(Time end) const;     // empty: none
  std::string innocent_sign(Time end) const;  // empty: none
  std::string missing() const;

  Time entered_;
  std::set<std::string, std::less<>> claimed_;
  HolderBefore before_;
  bool own_certificate_ = false;
  bool holder_elsewhere_ = false;
  bool cut_by_server_ = false;
  Seq holder_again_ = 0, newcomer_after_ = 0, accepted_ = 0, registered_after_ = 0, reopened_ = 0;
  Seq long_tunnel_ = 0;  // was open for a while after the first record, then closed
  double long_tunnel_s_ = 0;
};

}  // namespace ledger::replay
