// Every number that a judgement depends on, with its reason. Agents retry every 5 s (5 to 10 s since 2023-11)
// for ever, show their password twice per start and then only hold their tunnel open.
#pragma once

#include <cstddef>
#include <cstdint>

namespace ledger::replay {

// The holder lived during the refusals when it was heard from this close to one: 12 or more retry periods, and
// longer than it takes to notice a dead tunnel (10 to 60 s without a ping).
inline constexpr double kAliveWindow_s = 120;

// A refused agent that has not come back for this long has stopped: 60 retry periods, five count intervals of
// the storm counter (records of a running storm are at most 120 s apart).
inline constexpr double kGaveUp_s = 600;

// A machine is not rebuilt faster than this; a container or a boot from a fixed image may be.
inline constexpr double kRebuildTakes_s = 120;

// After a release the old agent comes back by itself within seconds to minutes (systemd restarts it). Lived the
// holder on for less than the first, the release failed by that; for more than the second, the holder was
// plainly meant to stay and the release is an old story.
inline constexpr double kZombieLife_s = 3600;
inline constexpr double kZombieLifeAtMost_s = 86400;

// A password that was let in and lasted longer than this was not lost at a restart, as far as anybody can tell:
// two changes further apart are two rebuilds rather than EPHEMERAL.
inline constexpr double kRestartsWithin_s = 30 * 86400.0;

// A name that was silent for this long may have been handed out again.
inline constexpr double kLongSilence_s = 86400;
inline constexpr double kPoolSilence_s = 3600;

// Refusals that begin this soon after a restore are suspected to come from it.
inline constexpr double kAfterRestore_s = 86400;

// The store and the caches of a server that has just started may not be complete.
inline constexpr double kServerWarmup_s = 300;

// A machine does not move to another network and back within this; two copies of it seem to.
inline constexpr double kRoundTrip_s = 600;

// Agents give up on a reply after 10 s (20 s before v1.20.4) and start anew 5 to 10 s later; a machine or a service that
// restarts takes longer than all of that, or opens its tunnel in between.
inline constexpr double kAgentTimeout_s = 30;
// The two certificate requests of one start follow each other within this.
inline constexpr double kOneStart_s = 3;
// So many admissions in a row without going on are no coincidence.
inline constexpr std::size_t kLostRounds = 4;

// A first join that has no Node after this long is not going to (k3s sweeps bindings without a Node after 10 min).
inline constexpr double kUnfinishedJoin_s = 600;

// A start asks for the CA once, by a handshake that is expected to fail. So many of them and nothing after any (a new
// round every 2 s, or at each retry) are an agent that stops there.
inline constexpr std::int64_t kProbesInVain = 8;

// Two kinds of failure this close together belong to one machine's retries.
inline constexpr double kSameRetries_s = 60;

}  // namespace ledger::replay
